//! Placeholders where a memory setting should be.

use super::Checked;
use crate::declare_rule;
use crate::document::is_placeholder_text;
use crate::finding::{Finding, Severity};
use crate::framework::Kind;

declare_rule! {
    /// ## What it does
    ///
    /// Finds interpolations and template placeholders that hide a setting the memory estimate
    /// needs. Others are left alone.
    ///
    /// ## Why
    ///
    /// It need not be: the value comes from the environment or from a template when the run
    /// starts. But there is no estimate and no verdict for the run as it stands in the file.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="${BASE_MODEL}"
    /// base_model: ${BASE_MODEL}
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
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
    /// Nothing, or check the file that the template makes.
    InterpolationUnresolved, "interpolation-unresolved", Note, "a placeholder hides a memory setting"
}

impl InterpolationUnresolved {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        if file.kind != Kind::Run {
            return;
        }
        for unknown in file.unknown {
            let Some(location) = unknown.location else { continue };
            let Some(source) = file.sources.get(usize::from(location.source.0)) else { continue };
            let text = source.slice(location.span).trim_matches(['"', '\'']);
            if is_placeholder_text(text) {
                let message = format!("no estimate: the {} is not in the file", unknown.what);
                let finding = Finding::new(Self::NAME, Severity::Note, location, message)
                    .at("known only when the run starts");
                findings.push(if unknown.what == "model" {
                    finding.help(format!(
                        "declare what it stands for in llmlint.toml: `[models.\"{text}\"]` with `config = \"…/config.json\"`"
                    ))
                } else {
                    finding
                });
            }
        }
    }
}
