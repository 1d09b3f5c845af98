//! Runs that may or may not fit.

use super::{Checked, drivers};
use crate::check::Verdict;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Reports runs whose budget lies within the interval of the estimate.
    ///
    /// ## Why
    ///
    /// An estimate is not a measurement: the allocator fragments, libraries take memory of their
    /// own, batches vary. The interval holds about nine measured runs in ten. When it straddles
    /// the budget, the run may end out of memory, perhaps after hours.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="micro_batch_size: >4<"
    /// base_model: meta-llama/Llama-3.2-1B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// sample_packing: true
    /// micro_batch_size: 4
    /// gradient_checkpointing: true
    /// learning_rate: 1.0e-5
    /// optimizer: adamw_torch_fused
    /// bf16: true
    /// attn_implementation: flash_attention_2
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml --gpu A100-40GB --gpus 1
    /// ```
    ///
    /// ## The fix
    ///
    /// Take one of the changes listed, try the run for a few steps with the longest batch first,
    /// or accept it with `# llmlint: ignore[tight-fit]` once it has run.
    ///
    /// ```diff title="sft.yaml"
    /// -micro_batch_size: 4
    /// +micro_batch_size: 2
    /// +gradient_accumulation_steps: 2
    /// ```
    TightFit, "tight-fit", Warning, "the run may need more GPU memory than it may use"
}

impl TightFit {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Verdict::Tight, Some(run), Some(estimate), Some(budget)) =
            (file.verdict, file.run, file.estimate, file.budget)
        else {
            return;
        };
        let message = format!(
            "{} may end {} over the {}",
            drivers::peak(estimate),
            estimate.device_interval.high - budget.memory,
            budget.describe(),
        );
        let finding = Finding::new(Self::NAME, Severity::Warning, Location::default(), message);
        let finding = drivers::point(finding, estimate, run);
        let finding = drivers::notes(finding, estimate, run);
        findings.push(drivers::suggest(finding, file, run, budget));
    }
}
