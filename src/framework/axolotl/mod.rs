//! Axolotl's configs: one flat YAML file, read by `yaml.safe_load` and checked by pydantic, which
//! drops unknown keys without a word. Facts: axolotl 0.18.0 to 0.21.0,
//! `src/axolotl/utils/schemas/`, `utils/config/__init__.py`, `loaders/`.

mod adapter;
mod changes;
mod lower;
mod rollout;
mod sharding;
mod validators;

use super::refusal::Refusal;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, Step};
use crate::document::{Dialect, Syntax, Value};
use crate::run::TrainingRun;

/// Axolotl.
pub struct Axolotl;

/// The release whose keys and defaults are known.
pub(crate) const RELEASE: &str = "axolotl 0.21.0";

/// Two of these beside `base_model` make a file Axolotl's.
const MARKS: [&str; 15] = [
    "datasets",
    "pretraining_dataset",
    "micro_batch_size",
    "sequence_len",
    "adapter",
    "num_epochs",
    "lora_r",
    "dataset_prepared_path",
    "val_set_size",
    "sample_packing",
    "pad_to_sequence_len",
    "special_tokens",
    "rl",
    "evals_per_epoch",
    "saves_per_epoch",
];

impl Framework for Axolotl {
    fn name(&self) -> &'static str {
        "axolotl"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::PyYaml
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let marks = MARKS.iter().filter(|key| root.get(key).is_some()).count();
        // A template's `${BASE_MODEL}` is text too. Without a model, or with its key misspelt, a
        // file has to look very much like Axolotl's.
        let model = root.get("base_model").map(|v| v.text().is_some());
        let elsewhere =
            ["model_name_or_path", "model", "llm_backbone"].iter().any(|key| root.get(key).is_some());
        match model {
            Some(named) => (named && marks >= 2).then_some(Kind::Run),
            None => (marks >= 6 && !elsewhere).then_some(Kind::Run),
        }
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../../schemas/axolotl.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Dropped
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        changes::steps(change, run, root)
    }

    fn refusals(&self, root: Value<'_>, version: Option<&str>) -> Vec<Refusal> {
        validators::refusals(root, version)
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        lower::lower(cx)
    }
}
