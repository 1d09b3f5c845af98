//! Turns the validator's errors into mistakes: forgives what the framework's casts make right, and
//! of several branches takes the one that was meant.

use jsonschema::ValidationError;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use serde_json::Value as Json;

use super::mistake::{at, found, json_type, type_name};
use super::walk::{applicable, properties, section_with, suggestible};
use super::{Mistake, MistakeKind, is_placeholder};
use crate::document::pointer::locate;
use crate::document::{Scalar, Style, Value, is_placeholder_text};
use crate::framework::{Framework, TextNumbers, UnknownKeys, names};

pub(super) struct Reader<'a> {
    pub(super) schema: &'a Json,
    pub(super) framework: &'a dyn Framework,
    pub(super) root: Value<'a>,
    pub(super) version: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// Turns one validation error into mistakes; nothing when the framework's casts, a
    /// placeholder or another part of the schema makes it right.
    pub(super) fn read(&self, error: &ValidationError<'_>, mistakes: &mut Vec<Mistake>) {
        let pointer = error.instance_path().as_str();
        let Some(value) = locate(self.root, pointer) else { return };
        if is_placeholder(value) {
            return;
        }
        let push = |kind: MistakeKind, mistakes: &mut Vec<Mistake>| mistakes.push(at(kind, value, pointer));
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected }
            | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                self.unknown_keys(value, pointer, unexpected, mistakes);
            }
            ValidationErrorKind::Type { kind } => {
                let expected: Vec<&'static str> = match kind {
                    TypeKind::Single(one) => vec![type_name(one.as_str())],
                    TypeKind::Multiple(set) => set.iter().map(|t| type_name(t.as_str())).collect(),
                };
                if !self.forgives_type(value, pointer, &expected) {
                    let found = found(value);
                    push(MistakeKind::WrongType { expected, found }, mistakes);
                }
            }
            ValidationErrorKind::Enum { options } => {
                let options: Vec<Json> = options.as_array().cloned().unwrap_or_default();
                self.not_in_enum(value, pointer, &options, mistakes);
            }
            ValidationErrorKind::Constant { expected_value } => {
                self.not_in_enum(value, pointer, std::slice::from_ref(expected_value), mistakes);
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                self.best_branch(value, pointer, context, mistakes);
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default().to_owned();
                push(MistakeKind::MissingKey { key }, mistakes);
            }
            ValidationErrorKind::Minimum { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("at least {limit}") }, mistakes);
            }
            ValidationErrorKind::ExclusiveMinimum { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("more than {limit}") }, mistakes);
            }
            ValidationErrorKind::Maximum { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("at most {limit}") }, mistakes);
            }
            ValidationErrorKind::ExclusiveMaximum { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("less than {limit}") }, mistakes);
            }
            ValidationErrorKind::MinItems { limit: 1 } | ValidationErrorKind::MinLength { limit: 1 } => {
                push(MistakeKind::Invalid { why: "must not be empty".into() }, mistakes);
            }
            ValidationErrorKind::MinItems { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("at least {limit} items") }, mistakes);
            }
            ValidationErrorKind::MaxItems { limit } => {
                push(MistakeKind::OutOfRange { limit: format!("at most {limit} items") }, mistakes);
            }
            ValidationErrorKind::Pattern { .. } => {
                push(MistakeKind::Invalid { why: "does not have the form it must have".into() }, mistakes);
            }
            ValidationErrorKind::FalseSchema | ValidationErrorKind::Not { .. } => {
                push(MistakeKind::Invalid { why: "is not allowed here".into() }, mistakes);
            }
            _ => push(MistakeKind::Invalid { why: "is not what the framework accepts".into() }, mistakes),
        }
    }

    fn unknown_keys(
        &self,
        parent: Value<'a>,
        pointer: &str,
        unexpected: &[String],
        mistakes: &mut Vec<Mistake>,
    ) {
        let here = self.schemas_at(pointer);
        let dropped = here.iter().any(|s| s.get("x-unknown-keys").and_then(Json::as_str) == Some("dropped"));
        let known = properties(self.schema, &here);
        for key in unexpected {
            // A failed `allOf` part loses its annotations and leaves its keys "unevaluated".
            if known.iter().any(|(name, _)| name == key)
                || is_placeholder_text(key)
                || self.framework.explains_key(self.root, key)
            {
                continue;
            }
            let Some(value) = parent.get(key) else { continue };
            if value.is_null() && self.framework.unknown_keys() == UnknownKeys::Dropped {
                continue;
            }
            let mut near = names::near(key, known.iter().filter(|(_, s)| suggestible(s)).map(|(n, _)| *n));
            if near.is_empty() {
                // A slip in a key that has gone since is still a slip.
                near = names::near(key, known.iter().map(|(name, _)| *name));
            }
            let elsewhere = names::elsewhere(self.framework.name(), key);
            let moved = near.is_empty().then(|| section_with(self.schema, key)).flatten();
            let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
            mistakes.push(at(MistakeKind::UnknownKey { near, elsewhere, moved, dropped }, value, &pointer));
        }
    }

    /// Is this only a matter of how the value is written?
    fn forgives_type(&self, value: Value<'_>, pointer: &str, expected: &[&str]) -> bool {
        let scalar = value.scalar();
        if matches!(scalar, Some(Scalar::Null)) {
            return !self.refuses_null(pointer);
        }
        let wants = |name: &str| expected.contains(&name);
        let number = wants("a number") || wants("an integer");
        if number && value.as_str().is_some() && value.to_float().is_some() {
            // `1e-5` without quotes is text to PyYAML: `yaml-float-as-string` speaks of that.
            let left_to_that_rule = value.style() == Some(Style::Plain);
            return left_to_that_rule
                || (self.framework.text_numbers() == TextNumbers::Cast
                    && (wants("a number") || value.to_int().is_some()));
        }
        if wants("an integer") && matches!(scalar, Some(Scalar::Float(x)) if x.fract() == 0.0) {
            return true;
        }
        // Python counts True as 1.
        if number && matches!(scalar, Some(Scalar::Bool(_))) {
            return self.framework.text_numbers() == TextNumbers::Cast;
        }
        if wants("true or false") && value.to_bool().is_some() {
            return self.framework.text_numbers() == TextNumbers::Cast;
        }
        // Dates and numbers are text once a casting loader has seen them; pydantic alone minds.
        wants("text") && matches!(scalar, Some(Scalar::DateTime(_)))
    }

    fn refuses_null(&self, pointer: &str) -> bool {
        self.schemas_at(pointer).iter().any(|s| s.get("x-null").and_then(Json::as_str) == Some("refused"))
    }

    fn not_in_enum(&self, value: Value<'_>, pointer: &str, options: &[Json], mistakes: &mut Vec<Mistake>) {
        if value.is_null() && !self.refuses_null(pointer) {
            return;
        }
        if self.framework.text_numbers() == TextNumbers::Cast {
            let same = options.iter().any(|option| match option {
                Json::Bool(b) => value.to_bool() == Some(*b),
                Json::Number(n) => value.to_float().is_some() && value.to_float() == n.as_f64(),
                _ => false,
            });
            if same {
                return;
            }
        }
        let words: Vec<String> = options
            .iter()
            .filter(|o| !o.is_null())
            .map(|o| o.as_str().map_or_else(|| o.to_string(), str::to_owned))
            .collect();
        let kind = if value.text().is_none() {
            let mut expected: Vec<&'static str> = options.iter().map(json_type).collect();
            expected.sort_unstable();
            expected.dedup();
            MistakeKind::WrongType { expected, found: found(value) }
        } else {
            let near = value
                .text()
                .and_then(|text| names::near(text, words.iter().map(String::as_str)).into_iter().next());
            MistakeKind::NotInEnum { options: words, near }
        };
        mistakes.push(at(kind, value, pointer));
    }

    /// The branch that was most likely meant: one whose complaints are about the inside of the
    /// value, else all branches' types and options in one mistake.
    fn best_branch(
        &self,
        value: Value<'a>,
        pointer: &str,
        branches: &[Vec<ValidationError<'static>>],
        mistakes: &mut Vec<Mistake>,
    ) {
        let mut read: Vec<Vec<Mistake>> = Vec::new();
        for branch in branches {
            let mut own = Vec::new();
            branch.iter().for_each(|error| self.read(error, &mut own));
            if own.is_empty() {
                return;
            }
            read.push(own);
        }
        let misses_itself = |own: &Vec<Mistake>| {
            own.iter().any(|m| {
                m.pointer == pointer
                    && matches!(m.kind, MistakeKind::WrongType { .. } | MistakeKind::NotInEnum { .. })
            })
        };
        if let Some(best) = read.iter().filter(|own| !misses_itself(own)).min_by_key(|own| own.len()) {
            mistakes.extend(best.iter().cloned());
            return;
        }
        let (mut expected, mut options) = (Vec::new(), Vec::new());
        for mistake in read.into_iter().flatten().filter(|m| m.pointer == pointer) {
            match mistake.kind {
                MistakeKind::WrongType { expected: types, .. } => expected.extend(types),
                MistakeKind::NotInEnum { options: words, .. } => options.extend(words),
                _ => {}
            }
        }
        expected.sort_unstable();
        expected.dedup();
        // A number where `auto` or another kind of number may stand is of the wrong type; a word
        // is the wrong word.
        let typed = value.as_str().is_none() && expected.iter().any(|name| *name != "null");
        let kind = if options.is_empty() || value.text().is_none() || typed {
            MistakeKind::WrongType { expected, found: found(value) }
        } else {
            expected.retain(|name| *name != "null");
            let text = value.text().unwrap_or_default();
            let near = names::near(text, options.iter().map(String::as_str)).into_iter().next();
            options.extend(expected.into_iter().map(str::to_owned));
            MistakeKind::NotInEnum { options, near }
        };
        mistakes.push(at(kind, value, pointer));
    }

    /// The schemas that describe the value at `pointer`.
    fn schemas_at(&self, pointer: &str) -> Vec<&'a Json> {
        let mut here = vec![self.schema];
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            here = applicable(self.schema, &here)
                .into_iter()
                .flat_map(|s| {
                    let property = s.get("properties").and_then(|p| p.get(&step));
                    let other = s.get("additionalProperties").filter(|a| a.is_object() && property.is_none());
                    let item = s.get("items").filter(|_| step.bytes().all(|b| b.is_ascii_digit()));
                    [property, other, item].into_iter().flatten()
                })
                .collect();
        }
        applicable(self.schema, &here)
    }
}
