//! Values of the right type that the key does not take.

use super::Checked;
use super::yaml_surprising_bool::YamlSurprisingBool;
use crate::declare_rule;
use crate::finding::{Finding, Safety, Severity};
use crate::framework::schema::{Mistake, MistakeKind};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds values outside the list or the range that a key takes.
    ///
    /// ## Why
    ///
    /// The framework stops at start, or takes its default without saying so.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="adamw_torch_fusd"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// optimizer: adamw_torch_fusd
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Choose one of the values that the message lists.
    ///
    /// ```diff title="sft.yaml"
    /// -optimizer: adamw_torch_fusd
    /// +optimizer: adamw_torch_fused
    /// ```
    InvalidValue, "invalid-value", Error, "the key does not take this value"
}

/// More options than this are not listed in a message.
const LISTED: usize = 12;

impl InvalidValue {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        let severity = if framework.checks_types() { Severity::Error } else { Severity::Warning };
        for mistake in file.mistakes {
            let key = mistake.dotted();
            let span = if mistake.value_span.is_empty() { mistake.key_span } else { mistake.value_span };
            let new = |message: String| Finding::new(Self::NAME, severity, Location::primary(span), message);
            let finding = match &mistake.kind {
                // The word is right; that it is not read as one is another rule's finding.
                MistakeKind::NotInEnum { options, .. } if surprising(file, mistake, options) => continue,
                MistakeKind::NotInEnum { options, near } => {
                    let mut finding = new(format!("`{key}` does not take this value"));
                    if let Some(near) = near {
                        finding = finding.help(format!("did you mean `{near}`?")).fix(
                            Safety::Unsafe,
                            format!("Write `{near}`"),
                            span,
                            super::as_written(file, span, near),
                        );
                    }
                    let quoted: Vec<String> = options.iter().take(LISTED).map(quoted).collect();
                    let words: Vec<&str> = quoted.iter().map(String::as_str).collect();
                    let more = options.len().saturating_sub(LISTED);
                    let list = if more > 0 {
                        format!("{} and {more} more", words.join(", "))
                    } else {
                        super::one_of(&words)
                    };
                    finding.note(format!("{} takes {list}.", framework.name()))
                }
                MistakeKind::OutOfRange { limit } => new(format!("`{key}` must be {limit}")),
                MistakeKind::Invalid { why } => new(format!("`{key}` {why}")),
                _ => continue,
            };
            findings.push(finding);
        }
    }
}

/// The word is among the options, only the loader makes a boolean of it.
fn surprising(file: &Checked<'_>, mistake: &Mistake, options: &[String]) -> bool {
    YamlSurprisingBool::speaks_of(file, mistake)
        .is_some_and(|word| options.iter().any(|option| option.eq_ignore_ascii_case(word)))
}

/// Values in backquotes; the names of types (`true or false`, `an integer`) as words.
fn quoted(option: &String) -> String {
    if option.contains(' ') { option.clone() } else { format!("`{option}`") }
}
