//! Sequences longer than a model's positions.

use super::Checked;
use crate::catalog::Architecture;
use crate::declare_rule;
use crate::finding::{Finding, Severity};

declare_rule! {
    /// ## What it does
    ///
    /// Reports a sequence length above the model's `max_position_embeddings`, when nothing in the
    /// file or in the model's config scales its rotary positions.
    ///
    /// ## Why
    ///
    /// Learned positions (GPT-2, OPT, BERT) end there: the first longer sequence stops the run with
    /// an index error. Rotary models run, at positions that they were never trained on.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="4096"
    /// model_name_or_path: openai-community/gpt2
    /// output_dir: out
    /// learning_rate: 2.0e-5
    /// per_device_train_batch_size: 2
    /// max_length: 4096
    /// packing: true
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Shorten the sequences, or set the framework's RoPE scaling where the model has rotary positions.
    ///
    /// ```diff title="sft.yaml"
    /// -max_length: 4096
    /// +max_length: 1024
    /// ```
    SequenceExceedsPositions, "sequence-exceeds-positions", Warning,
    "sequences are longer than the model has positions for"
}

/// Keys by which files set positions or scale rotary embeddings, in any framework.
const SCALED: &[&str] =
    &["rope", "rotary", "max_position", "n_positions", "max_seq_len", "overrides_of_model"];

impl SequenceExceedsPositions {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(model)) = (file.run, file.architecture) else { return };
        let length = run.sequence_length.value;
        let positions = model.max_positions;
        if positions == 0 || length <= positions || model.alibi || scaled(model) {
            return;
        }
        let Some(location) = run.sequence_length.origin.location() else { return };
        // torchtitan and Megatron size positions by the sequence; a spelled-out model is the file's own.
        let from_elsewhere =
            !matches!(run.model.value, crate::run::ModelRef::Config(_) | crate::run::ModelRef::IdWith(..));
        let own_positions = matches!(
            run.model_code.value,
            crate::run::ModelCode::Torchtitan | crate::run::ModelCode::Megatron
        );
        let source = file.sources.first().map_or("", |source| source.text.as_str());
        if !from_elsewhere || own_positions || SCALED.iter().any(|key| source.contains(key)) {
            return;
        }
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Warning,
                location,
                format!("sequences of {length} tokens on a model with {positions} positions"),
            )
            .note("The model's `max_position_embeddings` is smaller, and neither its config nor this file scales RoPE.")
            .help(format!("use at most {positions}, or set the framework's RoPE scaling")),
        );
    }
}

/// The model's own config already stretches its positions.
fn scaled(model: &Architecture) -> bool {
    ["rope_scaling", "rope_parameters"].iter().any(|key| {
        model.config.get(*key).is_some_and(|scaling| {
            scaling.get("factor").is_some() || scaling.get("rope_type").is_some_and(|kind| kind != "default")
        })
    })
}
