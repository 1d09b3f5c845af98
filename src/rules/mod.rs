//! The rules: one file each, and this list. A rule reads any stage and writes findings; levels,
//! suppressions, baselines and the exit code come after it, in one place.

pub mod ambiguous_gpu;
pub mod axolotl_refuses;
pub mod batch_arithmetic;
pub mod best_model_without_evaluation;
pub mod conflicting_keys;
pub mod deepspeed_conflicts_with_trainer;
pub mod deprecated_key;
mod drivers;
pub mod dtype_unsupported_on_gpu;
pub mod duplicate_key;
pub mod estimate_unknown;
pub mod experts_not_divisible;
pub mod flash_attention_unsupported_on_gpu;
pub mod fp8_unsupported_on_gpu;
pub mod generations_not_divisible;
pub mod gpt_neox_refuses;
pub mod heads_not_divisible_by_tensor_parallel;
pub mod hidden_not_divisible_by_heads;
pub mod host_over_budget;
pub mod inline_budget;
pub mod input_limit;
pub mod interpolation_unresolved;
pub mod invalid_value;
pub mod json_dialect;
pub mod key_without_effect;
pub mod layers_not_divisible_by_pipeline;
pub mod litgpt_refuses;
pub mod llm_foundry_refuses;
pub mod missing_companion;
pub mod missing_key;
pub mod model_size_contradicts_name;
pub mod multiple_documents;
pub mod not_utf8;
mod numeric;
pub mod offload_needs_zero_stage;
pub mod over_budget;
pub mod reference_not_found;
pub mod reference_outside_repository;
mod refusals;
pub mod removed_key;
pub mod sequence_exceeds_positions;
pub mod sequence_not_divisible_by_context_parallel;
pub mod stage3_keys_without_stage3;
pub mod tight_fit;
pub mod torchtitan_refuses;
pub mod torchtune_refuses;
pub mod unknown_gpu;
pub mod unknown_key;
pub mod unknown_model;
pub mod unused_suppression;
pub mod world_size_mismatch;
pub mod wrong_type;
pub mod yaml_float_as_string;
pub mod yaml_octal_or_sexagesimal;
pub mod yaml_parse_error;
pub mod yaml_surprising_bool;

use std::sync::Arc;

use crate::catalog::Architecture;
use crate::catalog::gpus::GpuError;
use crate::catalog::models::{NotFound, Resolved};
use crate::check::Verdict;
use crate::document::{Document, Value};
use crate::finding::{Finding, Safety, Severity};
use crate::framework::schema::Mistake;
use crate::framework::{Framework, Kind};
use crate::memory::{Estimate, Floor};
use crate::run::{Origin, TrainingRun, Unknown};
use crate::settings::{Budget, BudgetError, Settings};
use crate::source::{Location, Source};

/// Everything known about one file when its rules run.
pub struct Checked<'a> {
    /// The file, then the files it refers to.
    pub sources: &'a [Arc<Source>],
    /// Its tree.
    pub document: &'a Document,
    /// The tree as its framework reads it; `None` when it does not parse.
    pub root: Option<Value<'a>>,
    /// Whose file it is; `None` only for a file given by name that nobody recognises.
    pub framework: Option<&'static dyn Framework>,
    /// What kind of file.
    pub kind: Kind,
    /// What the framework's schema says is wrong, by position.
    pub mistakes: &'a [Mistake],
    /// The run it describes.
    pub run: Option<&'a TrainingRun>,
    /// Its model's shape.
    pub architecture: Option<&'a Architecture>,
    /// The model it names.
    pub model: Option<&'a Result<Resolved, NotFound>>,
    /// What it needs.
    pub estimate: Option<&'a Estimate>,
    /// What it needs at the least, where there is no estimate.
    pub floor: Option<&'a Floor>,
    /// Why there is no estimate.
    pub unknown: &'a [Unknown],
    /// What it may use.
    pub budget: Option<&'a Budget>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// The user's settings for this file.
    pub settings: &'a Settings,
    /// What the run would need if the file had this text instead.
    pub again: &'a dyn Fn(String) -> Option<Estimate>,
}

