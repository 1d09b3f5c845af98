//! Reads the marks of the keys that a file has: since when, until when, under which other name.

use serde_json::Value as Json;

use super::mistake::at;
use super::reader::Reader;
use super::walk::{applicable, is_marked};
use super::{Mistake, MistakeKind, at_least};
use crate::document::{Field, Value};

impl<'a> Reader<'a> {
    /// Walks the file beside the schema and reads the marks of the keys that are there.
    pub(super) fn marks(
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
}
