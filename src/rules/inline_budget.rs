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
    /// ## Why is this bad
    ///
    /// The budget is not the one you believe in, and neither is the verdict.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// # llmlint: gpu=H100-80GB gpsu=8
    /// base_model: Qwen/Qwen3-8B
    /// ```
    ///
    /// ## Fix
    ///
    /// Write the name that the message suggests.
    InlineBudget, "inline-budget", Warning, "a budget comment has words that cannot be used"
}

impl InlineBudget {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        if let Some(source) = file.sources.first() {
            findings.extend(suppress::inline_budget(file.document, source).1);
        }
    }
}