/// What a rule is called and what it says about itself.
#[derive(Debug)]
pub struct RuleInfo {
    /// Kebab-case, never reused.
    pub name: &'static str,
    /// The default severity; rules may say less by framework.
    pub severity: Severity,
    /// One line for tables.
    pub summary: &'static str,
    /// The doc comment: what it does, why, an example, the fix. The fences of the example say also
    /// what the tests need to run it; [`RuleInfo::markdown`] is for people.
    pub page: &'static str,
}

impl RuleInfo {
    /// The page in Markdown. A file of the example stands under its name.
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for line in self.page.lines() {
            // A doc comment keeps the space after its slashes.
            let line = line.strip_prefix(' ').unwrap_or(line);
            let fence = line.strip_prefix("```").and_then(|info| info.split_once(" title=\""));
            match fence {
                Some(("diff", _)) => text.push_str("```diff"),
                Some((language, rest)) => {
                    let name = rest.split('"').next().unwrap_or_default();
                    text.push_str(&format!("`{name}`:\n\n```{language}"));
                }
                None => text.push_str(line),
            }
            text.push('\n');
        }
        text
    }
}

/// A rule.
pub trait Rule: Sync {
    /// What it is.
    fn info(&self) -> &'static RuleInfo;

    /// Looks at one file.
    fn check(&self, file: &Checked<'_>, findings: &mut Vec<Finding>);
}

/// Declares a rule: the doc comment is its page.
///
/// ```ignore
/// declare_rule! {
///     /// ## What it does
///     /// …
///     OverBudget, "over-budget", Error, "the run needs more GPU memory than it may use"
/// }
/// impl OverBudget { fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) { … } }
/// ```
#[macro_export]
#[doc(hidden)]
macro_rules! declare_rule {
    ($(#[doc = $line:literal])+ $rule:ident, $name:literal, $severity:ident, $summary:literal) => {
        $(#[doc = $line])+
        #[allow(rustdoc::invalid_codeblock_attributes, reason = "the example's fences speak to its test")]
        pub struct $rule;

        impl $rule {
            /// The rule's name.
            pub const NAME: &'static str = $name;
        }

        impl $crate::rules::Rule for $rule {
            fn info(&self) -> &'static $crate::rules::RuleInfo {
                static INFO: $crate::rules::RuleInfo = $crate::rules::RuleInfo {
                    name: $name,
                    severity: $crate::finding::Severity::$severity,
                    summary: $summary,
                    page: concat!($($line, "\n"),+),
                };
                &INFO
            }

            fn check(&self, file: &$crate::rules::Checked<'_>, findings: &mut Vec<$crate::finding::Finding>) {
                $rule::run(file, findings);
            }
        }
    };
}

/// Rules that compare a run with its budget, and look for changes that fit.
pub const ABOUT_MEMORY: [&str; 4] = ["estimate-unknown", "host-over-budget", "over-budget", "tight-fit"];

/// Every rule, sorted by name.
pub const ALL: &[&dyn Rule] = &[
    &ambiguous_gpu::AmbiguousGpu,
    &axolotl_refuses::AxolotlRefuses,
    &batch_arithmetic::BatchArithmetic,
    &best_model_without_evaluation::BestModelWithoutEvaluation,
    &conflicting_keys::ConflictingKeys,
    &deepspeed_conflicts_with_trainer::DeepspeedConflictsWithTrainer,
    &deprecated_key::DeprecatedKey,
    &dtype_unsupported_on_gpu::DtypeUnsupportedOnGpu,
    &duplicate_key::DuplicateKey,
    &estimate_unknown::EstimateUnknown,
    &experts_not_divisible::ExpertsNotDivisible,
    &flash_attention_unsupported_on_gpu::FlashAttentionUnsupportedOnGpu,
    &fp8_unsupported_on_gpu::Fp8UnsupportedOnGpu,
    &generations_not_divisible::GenerationsNotDivisible,
    &gpt_neox_refuses::GptNeoxRefuses,
    &heads_not_divisible_by_tensor_parallel::HeadsNotDivisibleByTensorParallel,
    &hidden_not_divisible_by_heads::HiddenNotDivisibleByHeads,
    &host_over_budget::HostOverBudget,
    &inline_budget::InlineBudget,
    &input_limit::InputLimit,
    &interpolation_unresolved::InterpolationUnresolved,
    &invalid_value::InvalidValue,
    &json_dialect::JsonDialect,
    &key_without_effect::KeyWithoutEffect,
    &layers_not_divisible_by_pipeline::LayersNotDivisibleByPipeline,
    &litgpt_refuses::LitgptRefuses,
    &llm_foundry_refuses::LlmFoundryRefuses,
    &missing_companion::MissingCompanion,
    &missing_key::MissingKey,
    &model_size_contradicts_name::ModelSizeContradictsName,
    &multiple_documents::MultipleDocuments,
    &not_utf8::NotUtf8,
    &offload_needs_zero_stage::OffloadNeedsZeroStage,
    &over_budget::OverBudget,
    &reference_not_found::ReferenceNotFound,
    &reference_outside_repository::ReferenceOutsideRepository,
    &removed_key::RemovedKey,
    &sequence_exceeds_positions::SequenceExceedsPositions,
    &sequence_not_divisible_by_context_parallel::SequenceNotDivisibleByContextParallel,
    &stage3_keys_without_stage3::Stage3KeysWithoutStage3,
    &tight_fit::TightFit,
    &torchtitan_refuses::TorchtitanRefuses,
    &torchtune_refuses::TorchtuneRefuses,
    &unknown_gpu::UnknownGpu,
    &unknown_key::UnknownKey,
    &unknown_model::UnknownModel,
    &unused_suppression::UnusedSuppression,
    &world_size_mismatch::WorldSizeMismatch,
    &wrong_type::WrongType,
    &yaml_float_as_string::YamlFloatAsString,
    &yaml_octal_or_sexagesimal::YamlOctalOrSexagesimal,
    &yaml_parse_error::YamlParseError,
    &yaml_surprising_bool::YamlSurprisingBool,
];

/// A rule by its name.
pub fn by_name(name: &str) -> Option<&'static dyn Rule> {
    ALL.iter().copied().find(|rule| rule.info().name == name)
}

/// A budget that a file declares and that cannot be used. Made where budgets are looked up,
/// because without it there is no verdict for a rule to read.
pub(crate) fn budget_error(error: &BudgetError, location: Location) -> Finding {
    let rule = match error {
        BudgetError::Gpu(_, GpuError::Ambiguous(_)) => "ambiguous-gpu",
        BudgetError::Gpu(_, GpuError::Unknown(_)) => "unknown-gpu",
        BudgetError::Amount(_) => "wrong-type",
    };
    Finding::new(rule, Severity::Error, location, error.to_string())
}

/// The first place that one of several settings was written at, else the file's start.
fn place(origins: &[&Origin]) -> Location {
    origins.iter().find_map(|origin| origin.location()).unwrap_or_default()
}

/// `a, b or c`.
fn one_of(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// Says what to write instead of an old key, with an edit where the value carries over and the
/// new key is not there yet.
fn offer_rename(
    file: &Checked<'_>,
    mistake: &Mistake,
    finding: Finding,
    instead: Option<&str>,
    rename: bool,
) -> Finding {
    let Some(instead) = instead else { return finding };
    let is_name = instead.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !is_name {
        return finding.help(instead.to_owned());
    }
    let parent = mistake.pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
    let taken = file
        .root
        .and_then(|root| crate::document::pointer::locate(root, parent))
        .is_none_or(|parent| parent.get(instead).is_some());
    let finding = finding.help(format!("use `{instead}`"));
    if !rename || taken {
        return finding;
    }
    finding.fix(
        Safety::Safe,
        format!("Rename `{}` to `{instead}`", mistake.key()),
        mistake.key_span,
        as_written(file, mistake.key_span, instead),
    )
}

/// `text` in the quotes that stand around what `span` covers.
fn as_written(file: &Checked<'_>, span: crate::source::Span, text: &str) -> String {
    let old = file.sources.first().map_or("", |source| source.slice(span));
    match old.chars().next() {
        Some(quote @ ('"' | '\'')) => format!("{quote}{text}{quote}"),
        _ => text.to_owned(),
    }
}
