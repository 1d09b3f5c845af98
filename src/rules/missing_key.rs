//! Keys that must be there.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds files without a key that the framework insists on.
    ///
    /// ## Why
    ///
    /// The framework stops at start.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="base_model: Qwen/Qwen3-8B"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// num_epochs: 3
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Add the key. Where the launch command gives it (`axolotl train sft.yaml --learning-rate …`),
    /// silence the rule with `# llmlint: ignore[missing-key]`.
    ///
    /// ```diff title="sft.yaml"
    ///  num_epochs: 3
    /// +learning_rate: 2.0e-5
    /// ```
    MissingKey, "missing-key", Warning, "a key that the framework insists on is not there"
}

impl MissingKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        for mistake in file.mistakes {
            let MistakeKind::MissingKey { key } = &mistake.kind else { continue };
            let place = mistake.dotted();
            let message = if place.is_empty() {
                format!("`{key}` is missing")
            } else {
                format!("`{place}` lacks `{key}`")
            };
            // The whole mapping is too much to underline: its key, or the file's first line.
            let span = if place.is_empty() {
                file.sources.first().map_or(mistake.key_span, |source| {
                    source.line_span(source.line_index(mistake.value_span.start))
                })
            } else {
                mistake.key_span
            };
            findings.push(
                Finding::new(Self::NAME, Severity::Warning, Location::primary(span), message)
                    .note(format!("{} has no default for it and stops.", framework.name()))
                    .help(format!("add `{key}`")),
            );
        }
    }
}
