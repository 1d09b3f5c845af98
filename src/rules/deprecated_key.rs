//! Keys that the framework still reads and will drop.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework calls deprecated.
    ///
    /// ## Why
    ///
    /// They work today and stop working, or are silently ignored, in a later release.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark=">flash_attention<: true"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// flash_attention: true
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Use the new name. `llmlint check --fix` renames keys whose value stays the same.
    ///
    /// ```diff title="sft.yaml"
    /// -flash_attention: true
    /// +attn_implementation: flash_attention_2
    /// ```
    DeprecatedKey, "deprecated-key", Note, "the framework will drop this key"
}

impl DeprecatedKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        for mistake in file.mistakes {
            let MistakeKind::Deprecated { since, instead, rename } = &mistake.kind else { continue };
            let key = mistake.dotted();
            let mut finding = Finding::new(
                Self::NAME,
                Severity::Note,
                Location::primary(mistake.key_span),
                format!("`{key}` is deprecated"),
            );
            finding = finding.at(match since {
                Some(since) => format!("deprecated since {} {since}", framework.name()),
                None => format!("{} will drop it", framework.name()),
            });
            findings.push(super::offer_rename(file, mistake, finding, instead.as_deref(), *rename));
        }
    }
}
