//! Runs that have a budget and no estimate.

use super::{Checked, drivers};
use crate::check::Verdict;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::Kind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Says what is missing when a run has a budget and its memory cannot be worked out.
    ///
    /// ## Why
    ///
    /// Silence would look like "it fits".
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="our-lab/base-13b"
    /// base_model: our-lab/base-13b
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// adapter: lora
    /// lora_r: 16
    /// lora_target_linear: true
    /// gradient_checkpointing: true
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml --gpu H100-80GB --gpus 8
    /// ```
    ///
    /// ## The fix
    ///
    /// Declare what the notes name: the number of GPUs with `--gpus`, a model's shape by its
    /// `config.json` or by its dimensions.
    ///
    /// ```toml title="llmlint.toml"
    /// [models."our-lab/base-13b"]
    /// model_type = "llama"
    /// hidden_size = 5120
    /// intermediate_size = 13824
    /// num_hidden_layers = 40
    /// num_attention_heads = 40
    /// vocab_size = 32000
    /// max_position_embeddings = 4096
    /// ```
    EstimateUnknown, "estimate-unknown", Note, "whether the run fits is not known"
}

impl EstimateUnknown {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        if file.kind != Kind::Run
            || file.budget.is_none()
            || file.estimate.is_some()
            // `over-budget` speaks of the floor.
            || file.verdict != Verdict::Unknown
            || file.unknown.is_empty()
        {
            return;
        }
        let missing: Vec<&str> = file.unknown.iter().map(|unknown| unknown.what.as_str()).collect();
        let location = file.unknown.iter().find_map(|unknown| unknown.location);
        let mut finding = Finding::new(
            Self::NAME,
            Severity::Note,
            location.unwrap_or_default(),
            format!("whether this run fits is not known: {}", missing.join(", ")),
        );
        for unknown in file.unknown {
            finding = finding.note(format!("{}: {}", unknown.what, unknown.why));
        }
        if let Some(floor) = file.floor {
            finding =
                finding.note(format!("at least {} is needed: {}", floor.total(), drivers::floor(floor)));
        }
        let labels = file.unknown.iter().filter_map(|unknown| Some((unknown.location?, &unknown.what)));
        let mut seen: Vec<Location> = Vec::new();
        for (place, what) in labels {
            if Some(place) == location {
                if finding.primary.text.is_empty() {
                    finding = finding.at(what.clone());
                }
            } else if !seen.contains(&place) {
                seen.push(place);
                finding = finding.label(place, what.clone());
            }
        }
        findings.push(finding);
    }
}
