//! Slips in a comment that declares a budget.

use super::Checked;
use crate::declare_rule;
use crate::finding::Finding;
use crate::suppress;

declare_rule! {
    /// ## What it does
    ///
    /// Finds words in a `# llmlint: gpu=... gpus=...` comment that cannot be used. Known are
    /// `gpu`, `gpus`, `budget` (usable memory of one GPU) and `host-memory`.
    ///
    /// ## Why
    ///
    /// The budget is not the one you believe in, and neither is the verdict.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="gpsu=8"
    /// # llmlint: gpu=H100-80GB gpsu=8
    /// base_model: Qwen/Qwen3-0.6B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 2048
    /// micro_batch_size: 1
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write the name that the message suggests.
    ///
    /// ```diff title="sft.yaml"
    /// -# llmlint: gpu=H100-80GB gpsu=8
    /// +# llmlint: gpu=H100-80GB gpus=8
    /// ```
    InlineBudget, "inline-budget", Warning, "a budget comment has words that cannot be used"
}

impl InlineBudget {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        if let Some(source) = file.sources.first() {
            findings.extend(suppress::inline_budget(file.document, source).1);
        }
    }
}
