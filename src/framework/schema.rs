//! Validates a file against its framework's JSON Schema and gives back what is wrong, one
//! [`Mistake`] a mistake, on the key or value itself. The rules `unknown-key`, `wrong-type`,
//! `invalid-value`, `missing-key`, `deprecated-key` and `removed-key` turn them into findings.
//!
//! # How a schema is written
//!
//! One file a framework in `schemas/`, JSON Schema 2020-12, embedded with `include_str!` by the
//! framework's own file. Names, types, enumerations and defaults are facts; descriptions are our
//! own words or absent.
//!
//! - A mapping whose unknown keys matter says `"additionalProperties": false` (or
//!   `"unevaluatedProperties": false` beside an `allOf`). Anything else is open and silent.
//!   `"x-unknown-keys": "dropped"` on a section whose unknown keys are dropped though the file's
//!   are refused.
//! - Shared parts stand in `schemas/parts/` and are used by
//!   `{"$ref": "parts/deepspeed.schema.json"}`, also with `#/$defs/…` behind; name them in [`PARTS`].
//! - Types say what the framework accepts *after* its casts: `integer`, not `["integer",
//!   "string"]`. Text that a casting framework turns into the number is never reported.
//! - `null` is accepted everywhere unless the property says `"x-null": "refused"`: configs use an
//!   empty value for "as if absent".
//! - `"default"`: the framework's default, in its newest release.
//! - Marks, all optional: `"x-added-in": "0.19"`, `"x-deprecated-in": "0.20"` (or plain
//!   `"deprecated": true`), `"x-removed-in": "0.22"`, and `"x-renamed-to": "new_name"` with
//!   either of the last two. A mark may name a package underneath (`"transformers 5.15"`): it
//!   is read against the schema's `"x-packages": {"transformers": "5.23"}`. A name with dots is
//!   a path from the top of the file, else a sibling.
//!   `"x-value-changes": true`: the old value does not mean the same under the new name, so no
//!   edit is offered. `"x-instead": "…"`: what to do, in words, where no new name says it.
//!   `"x-only-true": true`: the mark does not hold for a value of `false`.
//!   A key that was dropped in a release nobody remembers says `"x-removed-in": "0"`.
//! - An alias that is as good as the name is a property of its own with
//!   `"x-alias-of": "name"` and a `$ref` to it; it is accepted and never suggested.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value as Json;

use super::{Framework, Kind, TextNumbers, UnknownKeys};
use crate::document::pointer::locate;
use crate::document::{Field, Scalar, Style, Value};
use crate::source::Span;

/// Schema parts that framework schemas share, by the name they are referred to with.
pub const PARTS: &[(&str, &str)] = &[(
    "parts/training-arguments.schema.json",
    include_str!("../../schemas/parts/training-arguments.schema.json"),
)];

/// What is wrong with one key or value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MistakeKind {
    /// The framework has no such key here.
    UnknownKey {
        /// Keys it has here and that look alike, best first.
        near: Vec<String>,
        /// The framework whose name for something this is, and this framework's name for it.
        elsewhere: Option<(&'static str, Option<&'static str>)>,
        /// The same key exists in another section of this file: its dotted path.
        moved: Option<String>,
        /// The framework drops unknown keys in this section, whatever it does elsewhere.
        dropped: bool,
    },
    /// The framework has the key only in later releases than the declared one.
    NotYet {
        /// The first release with it.
        since: String,
    },
    /// The value's type.
    WrongType {
        /// Type names: `integer`, `true or false`.
        expected: Vec<&'static str>,
        /// What stands there.
        found: &'static str,
    },
    /// Not one of the values that the key takes.
    NotInEnum {
        /// The values, as written in the framework's syntax.
        options: Vec<String>,
        /// The one that looks alike.
        near: Option<String>,
    },
    /// A number or length out of bounds.
    OutOfRange {
        /// `at least 1`.
        limit: String,
    },
    /// A key that must be there and is not; the spans are the mapping's.
    MissingKey {
        /// Its name.
        key: String,
    },
    /// The framework no longer has the key.
    Removed {
        /// The first release without it.
        since: String,
        /// What to write instead.
        instead: Option<String>,
        /// What to write instead is a sibling key that takes the same value.
        rename: bool,
    },
    /// The framework still reads the key and says it should not be used.
    Deprecated {
        /// The release that said so first, when known.
        since: Option<String>,
        /// What to write instead.
        instead: Option<String>,
        /// What to write instead is a sibling key that takes the same value.
        rename: bool,
    },
    /// Anything else a schema can say.
    Invalid {
        /// In words, to stand behind the key's name: `must not be empty`.
        why: String,
    },
}

/// One mistake and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// What is wrong.
    pub kind: MistakeKind,
    /// The key, or the value itself for list items and the top of the file.
    pub key_span: Span,
    /// The value.
    pub value_span: Span,
    /// JSON pointer of the value.
    pub pointer: String,
}

