//! Suppression comments that silence nothing. The findings are made in [`crate::suppress`],
//! which sees what every other rule said.

use super::Checked;
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Finds `# llmlint: ignore[...]` comments that name a rule which says nothing there, or a
    /// rule that does not exist.
    ///
    /// ## Why
    ///
    /// The comment outlives the mistake it was written for, and silences the next one.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="unknown-key"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096 # llmlint: ignore[unknown-key]
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Delete the name, or the comment.
    ///
    /// ```diff title="sft.yaml"
    /// -sequence_len: 4096 # llmlint: ignore[unknown-key]
    /// +sequence_len: 4096
    /// ```
    UnusedSuppression, "unused-suppression", Warning, "a suppression comment silences nothing"
}

impl UnusedSuppression {
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}
