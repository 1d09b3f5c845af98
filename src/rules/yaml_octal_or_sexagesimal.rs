//! Whole numbers that YAML 1.1 reads in another base.

use super::{Checked, numeric};
use crate::declare_rule;
use crate::document::Style;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds numbers with a leading zero (octal) or with colons (base 60) under keys that take a
    /// number.
    ///
    /// ## Why
    ///
    /// PyYAML reads `010` as 8 and `1:30` as 90.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="010"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 010
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write the number in decimal.
    ///
    /// ```diff title="sft.yaml"
    /// -micro_batch_size: 010
    /// +micro_batch_size: 10
    /// ```
    YamlOctalOrSexagesimal, "yaml-octal-or-sexagesimal", Warning, "a number that YAML 1.1 reads in another base"
}

impl YamlOctalOrSexagesimal {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(root) = file.root else { return };
        if !root.dialect().is_yaml_1_1() {
            return;
        }
        numeric::each_scalar(root, &mut |path, value| {
            let Some(text) = value.text() else { return };
            let (Some(read), Some(Style::Plain)) = (value.as_int(), value.style()) else { return };
            let digits = text.trim_start_matches(['+', '-']);
            let octal =
                digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
            let sexagesimal = digits.contains(':')
                && digits.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'_'));
            if !(octal || sexagesimal) || !numeric::is_number_key(file, path) {
                return;
            }
            let base = if octal { "octal" } else { "base 60" };
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Warning,
                    Location::primary(value.span()),
                    format!("`{text}` is {read} here"),
                )
                .at(format!("YAML 1.1 reads it as {base}"))
                .help(format!("write `{read}`, or the decimal number that is meant")),
            );
        });
    }
}