impl Mistake {
    /// The last step of the pointer: the key's name.
    pub fn key(&self) -> String {
        let step = self.pointer.rsplit('/').next().unwrap_or_default();
        step.replace("~1", "/").replace("~0", "~")
    }

    /// The pointer as people write it: `fsdp_config.offload_params`, `datasets[0].type`.
    pub fn dotted(&self) -> String {
        let mut dotted = String::new();
        for step in self.pointer.split('/').skip(1) {
            if !step.is_empty() && step.bytes().all(|b| b.is_ascii_digit()) {
                dotted.push_str(&format!("[{step}]"));
            } else {
                if !dotted.is_empty() {
                    dotted.push('.');
                }
                dotted.push_str(&step.replace("~1", "/").replace("~0", "~"));
            }
        }
        dotted
    }
}

/// A schema made ready: parts inlined, validator compiled.
struct Compiled {
    schema: Json,
    validator: Validator,
}

/// Parses a schema and inlines the parts it refers to, so that it stands alone.
///
/// # Errors
/// The schema or a part is no JSON, or it refers to a part that is not in [`PARTS`].
pub fn bundle(text: &str) -> Result<Json, String> {
    let mut schema: Json = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let mut parts = serde_json::Map::new();
    let mut wanted = Vec::new();
    rewrite_references(&mut schema, None, &mut wanted);
    while let Some(name) = wanted.pop() {
        if parts.contains_key(&name) {
            continue;
        }
        let (_, part) =
            PARTS.iter().find(|(known, _)| *known == name).ok_or_else(|| format!("no part {name}"))?;
        let mut part: Json = serde_json::from_str(part).map_err(|e| e.to_string())?;
        rewrite_references(&mut part, Some(&name), &mut wanted);
        if let Some(object) = part.as_object_mut() {
            object.remove("$schema");
            object.remove("$id");
        }
        parts.insert(name, part);
    }
    if let Some(object) = schema.as_object_mut() {
        // A relative `$id` is for editors; here it would be a base for references.
        object.remove("$id");
        if !parts.is_empty() {
            let defs = object.entry("$defs").or_insert_with(|| Json::Object(Default::default()));
            if let Some(defs) = defs.as_object_mut() {
                defs.extend(parts);
            }
        }
    }
    Ok(schema)
}

fn rewrite_references(node: &mut Json, part: Option<&str>, wanted: &mut Vec<String>) {
    match node {
        Json::Object(object) => {
            if let Some(Json::String(reference)) = object.get_mut("$ref") {
                let (file, fragment) = match reference.split_once('#') {
                    Some((file, fragment)) => (file, fragment),
                    None => (reference.as_str(), ""),
                };
                let target = if file.is_empty() {
                    part.map(str::to_owned)
                } else {
                    // Parts refer to each other by bare names: they stand in the same folder.
                    let name = if part.is_some() && !file.starts_with("parts/") {
                        format!("parts/{file}")
                    } else {
                        file.to_owned()
                    };
                    Some(name)
                };
                if let Some(name) = target {
                    *reference = format!("#/$defs/{}{fragment}", name.replace('~', "~0").replace('/', "~1"));
                    wanted.push(name);
                }
            }
            object.values_mut().for_each(|value| rewrite_references(value, part, wanted));
        }
        Json::Array(items) => items.iter_mut().for_each(|item| rewrite_references(item, part, wanted)),
        _ => {}
    }
}

/// The compiled schema of a framework's kind of file. Compiled once, when the first such file is
/// seen. `None`: it has none.
fn compiled(framework: &dyn Framework, kind: Kind) -> Option<Arc<Compiled>> {
    type Cache = Mutex<HashMap<(usize, usize), Option<Arc<Compiled>>>>;
    static CACHE: OnceLock<Cache> = OnceLock::new();
    let text = framework.schema(kind)?;
    let cache = CACHE.get_or_init(Default::default);
    let mut cache = cache.lock().unwrap_or_else(PoisonError::into_inner);
    cache
        .entry((text.as_ptr() as usize, text.len()))
        .or_insert_with(|| {
            let schema = bundle(text).ok()?;
            let validator = jsonschema::options()
                .with_draft(jsonschema::Draft::Draft202012)
                .should_validate_formats(false)
                .build(&schema)
                .ok()?;
            Some(Arc::new(Compiled { schema, validator }))
        })
        .clone()
}

/// True for text that something else fills in before the framework reads it: an interpolation,
/// a template, a shell variable, `<your model>`.
pub fn is_placeholder(value: Value<'_>) -> bool {
    match value.scalar() {
        Some(Scalar::Interpolated(_)) => true,
        Some(Scalar::Str(text)) => is_placeholder_text(&text),
        _ => false,
    }
}

