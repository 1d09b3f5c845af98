//! Numbers that PyYAML reads as text.

use super::{Checked, numeric};
use crate::declare_rule;
use crate::document::{Dialect, Scalar, Style};
use crate::finding::{Finding, Safety, Severity};
use crate::framework::TextNumbers;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds numbers such as `1e-5` that PyYAML reads as text, where the framework hands the text
    /// on.
    ///
    /// ## Why
    ///
    /// PyYAML follows YAML 1.1 with its own rule: a float needs a dot, and its exponent a sign.
    /// `1e-5` is the text "1e-5". Frameworks that cast (Axolotl, TRL) are unharmed and nothing is
    /// said about their files. Others give the text to the optimizer, which stops with a
    /// `TypeError` after the model was loaded, or compares it as text.
    ///
    /// ## Example
    ///
    /// ```yaml title="160M.yml" mark="6e-4"
    /// pipe_parallel_size: 1
    /// num_layers: 12
    /// hidden_size: 768
    /// num_attention_heads: 12
    /// seq_length: 2048
    /// max_position_embeddings: 2048
    /// train_micro_batch_size_per_gpu: 4
    /// optimizer: { type: Adam, params: { lr: 6e-4 } }
    /// ```
    ///
    /// ```console
    /// $ llmlint 160M.yml
    /// ```
    ///
    /// ## The fix
    ///
    /// Write the dot and the sign.
    ///
    /// ```diff title="160M.yml"
    /// -optimizer: { type: Adam, params: { lr: 6e-4 } }
    /// +optimizer: { type: Adam, params: { lr: 6.0e-4 } }
    /// ```
    YamlFloatAsString, "yaml-float-as-string", Error, "a number that its loader reads as text"
}

impl YamlFloatAsString {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(framework), Some(root)) = (file.framework, file.root) else { return };
        if root.dialect() != Dialect::PyYaml || framework.text_numbers() == TextNumbers::Cast {
            return;
        }
        numeric::each_scalar(root, &mut |path, value| {
            let Some(text) = value.text() else { return };
            let is_text =
                value.style() == Some(Style::Plain) && matches!(value.scalar(), Some(Scalar::Str(_)));
            if !is_text || !numeric::is_number_key(file, path) {
                return;
            }
            let Some(number) = text.parse::<f64>().ok().filter(|x| x.is_finite()) else { return };
            let mut finding = Finding::new(
                Self::NAME,
                Severity::Error,
                Location::primary(value.span()),
                format!("`{text}` is text to PyYAML, not the number {number}"),
            )
            .at(format!("{} hands the text on", framework.name()));
            if let Some(fixed) = with_dot_and_sign(text) {
                finding = finding.help(format!("write `{fixed}`")).fix(
                    Safety::Safe,
                    "Write the number so that PyYAML reads it as one",
                    value.span(),
                    fixed,
                );
            }
            findings.push(finding);
        });
    }
}

/// `1e-5` as `1.0e-5`, `2E5` as `2.0E+5`: what PyYAML's float pattern accepts.
fn with_dot_and_sign(text: &str) -> Option<String> {
    let at = text.find(['e', 'E'])?;
    let (mantissa, exponent) = (&text[..at], &text[at + 1..]);
    let dot = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    Some(format!("{mantissa}{dot}{}{sign}{exponent}", &text[at..=at]))
}
