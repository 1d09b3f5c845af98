//! Values that a DeepSpeed file and the trainer state differently.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Compares the numbers in a DeepSpeed file, or in a section of the run, with the run's own.
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
        "DeepSpeed's settings and the trainer's state different values"
}

impl DeepspeedConflictsWithTrainer {
    /// Made while the run is lowered, where references are followed.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}

/// A number that DeepSpeed's mapping and the run both state, with the places of both.
pub(crate) struct Difference<'a> {
    /// DeepSpeed's key, value and place.
    pub(crate) theirs: (&'a str, f64, Location),
    /// The run's; no place: its default.
    pub(crate) ours: (&'a str, f64, Option<Location>),
}

/// The finding for one difference. `file`: the mapping stands in a file of its own.
pub(crate) fn finding(difference: &Difference<'_>, file: bool) -> Finding {
    let (theirs, ours) = (difference.theirs, difference.ours);
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
    let place = if file { "in the DeepSpeed file" } else { "in the DeepSpeed section" };
    finding
        .note("The Trainer compares the two and stops at start.")
        .help(format!("write `\"{}\": \"auto\"` {place}", theirs.0.rsplit('.').next().unwrap_or(theirs.0)))
}
