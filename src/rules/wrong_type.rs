//! Values of a type that the framework does not take.

use super::Checked;
use super::yaml_surprising_bool::YamlSurprisingBool;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds values whose type is not one that the key takes.
    ///
    /// ## Why
    ///
    /// The framework stops with a traceback at start, or, where it does not check, much later.
    /// Text that the framework turns into a number by itself is not reported.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="two"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: two
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write a value of the type that the message names.
    ///
    /// ```diff title="sft.yaml"
    /// -micro_batch_size: two
    /// +micro_batch_size: 2
    /// ```
    WrongType, "wrong-type", Error, "the value has a type that the key does not take"
}

impl WrongType {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        let severity = if framework.checks_types() { Severity::Error } else { Severity::Warning };
        for mistake in file.mistakes {
            let MistakeKind::WrongType { expected, found } = &mistake.kind else { continue };
            if YamlSurprisingBool::speaks_of(file, mistake).is_some() {
                continue;
            }
            let mut wanted: Vec<&str> = expected.iter().copied().filter(|name| *name != "null").collect();
            if wanted.is_empty() {
                wanted.push("null");
            }
            let span = if mistake.value_span.is_empty() { mistake.key_span } else { mistake.value_span };
            findings.push(
                Finding::new(
                    Self::NAME,
                    severity,
                    Location::primary(span),
                    format!("`{}` must be {}", mistake.dotted(), super::one_of(&wanted)),
                )
                .at(format!("this is {found}")),
            );
        }
    }
}
