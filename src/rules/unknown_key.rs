//! Keys that the framework does not have.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Safety, Severity};
use crate::framework::UnknownKeys;
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework does not know.
    ///
    /// ## Why
    ///
    /// Some frameworks refuse to start on an unknown key (an error here). Others drop it without
    /// a word (a warning here): the run starts, and the setting you believe in does nothing.
    /// Most unknown keys are slips of the pen, or another framework's name for the same thing.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="cutoff_len"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// cutoff_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// Axolotl drops the key and trains at its default of 512 tokens.
    ///
    /// ## The fix
    ///
    /// Write the name that the message suggests, or delete the line. A key that a plugin or a
    /// fork adds can be allowed with `# llmlint: ignore[unknown-key]`.
    ///
    /// ```diff title="sft.yaml"
    /// -cutoff_len: 4096
    /// +sequence_len: 4096
    /// ```
    UnknownKey, "unknown-key", Warning, "the framework has no such key"
}

impl UnknownKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        let severity = match framework.unknown_keys() {
            UnknownKeys::Allowed => return,
            UnknownKeys::Dropped | UnknownKeys::Lookalikes => Severity::Warning,
            UnknownKeys::Refused => Severity::Error,
        };
        let name = framework.name();
        for mistake in file.mistakes {
            let key = mistake.key();
            let location = Location::primary(mistake.key_span);
            let finding = match &mistake.kind {
                MistakeKind::UnknownKey { near, elsewhere, moved, dropped } => {
                    let lookalikes = framework.unknown_keys() == UnknownKeys::Lookalikes;
                    if lookalikes && near.is_empty() {
                        continue;
                    }
                    let severity = if *dropped { Severity::Warning } else { severity };
                    let mut finding = Finding::new(
                        Self::NAME,
                        severity,
                        location,
                        format!("unknown key `{}`", mistake.dotted()),
                    );
                    finding = finding.at(match severity {
                        Severity::Error => format!("{name} refuses to start on it"),
                        _ if lookalikes => format!("{name} has no such key"),
                        _ => format!("{name} ignores it without a word"),
                    });
                    match (near.as_slice(), elsewhere, moved) {
                        // Another framework's very name says more than one that looks alike.
                        (_, Some((whose, Some(own))), _) => {
                            finding = finding.help(format!(
                                "`{key}` is the name that {whose} uses; {name} calls it `{own}`"
                            ));
                        }
                        ([first, rest @ ..], ..) => {
                            let mut help = format!("did you mean `{first}`");
                            for other in rest {
                                help.push_str(&format!(" or `{other}`"));
                            }
                            finding = finding.help(help + "?");
                            if rest.is_empty() {
                                finding = finding.fix(
                                    Safety::Unsafe,
                                    format!("Rename `{key}` to `{first}`"),
                                    mistake.key_span,
                                    super::as_written(file, mistake.key_span, first),
                                );
                            }
                        }
                        (_, _, Some(path)) => {
                            finding = finding.help(format!("{name} reads it as `{path}`"));
                        }
                        (_, Some((whose, None)), _) => {
                            finding = finding
                                .help(format!("`{key}` is a key of {whose}; {name} has nothing like it"));
                        }
                        _ => {}
                    }
                    finding
                }
                MistakeKind::NotYet { since } => Finding::new(
                    Self::NAME,
                    severity,
                    location,
                    format!("`{}` does not exist in the declared version of {name}", mistake.dotted()),
                )
                .at(format!("added in {name} {since}")),
                _ => continue,
            };
            findings.push(finding);
        }
    }
}
