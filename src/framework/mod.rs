//! Who reads a file: how each framework is recognised, and how its keys become a
//! [`TrainingRun`]. One file a framework; [`ALL`] is the registry, in order of recognition.

pub mod accelerate;
pub mod autotrain;
pub mod axolotl;
pub mod baseline;
pub mod deepspeed;
pub mod fsdp;
pub mod gpt_neox;
pub mod litgpt;
pub mod llama_factory;
pub mod llm_foundry;
pub mod lowering;
pub mod names;
pub mod native;
pub mod open_instruct;
pub mod refusal;
pub mod rollout;
pub mod schema;
pub mod torchtitan;
pub mod torchtune;
pub mod training_arguments;
pub mod trl;
pub mod unsupported;

use crate::change::{Change, Step};
use crate::document::{Dialect, Syntax, Value};
use crate::run::TrainingRun;
use crate::settings::BudgetTable;
use crate::source::Span;

pub use lowering::{Lowering, ReferenceError};

/// What a recognised file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Describes one training run.
    Run,
    /// A file that another run refers to, or an overlay: nothing by itself.
    Fragment,
    /// The framework's, but no training (inference, export, evaluation): schema-checked only.
    Other,
}

/// What a framework does with a key it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownKeys {
    /// Drops it without a word: the setting silently does nothing.
    Dropped,
    /// Refuses to start.
    Refused,
    /// Any key may be meant for something else; never report one.
    Allowed,
    /// Scripts over it have keys of their own, so only one that looks like a key it has is
    /// reported.
    Lookalikes,
}

/// What becomes of a number that the loader reads as text (`1e-5` under PyYAML).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextNumbers {
    /// Cast by the framework (pydantic, argparse): harmless.
    Cast,
    /// Handed on as text: the run dies or misbehaves.
    Fatal,
}

/// A framework.
pub trait Framework: Sync {
    /// The name users read and write: `axolotl`.
    fn name(&self) -> &'static str;

    /// The name and newest version whose keys and defaults are known: `axolotl 0.16`.
    fn release(&self) -> &'static str;

    /// The syntaxes it reads.
    fn syntaxes(&self) -> &'static [Syntax];

    /// How its loader types scalars.
    fn dialect(&self, syntax: Syntax) -> Dialect;

    /// Looks at keys and value types, never at the path.
    fn recognise(&self, root: Value<'_>) -> Option<Kind>;

    /// False: the file is named as this framework's, and nothing else is said about it.
    fn supported(&self) -> bool {
        true
    }

    /// The JSON Schema (2020-12) of its files, one a kind of file.
    fn schema(&self, kind: Kind) -> Option<&'static str> {
        let _ = kind;
        None
    }

    /// What it does with unknown keys.
    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Allowed
    }

    /// True when the file itself gives a meaning to a key that the schema does not have: a
    /// variable that other values interpolate, a config class of the user's own.
    fn explains_key(&self, root: Value<'_>, key: &str) -> bool {
        let _ = (root, key);
        false
    }

    /// What it does with numbers that are text to its loader.
    fn text_numbers(&self) -> TextNumbers {
        TextNumbers::Cast
    }

    /// True when it refuses a value of the wrong type at start; false when the value is handed on
    /// as it is and fails later, or never.
    fn checks_types(&self) -> bool {
        true
    }

    /// A budget that the file itself declares, and where (the native format's `budget:` table).
    fn budget(&self, root: Value<'_>) -> Option<(BudgetTable, Span)> {
        let _ = root;
        None
    }

    /// What carries out a change in this framework's own words, for `run` as it is before the
    /// change. `None`: the change cannot be made in this framework.
    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let _ = (change, run, root);
        None
    }

    /// What it checks across keys before it starts; `version` is the declared one.
    fn refusals(&self, root: Value<'_>, version: Option<&str>) -> Vec<refusal::Refusal> {
        let _ = (root, version);
        Vec::new()
    }

    /// Turns a [`Kind::Run`] into the neutral description. `None`: not supported for this file,
    /// with the reason in [`Lowering::unknown`].
    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun>;
}

/// Every framework, in order of recognition: the first that recognises a file has it.
///
/// The order is part of the signatures. What names itself comes first (`llmlint`, a
/// `_component_` of torchtune, verl's `actor_rollout_ref`); what is told by a section with typed
/// keys of its own next; what shares its keys with others last, each behind the one it would be
/// mistaken for: OLMo has LLM Foundry's batch keys without a train loader, Megatron-Bridge has
/// LitGPT's `train.global_batch_size` without a checkpoint, Levanter has NeMo's `trainer`, and
/// flat files with a model's name go by the company it keeps. Accelerate and FSDP files are
/// fragments that would pass for runs, and the Hugging Face family goes from the narrowest
/// (LLaMA-Factory, open-instruct) to the widest (TRL: a model beside any two of
/// `TrainingArguments`).
pub const ALL: &[&dyn Framework] = &[
    &native::Native,
    &torchtune::Torchtune,
    &unsupported::VERL,
    &unsupported::EASYR1,
    &unsupported::H2O,
    &unsupported::MEGATRON_LM,
    &unsupported::NEMO_AUTOMODEL,
    &unsupported::NEMO_RL,
    &unsupported::NEMO,
    &unsupported::NANOTRON,
    &unsupported::PICOTRON,
    &torchtitan::Torchtitan,
    &unsupported::LINGUA,
    &llm_foundry::LlmFoundry,
    &unsupported::OLMO,
    &gpt_neox::GptNeox,
    &litgpt::Litgpt,
    &unsupported::MEGATRON_BRIDGE,
    &unsupported::LEVANTER,
    &unsupported::MAXTEXT,
    &unsupported::OPEN_LM,
    &unsupported::PRIME_RL,
    &unsupported::UNSLOTH,
    &accelerate::Accelerate,
    &deepspeed::Deepspeed,
    &fsdp::FsdpOptionsFile,
    &llama_factory::LlamaFactoryV1,
    &autotrain::Autotrain,
    &axolotl::Axolotl,
    &llama_factory::LlamaFactory,
    &open_instruct::OpenInstruct,
    &trl::TRL,
    &trl::SCRIPTS,
    &unsupported::MS_SWIFT,
];

/// Finds out whose file this is.
pub fn recognise(document: &crate::document::Document) -> Option<(&'static dyn Framework, Kind)> {
    ALL.iter().filter(|f| f.syntaxes().contains(&document.syntax)).find_map(|framework| {
        let root = document.root(framework.dialect(document.syntax))?;
        root.is_mapping().then(|| framework.recognise(root)).flatten().map(|kind| (*framework, kind))
    })
}

/// A framework by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Framework> {
    ALL.iter().copied().find(|f| f.name() == name)
}
