//! Settings that a framework refuses together.

mod accelerate;
mod hugging_face;
mod llama_factory;

use super::{Checked, axolotl_refuses};
use crate::declare_rule;
use crate::document::Value;
use crate::finding::{Finding, Severity};
use crate::framework::refusal::RefusalKind;
use crate::framework::schema::is_placeholder;
use crate::run::DataParallel;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds two settings that the framework checks against each other and refuses, or of which
    /// it drops one.
    ///
    /// ## Why
    ///
    /// The check is made at start, on every rank, after the queue, the image and often the
    /// model's download. What the framework refuses is known before.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="quantization_bit: 4"
    /// model_name_or_path: Qwen/Qwen3-8B
    /// stage: sft
    /// do_train: true
    /// finetuning_type: full
    /// quantization_bit: 4
    /// dataset: alpaca_en_demo
    /// template: qwen3
    /// cutoff_len: 2048
    /// learning_rate: 1.0e-4
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Drop one of the two settings, or change it to what the other one needs. Quantised weights are
    /// trained through adapters:
    ///
    /// ```diff title="sft.yaml"
    /// -finetuning_type: full
    /// +finetuning_type: lora
    /// ```
    ConflictingKeys, "conflicting-keys", Error, "two settings that the framework refuses together"
}

/// A question about one key.
#[derive(Clone, Copy)]
pub(super) enum Test {
    /// Written and true.
    On(&'static str),
    /// Written, absent or false; the key is only for the message.
    Off(&'static str),
    /// Written and not null.
    Given(&'static str),
    /// Written with one of these values.
    Is(&'static str, &'static [&'static str]),
    /// Written with a value other than these.
    IsNot(&'static str, &'static [&'static str]),
    /// One of these values, the first being what an absent key means.
    IsOrAbsent(&'static str, &'static [&'static str]),
    /// A number above zero.
    Above(&'static str),
    /// A number above one.
    Several(&'static str),
    /// The first and the second are on; the finding points at the first.
    OnWith(&'static str, &'static str),
    /// More than one GPU.
    Distributed,
    /// More than one GPU, and not DeepSpeed's stage 3.
    DistributedWithoutZero3,
    /// Stage 3 of DeepSpeed, wherever it is written.
    Zero3,
}

/// Two tests that must not both hold.
pub(super) struct Conflict {
    /// The setting to change: the finding points at it.
    pub(super) first: Test,
    /// The other one.
    pub(super) second: Test,
    /// The framework refuses (error) or drops the first (warning).
    pub(super) severity: Severity,
    /// Why, as a whole sentence.
    pub(super) why: &'static str,
}

/// A refusal.
pub(super) const fn refused(first: Test, second: Test, why: &'static str) -> Conflict {
    Conflict { first, second, severity: Severity::Error, why }
}

/// A setting that is dropped.
pub(super) const fn dropped(first: Test, second: Test, why: &'static str) -> Conflict {
    Conflict { first, second, severity: Severity::Warning, why }
}

/// What a test that holds found: where, and how it reads in a sentence.
struct Held {
    location: Option<Location>,
    words: String,
}

impl ConflictingKeys {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(framework), Some(root)) = (file.framework, file.root) else { return };
        let tables: &[&[Conflict]] = match framework.name() {
            "llama-factory" => &[llama_factory::CONFLICTS, hugging_face::CONFLICTS],
            "trl" => &[hugging_face::CONFLICTS, hugging_face::TRL],
            "accelerate" => &[accelerate::CONFLICTS],
            // Frameworks that say it themselves.
            _ => {
                let kind = RefusalKind::Exclusive;
                axolotl_refuses::report(file, kind, Self::NAME, Severity::Error, findings);
                return;
            }
        };
        let mut groups: Vec<Group> = Vec::new();
        for conflict in tables.iter().copied().flatten() {
            let Some(first) = holds(conflict.first, root, file) else { continue };
            let Some(second) = holds(conflict.second, root, file) else { continue };
            if first.location.or(second.location).is_none() {
                continue;
            }
            // Several settings beside one that excludes them all are one mistake.
            let same = |group: &&mut Group| {
                group.conflict.why == conflict.why
                    && second.location.is_some()
                    && group.second.location == second.location
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.firsts.push(first),
                None => groups.push(Group { conflict, firsts: vec![first], second }),
            }
        }
        findings.extend(groups.into_iter().filter_map(Group::finding));
    }
}

/// Conflicts of one reason with one setting.
struct Group {
    conflict: &'static Conflict,
    firsts: Vec<Held>,
    second: Held,
}

impl Group {
    fn finding(self) -> Option<Finding> {
        let places: Vec<Location> = self.firsts.iter().filter_map(|held| held.location).collect();
        let location = places.first().copied().or(self.second.location)?;
        let does = if self.firsts.len() > 1 { "do" } else { "does" };
        let message = format!("{} {does} not go with {}", listed(&self.firsts), self.second.words);
        let mut finding = Finding::new(ConflictingKeys::NAME, self.conflict.severity, location, message)
            .note(self.conflict.why);
        for place in places.into_iter().skip(1) {
            finding = finding.label(place, "nor does this");
        }
        if let Some(other) = self.second.location.filter(|other| *other != location) {
            finding = finding.label(other, "the other one");
        }
        Some(finding)
    }
}

/// `a`, `a and b`, `a, b and 3 more`.
fn listed(held: &[Held]) -> String {
    match held {
        [] => String::new(),
        [one] => one.words.clone(),
        [one, other] => format!("{} and {}", one.words, other.words),
        [one, other, rest @ ..] => format!("{}, {} and {} more", one.words, other.words, rest.len()),
    }
}

fn holds(test: Test, root: Value<'_>, file: &Checked<'_>) -> Option<Held> {
    let written = |key: &str| {
        let value = root.path(key).filter(|v| !v.is_null())?;
        Some((value, Location::primary(value.key_span().cover(value.span()))))
    };
    let named = |value: Value<'_>, values: &[&str]| {
        value.text().is_some_and(|text| values.iter().any(|v| text.eq_ignore_ascii_case(v)))
    };
    let held = |key: &str, value: Value<'_>, location: Location| {
        let words = match value.text() {
            Some(text) if text.len() <= 24 => format!("`{key}: {text}`"),
            _ => format!("`{key}`"),
        };
        Some(Held { location: Some(location), words })
    };
    match test {
        Test::On(key) => {
            let (value, at) = written(key)?;
            (value.to_bool() == Some(true)).then(|| held(key, value, at)).flatten()
        }
        Test::Off(key) => match written(key) {
            None => Some(Held { location: None, words: format!("`{key}` left out") }),
            Some((value, at)) => (value.to_bool() == Some(false)).then(|| held(key, value, at)).flatten(),
        },
        Test::Given(key) => {
            let (value, at) = written(key)?;
            let empty = value.text().is_some_and(|text| text.trim().is_empty());
            (!empty && !is_placeholder(value)).then(|| held(key, value, at)).flatten()
        }
        Test::Is(key, values) => {
            let (value, at) = written(key)?;
            named(value, values).then(|| held(key, value, at)).flatten()
        }
        Test::IsNot(key, values) => {
            let (value, at) = written(key)?;
            (!is_placeholder(value) && value.text().is_some() && !named(value, values))
                .then(|| held(key, value, at))
                .flatten()
        }
        Test::IsOrAbsent(key, values) => match written(key) {
            Some((value, at)) => named(value, values).then(|| held(key, value, at)).flatten(),
            None => values
                .first()
                .map(|default| Held { location: None, words: format!("the default `{key}: {default}`") }),
        },
        Test::Above(key) => {
            let (value, at) = written(key)?;
            value.to_float().is_some_and(|x| x > 0.0).then(|| held(key, value, at)).flatten()
        }
        Test::Several(key) => {
            let (value, at) = written(key)?;
            value.to_float().is_some_and(|x| x > 1.0).then(|| held(key, value, at)).flatten()
        }
        Test::OnWith(key, with) => {
            let on = |key: &str| written(key).filter(|(value, _)| value.to_bool() == Some(true));
            let (value, at) = on(key)?;
            on(with).and_then(|_| held(key, value, at))
        }
        Test::Distributed | Test::DistributedWithoutZero3 => {
            let parallel = &file.run?.parallelism;
            let sharded = parallel.data_parallel.value == DataParallel::Zero3;
            let gpus = parallel.gpus.as_ref().filter(|gpus| gpus.value > 1)?;
            (matches!(test, Test::Distributed) || !sharded)
                .then(|| Held { location: gpus.origin.location(), words: format!("{} GPUs", gpus.value) })
        }
        Test::Zero3 => {
            let parallel = &file.run?.parallelism.data_parallel;
            (parallel.value == DataParallel::Zero3).then(|| Held {
                location: written("deepspeed").map(|(_, at)| at),
                words: "DeepSpeed's stage 3".into(),
            })
        }
    }
}
