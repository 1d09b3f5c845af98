//! Models that are found nowhere.

use super::{Checked, one_of};
use crate::declare_rule;
use crate::document::is_placeholder_text;
use crate::finding::{Finding, Severity};
use crate::run::ModelRef;

declare_rule! {
    /// ## What it does
    ///
    /// Reports a model name that is not declared in `llmlint.toml`, has no `config.json` in a local
    /// directory or in the Hugging Face cache, and is not in the catalogue.
    ///
    /// ## Why
    ///
    /// Without the model's shape there is no estimate. Names are not guessed: a wrong model would be
    /// a wrong estimate. A public model's full name under another owner, or at the end of a local
    /// path, is taken for that model, and `explain` lists it as an assumption. A name that is nearly
    /// one in the catalogue may be misspelt.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="meta-llama/Llama-3.1-8B-Instrct"
    /// base_model: meta-llama/Llama-3.1-8B-Instrct
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
    /// Correct the name:
    ///
    /// ```diff title="sft.yaml"
    /// -base_model: meta-llama/Llama-3.1-8B-Instrct
    /// +base_model: meta-llama/Llama-3.1-8B-Instruct
    /// ```
    ///
    /// A model of your own is declared in `llmlint.toml`:
    ///
    /// ```toml
    /// [models."my-org/my-model"]
    /// config = "models/my-model/config.json"   # or the fields themselves: model_type, hidden_size, …
    /// ```
    ///
    /// Where only its size is known, that gives a floor: weights, gradients and optimizer states.
    ///
    /// ```toml
    /// [models."my-org/my-model"]
    /// parameters = 5.37e9
    /// ```
    UnknownModel, "unknown-model", Note, "the model's shape is found nowhere, so there is no estimate"
}

impl UnknownModel {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(Err(missing)), Some(run)) = (file.model, file.run) else { return };
        let Some(location) = run.model.origin.location() else { return };
        // `interpolation-unresolved` says it.
        if let ModelRef::Id(id) | ModelRef::IdWith(id, _) = &run.model.value
            && is_placeholder_text(id)
        {
            return;
        }
        // Only a name that is nearly a known one is likely to be a mistake.
        let severity = if missing.near.is_empty() { Severity::Note } else { Severity::Warning };
        let mut finding =
            Finding::new(Self::NAME, severity, location, "the shape of this model is not known")
                .note(missing.why.clone());
        if !missing.near.is_empty() {
            let near: Vec<&str> = missing.near.iter().map(String::as_str).collect();
            finding = finding.help(format!("did you mean {}?", one_of(&near)));
        }
        findings.push(finding);
    }
}