fn is_placeholder_text(text: &str) -> bool {
    let text = text.trim();
    text.contains("${")
        || text.contains("{{")
        || text == "???"
        || (text.starts_with('<') && text.ends_with('>') && text.len() > 2)
        || (text.starts_with('$') && text.len() > 1)
}

/// Everything that is wrong with a file according to its framework's schema.
///
/// `version`: the framework's version that the user declares; marks (`x-removed-in` and its like)
/// are read against it, newest otherwise. Empty when the framework has no schema for `kind`.
pub fn validate(
    framework: &dyn Framework,
    kind: Kind,
    root: Value<'_>,
    version: Option<&str>,
) -> Vec<Mistake> {
    let Some(compiled) = compiled(framework, kind) else { return Vec::new() };
    let Some(json) = root.to_json() else { return Vec::new() };
    let reader = Reader { schema: &compiled.schema, framework, root, version };
    let mut mistakes = Vec::new();
    for error in compiled.validator.iter_errors(&json) {
        reader.read(&error, &mut mistakes);
    }
    reader.marks(root, &[&compiled.schema], "", 0, &mut mistakes);
    mistakes.sort_by(|a, b| (a.key_span, &a.pointer).cmp(&(b.key_span, &b.pointer)));
    mistakes.dedup();
    mistakes
}

