//! GRPO's groups and the batch they must fill.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::Origin;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Checks that a GRPO batch is made of whole groups: completions a step over all GPUs must
    /// be a multiple of `num_generations`, and a group has at least two.
    ///
    /// ## Why
    ///
    /// GRPO compares the completions of one prompt with each other. TRL refuses a batch that
    /// would cut a group in two. The batch size of these trainers counts completions, not
    /// prompts.
    ///
    /// ## Example
    ///
    /// ```yaml title="grpo.yaml" mark="num_generations: 7"
    /// model_name_or_path: Qwen/Qwen3-0.6B
    /// output_dir: out
    /// learning_rate: 1.0e-6
    /// per_device_train_batch_size: 2
    /// gradient_accumulation_steps: 1
    /// num_generations: 7
    /// max_completion_length: 256
    /// ```
    ///
    /// ```console
    /// $ llmlint grpo.yaml --gpus 8
    /// ```
    ///
    /// ## The fix
    ///
    /// Change the batch, the accumulation, the number of GPUs or the group.
    ///
    /// ```diff title="grpo.yaml"
    /// -num_generations: 7
    /// +num_generations: 8
    /// ```
    GenerationsNotDivisible, "generations-not-divisible", Error, "a GRPO batch that cuts a group in two"
}

impl GenerationsNotDivisible {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some(run)) = (file.root, file.run) else { return };
        if file.framework.is_none_or(|f| f.name() != "trl") {
            return;
        }
        let Some(value) = root.get("num_generations") else { return };
        let Some(group) = value.to_int().and_then(|n| u64::try_from(n).ok()) else { return };
        let location = Location::primary(value.key_span().cover(value.span()));
        if group < 2 {
            findings.push(
                Finding::new(Self::NAME, Severity::Error, location, "a group needs at least two completions")
                    .note("The advantage of a completion is its reward against the others of its group."),
            );
            return;
        }
        // Without a count that somebody gave, nothing is known about the batch.
        let Some(gpus) = run.parallelism.gpus.as_ref().filter(|g| !matches!(g.origin, Origin::Assumed(_)))
        else {
            return;
        };
        // vLLM beside the training keeps GPUs for itself, and nothing says how many.
        let on = |key: &str| root.get(key).is_some_and(|v| v.to_bool() == Some(true));
        let colocated = root.get("vllm_mode").is_some_and(|v| v.text() == Some("colocate"));
        if (on("use_vllm") && !colocated) || root.get("generation_batch_size").is_some() {
            return;
        }
        let steps = root
            .get("steps_per_generation")
            .and_then(|v| v.to_int())
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(run.gradient_accumulation_steps.value);
        let batch = run.micro_batch_size.value.saturating_mul(gpus.value).saturating_mul(steps);
        if batch % group != 0 {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    location,
                    format!("{batch} completions a step do not make groups of {group}"),
                )
                .note(format!(
                    "{} a GPU × {} GPUs × {steps} steps = {batch}.",
                    run.micro_batch_size.value, gpus.value
                )),
            );
        }
    }
}
