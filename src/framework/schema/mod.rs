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

mod bundle;
mod marks;
mod mistake;
mod reader;
mod walk;

pub use bundle::{PARTS, bundle};
pub use mistake::{Mistake, MistakeKind, found};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jsonschema::Validator;
use serde_json::Value as Json;

use super::{Framework, Kind};
use crate::document::{Scalar, Value, is_placeholder_text};
use reader::Reader;

/// A schema made ready: parts inlined, validator compiled.
struct Compiled {
    schema: Json,
    validator: Validator,
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
