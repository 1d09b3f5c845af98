//! Words that YAML 1.1 reads as booleans, where the framework wants the word.

use super::{Checked, numeric};
use crate::declare_rule;
use crate::document::{Scalar, Style};
use crate::finding::{Finding, Safety, Severity};
use crate::framework::schema::Mistake;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds unquoted `no`, `yes`, `on` and `off` where the framework wants the word.
    ///
    /// ## Why
    ///
    /// PyYAML reads them as booleans. `save_strategy: no` is `False`, which the Hugging Face
    /// Trainer refuses ("False is not a valid SaveStrategy"); `mixed_precision: no` is `False`,
    /// which Accelerate takes for "not set".
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="save_strategy: >no<"
    /// model_name_or_path: Qwen/Qwen3-0.6B
    /// output_dir: out
    /// per_device_train_batch_size: 2
    /// learning_rate: 2.0e-5
    /// max_length: 2048
    /// save_strategy: no
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Quote the word.
    ///
    /// ```diff title="sft.yaml"
    /// -save_strategy: no
    /// +save_strategy: "no"
    /// ```
    YamlSurprisingBool, "yaml-surprising-bool", Error, "a word that YAML 1.1 reads as a boolean"
}

/// Keys whose values are words, "no" among them, and what an unquoted `no` does there:
/// `IntervalStrategy` and its like in transformers refuse a boolean; Accelerate's are only falsy.
const WORDS: [(&str, Severity); 8] = [
    ("save_strategy", Severity::Error),
    ("eval_strategy", Severity::Error),
    ("evaluation_strategy", Severity::Error),
    ("logging_strategy", Severity::Error),
    ("distributed_type", Severity::Warning),
    ("dynamo_backend", Severity::Warning),
    ("fsdp_backward_prefetch", Severity::Warning),
    ("mixed_precision", Severity::Note),
];

impl YamlSurprisingBool {
    /// Whether this rule speaks of `text` under `key`.
    fn concerns(key: &str, text: &str) -> bool {
        WORDS.iter().any(|(name, _)| *name == key)
            && matches!(text.to_ascii_lowercase().as_str(), "no" | "yes" | "on" | "off")
    }

    /// The word that a mistake of the schema stands on, where this rule speaks of it: one finding
    /// for one mistake.
    pub(super) fn speaks_of<'f>(file: &'f Checked<'_>, mistake: &Mistake) -> Option<&'f str> {
        let word = file.sources.first()?.slice(mistake.value_span);
        let loader = file.root.is_some_and(|root| root.dialect().is_yaml_1_1());
        (loader && Self::concerns(&mistake.key(), word)).then_some(word)
    }

    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(root) = file.root else { return };
        if !root.dialect().is_yaml_1_1() {
            return;
        }
        numeric::each_scalar(root, &mut |path, value| {
            let Some(text) = value.text() else { return };
            let key = path.rsplit('.').next().unwrap_or(path);
            let word = WORDS.iter().find(|(name, _)| *name == key);
            let surprising = value.style() == Some(Style::Plain)
                && matches!(value.scalar(), Some(Scalar::Bool(_)))
                && Self::concerns(key, text);
            if let (Some((_, severity)), true) = (word, surprising) {
                findings.push(
                    Finding::new(
                        Self::NAME,
                        *severity,
                        Location::primary(value.span()),
                        format!("`{text}` is a boolean here, not the word"),
                    )
                    .at("YAML 1.1 reads it as true or false")
                    .help(format!("write `\"{text}\"`"))
                    .fix(
                        Safety::Safe,
                        "Quote the word",
                        value.span(),
                        format!("\"{text}\""),
                    ),
                );
            }
        });
    }
}
