//! Runs that do not fit their GPUs.

use super::{Checked, drivers};
use crate::check::Verdict;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::memory::Floor;
use crate::run::{Origin, TrainingRun};
use crate::settings::Budget;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Compares the memory that a run needs on its worst GPU with what that GPU has, and reports
    /// runs whose estimate is over the budget even at its lower end.
    ///
    /// ## Why
    ///
    /// The run would end with `CUDA out of memory`, at the first step or when the longest batch
    /// comes, after the GPUs were rented and the weights loaded.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="micro_batch_size: >4<"
    /// base_model: meta-llama/Llama-3.1-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// sample_packing: true
    /// micro_batch_size: 4
    /// gradient_accumulation_steps: 8
    /// learning_rate: 1.0e-5
    /// optimizer: adamw_torch_fused
    /// bf16: true
    /// attn_implementation: flash_attention_2
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml --gpu H100-80GB --gpus 1
    /// ```
    ///
    /// The message names the peak and the moment of the step it falls in. The labels are on the
    /// lines that drive the largest parts of it, the one worth changing first. The bar shows the
    /// parts against the budget.
    ///
    /// ## The fix
    ///
    /// The changes that fit are listed with the peak each leads to, those that slow training
    /// least first. `llmlint fit FILE` shows more of them, and `llmlint explain FILE` every line
    /// of the sum.
    ///
    /// ```diff title="sft.yaml"
    /// -micro_batch_size: 4
    /// -gradient_accumulation_steps: 8
    /// +micro_batch_size: 1
    /// +gradient_accumulation_steps: 32
    /// +gradient_checkpointing: true
    /// ```
    ///
    /// Of a model that is known by its number of parameters alone there is no estimate. Its weights,
    /// gradients and optimizer states are a floor, and a floor over the budget is reported too.
    ///
    /// A budget is declared with `--gpu`, `--budget`, in `llmlint.toml` or in the file. Without
    /// one this rule says nothing.
    OverBudget, "over-budget", Error, "the run needs more GPU memory than it may use"
}

impl OverBudget {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Verdict::Exceeds, Some(run), Some(budget)) = (file.verdict, file.run, file.budget) else {
            return;
        };
        let Some(estimate) = file.estimate else {
            findings.extend(file.floor.map(|floor| at_least(floor, run, budget)));
            return;
        };
        let message = format!(
            "{} is {} over the {}",
            drivers::peak(estimate),
            estimate.device - budget.memory,
            budget.describe(),
        );
        let finding = found(run, message);
        let finding = drivers::point(finding, estimate, run);
        let finding = drivers::notes(finding, estimate, run);
        findings.push(drivers::suggest(finding, file, run, budget));
    }
}

/// Where the launch command decides how states are sharded and no file names it, the estimate is for
/// plain replicas, and sharding may well make the run fit.
fn found(run: &TrainingRun, message: String) -> Finding {
    match &run.parallelism.data_parallel.origin {
        Origin::Assumed(reason) => {
            Finding::new(OverBudget::NAME, Severity::Warning, Location::default(), message)
                .note(format!("How states are sharded is assumed: {reason}."))
        }
        _ => Finding::new(OverBudget::NAME, Severity::Error, Location::default(), message),
    }
}

/// A run without an estimate, whose states alone are too much.
fn at_least(floor: &Floor, run: &TrainingRun, budget: &Budget) -> Finding {
    let over = floor.total() - budget.memory;
    let message = format!("at least {} is needed, {over} over the {}", floor.total(), budget.describe());
    let mut finding = found(run, message);
    let model = run.model.origin.location();
    let place = model.or_else(|| run.parallelism.data_parallel.origin.location());
    finding.primary.location = place.unwrap_or_default();
    finding.at("states alone").note(drivers::floor(floor))
}
