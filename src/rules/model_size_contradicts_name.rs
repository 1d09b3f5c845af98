//! Files whose name says one model size and whose content another.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::memory::parameters::Inventory;
use crate::run::ModelRef;

declare_rule! {
    /// ## What it does
    ///
    /// Reports a file named after a model size (`6-7B.yml`, `llama-7b.yaml`) that spells out an
    /// architecture more than 30 % off that size.
    ///
    /// ## Why
    ///
    /// The name is what people go by when they choose a config and size the hardware. Most often a
    /// dimension was copied from another size and not changed.
    ///
    /// ## Example
    ///
    /// ```yaml title="7B.yaml" mark=">model<:"
    /// llmlint: 1
    /// model:
    ///   architecture: llama
    ///   num_hidden_layers: 32
    ///   hidden_size: 5120
    ///   intermediate_size: 13824
    ///   num_attention_heads: 40
    ///   vocab_size: 32000
    /// training: { sequence_length: 4096, micro_batch_size: 1 }
    /// ```
    ///
    /// ```console
    /// $ llmlint 7B.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Correct the dimensions, or rename the file.
    ///
    /// ```diff title="7B.yaml"
    /// -  hidden_size: 5120
    /// -  intermediate_size: 13824
    /// -  num_attention_heads: 40
    /// +  hidden_size: 4096
    /// +  intermediate_size: 11008
    /// +  num_attention_heads: 32
    /// ```
    ModelSizeContradictsName, "model-size-contradicts-name", Warning,
    "the architecture spelled out is not of the size that the file's name says"
}

/// How far a size may be off its name: names round, and some count without embeddings and head
/// (GPT-NeoX 1.0 `configs/19M.yml`, which is Pythia-70M).
const TOLERANCE: f64 = 0.30;

impl ModelSizeContradictsName {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(model), Some(source)) = (file.run, file.architecture, file.sources.first())
        else {
            return;
        };
        // A model named by its id has the size it has; only spelled-out dimensions can be wrong.
        if !matches!(run.model.value, ModelRef::Config(_)) {
            return;
        }
        let stem = source.path.rsplit('/').next().unwrap_or_default();
        let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
        let (Some(said), Ok(inventory)) = (size(stem), Inventory::of(model)) else { return };
        let near = |count: u64| (count as f64 / said - 1.0).abs() <= TOLERANCE;
        let total = inventory.total();
        let without = total.saturating_sub(inventory.all_embeddings() + inventory.head());
        if near(total) || near(without) || (without as f64..=total as f64).contains(&said) {
            return;
        }
        let location = run.model.origin.location().unwrap_or_default();
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Warning,
                location,
                format!(
                    "the file is named for {:.2} billion parameters and describes {:.2} billion",
                    said / 1e9,
                    total as f64 / 1e9
                ),
            )
            .help("check the number of layers, the hidden size and the vocabulary, or rename the file"),
        );
    }
}

/// The one size in a name: `6-7B`, `1.3b`, `125M`; `None` when there is none or several.
fn size(stem: &str) -> Option<f64> {
    let lower = stem.to_ascii_lowercase();
    // GPT-NeoX writes the decimal point of `6.7B` as a dash or an underscore.
    let bytes = lower.as_bytes();
    let mut found = Vec::new();
    for (index, unit) in lower.char_indices().filter(|(_, c)| matches!(c, 'b' | 'm')) {
        let ends = bytes.get(index + 1).is_none_or(|next| !next.is_ascii_alphanumeric());
        let number_start =
            lower[..index].rfind(|c: char| !(c.is_ascii_digit() || c == '.')).map_or(0, |at| at + 1);
        let Some(mut number) = lower.get(number_start..index).filter(|text| !text.is_empty()) else {
            continue;
        };
        // A letter before the digits makes it something else: `a22b`, `v3b`, `8x7b`.
        let before = number_start.checked_sub(1).and_then(|at| bytes.get(at)).copied();
        if !ends || before.is_some_and(|byte| byte.is_ascii_alphabetic()) {
            continue;
        }
        let joined;
        if before.is_some_and(|byte| matches!(byte, b'-' | b'_')) && number.len() == 1 && number_start >= 2 {
            let head_start =
                lower[..number_start - 1].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
            let head = &lower[head_start..number_start - 1];
            let alone = head_start == 0;
            if alone && !head.is_empty() {
                joined = format!("{head}.{number}");
                number = &joined;
            } else if !head.is_empty() && !bytes.get(head_start - 1).is_some_and(u8::is_ascii_alphabetic) {
                // `llama-2-7b` may be either; the 2 of `llama2_7b` is a version.
                return None;
            }
        }
        let scale = if unit == 'b' { 1e9 } else { 1e6 };
        found.push(number.parse::<f64>().ok()? * scale);
    }
    match found.as_slice() {
        [one] if *one > 0.0 => Some(*one),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_in_names() {
        for (name, expected) in [
            ("7B", Some(7e9)),
            ("llama-7b", Some(7e9)),
            ("6-7B", Some(6.7e9)),
            ("1-3B", Some(1.3e9)),
            ("2-7B", Some(2.7e9)),
            ("pythia-1.4b", Some(1.4e9)),
            ("125M", Some(125e6)),
            ("llama2_7b_lora", Some(7e9)),
            ("qwen3-30b-a3b", Some(30e9)),
            ("mixtral-8x7b", None),
            ("3b-vs-7b", None),
            ("llama-2-7b", None),
            ("train", None),
            ("bert-base", None),
            ("step-100b2", None),
        ] {
            assert_eq!(size(name), expected, "{name}");
        }
    }
}