struct Reader<'a> {
    schema: &'a Json,
    framework: &'a dyn Framework,
    root: Value<'a>,
    version: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// Turns one validation error into mistakes; nothing when the framework's casts, a
    /// placeholder or another part of the schema makes it right.
    fn read(&self, error: &ValidationError<'_>, mistakes: &mut Vec<Mistake>) {
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
            let mut near =
                super::names::near(key, known.iter().filter(|(_, s)| suggestible(s)).map(|(n, _)| *n));
            if near.is_empty() {
                // A slip in a key that has gone since is still a slip.
                near = super::names::near(key, known.iter().map(|(name, _)| *name));
            }
            let elsewhere = super::names::elsewhere(self.framework.name(), key);
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
            let near = value.text().and_then(|text| {
                super::names::near(text, words.iter().map(String::as_str)).into_iter().next()
            });
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
            let near = super::names::near(text, options.iter().map(String::as_str)).into_iter().next();
            options.extend(expected.into_iter().map(str::to_owned));
            MistakeKind::NotInEnum { options, near }
        };
        mistakes.push(at(kind, value, pointer));
    }

    /// Walks the file beside the schema and reads the marks of the keys that are there.
    fn marks(
        &self,
        value: Value<'a>,
        schemas: &[&'a Json],
        pointer: &str,
        depth: usize,
        mistakes: &mut Vec<Mistake>,
    ) {
        if depth > crate::document::limits::DEPTH || schemas.is_empty() {
            return;
        }
        let schemas = applicable(self.schema, schemas);
        for (index, item) in value.items().enumerate() {
            let inner: Vec<&Json> = schemas.iter().filter_map(|s| s.get("items")).collect();
            self.marks(item, &inner, &format!("{pointer}/{index}"), depth + 1, mistakes);
        }
        if !value.is_mapping() {
            return;
        }
        for Field { key, value, .. } in value.fields() {
            let inner: Vec<&Json> =
                schemas.iter().filter_map(|s| s.get("properties").and_then(|p| p.get(key))).collect();
            let pointer = format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"));
            // A key that one of several branches has without marks is as good as any.
            if let (Some(mark), true) = (inner.first(), inner.iter().all(|s| is_marked(s)))
                && !value.is_null()
            {
                mistakes.extend(self.mark(mark, value, &pointer));
            }
            self.marks(value, &inner, &pointer, depth + 1, mistakes);
        }
    }

    fn mark(&self, property: &Json, value: Value<'_>, pointer: &str) -> Option<Mistake> {
        let text = |name: &str| property.get(name).and_then(Json::as_str).map(str::to_owned);
        let renamed = text("x-renamed-to");
        let flag = |name: &str| property.get(name).and_then(Json::as_bool) == Some(true);
        let rename = !flag("x-value-changes") && renamed.as_ref().is_some_and(|name| !name.contains('.'));
        let instead = renamed.or_else(|| text("x-instead"));
        if flag("x-only-true") && value.to_bool() == Some(false) {
            return None;
        }
        let kind = if let Some(since) = text("x-removed-in").filter(|v| self.reached(v) == Some(true)) {
            MistakeKind::Removed { since, instead, rename }
        } else if let Some(since) = text("x-deprecated-in").filter(|v| self.reached(v) == Some(true)) {
            MistakeKind::Deprecated { since: Some(since), instead, rename }
        } else if flag("deprecated") && property.get("x-deprecated-in").is_none() {
            MistakeKind::Deprecated { since: None, instead, rename }
        } else {
            let since =
                text("x-added-in").filter(|v| self.version.is_some() && self.reached(v) == Some(false))?;
            MistakeKind::NotYet { since }
        };
        Some(at(kind, value, pointer))
    }

    /// Does the declared version (newest otherwise) include `release`? A mark of a package
    /// underneath (`transformers 5.15`) is read against the release in `x-packages`, the one the
    /// framework's newest release runs with; `None` when an older framework is declared.
    fn reached(&self, release: &str) -> Option<bool> {
        let Some((package, release)) = release.split_once(' ') else {
            return Some(self.version.is_none_or(|declared| at_least(declared, release)));
        };
        let newest = self.schema.get("x-packages")?.get(package)?.as_str()?;
        self.version.is_none().then(|| at_least(newest, release))
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

fn at(kind: MistakeKind, value: Value<'_>, pointer: &str) -> Mistake {
    Mistake { kind, key_span: value.key_span(), value_span: value.span(), pointer: pointer.to_owned() }
}

/// A schema and everything it pulls in: `$ref`, `allOf`, `anyOf`, `oneOf`, `then`, `else`.
fn applicable<'a>(root: &'a Json, schemas: &[&'a Json]) -> Vec<&'a Json> {
    let mut found: Vec<&Json> = Vec::new();
    let mut open: Vec<&Json> = schemas.to_vec();
    while let Some(schema) = open.pop() {
        if found.iter().any(|known| std::ptr::eq(*known, schema)) {
            continue;
        }
        found.push(schema);
        if let Some(target) = schema
            .get("$ref")
            .and_then(Json::as_str)
            .and_then(|r| r.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer))
        {
            open.push(target);
        }
        for list in ["allOf", "anyOf", "oneOf"] {
            open.extend(schema.get(list).and_then(Json::as_array).into_iter().flatten());
        }
        open.extend(["then", "else"].iter().filter_map(|name| schema.get(*name)));
    }
    found
}

fn properties<'a>(root: &'a Json, schemas: &[&'a Json]) -> Vec<(&'a str, &'a Json)> {
    applicable(root, schemas)
        .into_iter()
        .filter_map(|s| s.get("properties")?.as_object())
        .flatten()
        .map(|(name, schema)| (name.as_str(), schema))
        .collect()
}

fn is_marked(property: &Json) -> bool {
    ["deprecated", "x-deprecated-in", "x-removed-in", "x-added-in"]
        .iter()
        .any(|mark| property.get(*mark).is_some())
}

/// Is the property worth suggesting: current, under its own name?
fn suggestible(property: &Json) -> bool {
    ["deprecated", "x-deprecated-in", "x-removed-in", "x-alias-of"]
        .iter()
        .all(|mark| property.get(*mark).is_none())
}

/// The dotted path of a section one level down that has `key`, when there is exactly one.
fn section_with(root: &Json, key: &str) -> Option<String> {
    let mut sections: Vec<&str> = properties(root, &[root])
        .into_iter()
        .filter(|(_, schema)| {
            properties(root, &[*schema]).iter().any(|(name, s)| *name == key && suggestible(s))
        })
        .map(|(name, _)| name)
        .collect();
    sections.sort_unstable();
    sections.dedup();
    match sections.as_slice() {
        [one] => Some(format!("{one}.{key}")),
        _ => None,
    }
}

/// Compares dotted versions number by number; what is no number counts as 0.
pub fn at_least(declared: &str, release: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        text.trim_start_matches('v')
            .split('.')
            .map(|part| {
                part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap_or(0)
            })
            .collect()
    };
    let (mut a, mut b) = (numbers(declared), numbers(release));
    let length = a.len().max(b.len());
    a.resize(length, 0);
    b.resize(length, 0);
    a >= b
}

fn type_name(json: &str) -> &'static str {
    match json {
        "array" => "a list",
        "boolean" => "true or false",
        "integer" => "an integer",
        "null" => "null",
        "number" => "a number",
        "object" => "a mapping",
        _ => "text",
    }
}

fn json_type(value: &Json) -> &'static str {
    type_name(match value {
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Number(n) if n.is_f64() => "number",
        Json::Number(_) => "integer",
        Json::String(_) => "string",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    })
}

/// What stands in the file, as its loader sees it.
pub fn found(value: Value<'_>) -> &'static str {
    match value.scalar() {
        Some(Scalar::Null) => "null",
        Some(Scalar::Bool(_)) => "true or false",
        Some(Scalar::Int(_)) => "an integer",
        Some(Scalar::Float(_)) => "a number",
        Some(Scalar::DateTime(_)) => "a date",
        Some(Scalar::Str(_) | Scalar::Interpolated(_)) => "text",
        None if value.is_mapping() => "a mapping",
        None => "a list",
    }
}
