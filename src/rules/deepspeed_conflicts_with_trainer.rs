//! Values that a DeepSpeed file and the trainer state differently.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Compares the numbers in a DeepSpeed file with those of the run that names it.
    ///
    /// ## Why
    ///
    /// Hugging Face's Trainer insists that micro batch, accumulation, clipping, learning rate and
    /// the optimizer's constants are the same on both sides, and stops at start where they are
    /// not.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="gradient_accumulation_steps: >4<"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 2048
    /// micro_batch_size: 2
    /// gradient_accumulation_steps: 4
    /// learning_rate: 2.0e-5
    /// deepspeed: ds_zero2.json
    /// ```
    ///
    /// ```json title="ds_zero2.json"
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "gradient_accumulation_steps": 8,
    ///   "zero_optimization": { "stage": 2 }
    /// }
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write `"auto"` in the DeepSpeed file: the trainer fills in its own value.
    ///
    /// ```diff title="ds_zero2.json"
    /// -  "gradient_accumulation_steps": 8,
    /// +  "gradient_accumulation_steps": "auto",
    /// ```
    DeepspeedConflictsWithTrainer, "deepspeed-conflicts-with-trainer", Error,
        "the DeepSpeed file and the trainer state different values"
}

impl DeepspeedConflictsWithTrainer {
    /// Made while the run is lowered, where references are followed.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}

/// The finding for DeepSpeed's key, value and place, against the trainer's key, value and place
/// (absent: the trainer's default).
pub(crate) fn finding(theirs: (&str, f64, Location), ours: (&str, f64, Option<Location>)) -> Finding {
    let message =
        format!("DeepSpeed's `{}` is {}, but the run's `{}` is {}", theirs.0, theirs.1, ours.0, ours.1);
    let rule = DeepspeedConflictsWithTrainer::NAME;
    let finding = match ours.2 {
        Some(at) => Finding::new(rule, Severity::Error, at, message)
            .at("the run has this")
            .label(theirs.2, "DeepSpeed has this"),
        None => Finding::new(rule, Severity::Error, theirs.2, message)
            .note(format!("`{}` is not written, so its default {} holds.", ours.0, ours.1)),
    };
    finding.note("The Trainer compares the two and stops at start.").help(format!(
        "write `\"{}\": \"auto\"` in the DeepSpeed file",
        theirs.0.rsplit('.').next().unwrap_or(theirs.0)
    ))
}
