//! What frameworks check across keys before they start: one form for all of them, so that three
//! rules can report them.

use super::schema::is_placeholder;
use crate::document::{Scalar, Value};
use crate::source::{Location, Span};

/// Which rule speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// Keys that must not be given together: the framework stops.
    Exclusive,
    /// A combination that the framework refuses to start with.
    Refused,
    /// The framework starts, and the key does nothing.
    NoEffect,
}

/// One combination of keys that the framework does not carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Which rule speaks.
    pub kind: RefusalKind,
    /// Where the thing to change stands.
    pub at: Location,
    /// What is wrong, in one line.
    pub message: String,
    /// Other keys that take part.
    pub with: Vec<Location>,
    /// What to change.
    pub help: String,
    /// The first release that refuses it, where older ones did not.
    pub since: Option<&'static str>,
}

/// Reads keys the way Python's `if cfg.key` does and collects refusals.
pub struct Checks<'a> {
    root: Value<'a>,
    found: Vec<Refusal>,
}

impl<'a> Checks<'a> {
    /// Checks over a file's top.
    pub fn new(root: Value<'a>) -> Checks<'a> {
        Checks { root, found: Vec::new() }
    }

    /// What was found.
    pub fn finish(self) -> Vec<Refusal> {
        self.found
    }

    /// A key that is there and not null.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.root.path(key).filter(|value| !value.is_null())
    }

    /// A key whose value Python counts as true.
    pub fn on(&self, key: &str) -> Option<Value<'a>> {
        self.get(key).filter(|value| truthy(*value))
    }

    /// The first of several keys that is on.
    pub fn any(&self, keys: &[&str]) -> Option<Value<'a>> {
        keys.iter().find_map(|key| self.on(key))
    }

    /// True when one of the keys is filled in by something else before the framework reads it;
    /// no check that reads it can be trusted then.
    pub fn templated(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.root.path(key).is_some_and(is_placeholder))
    }

    /// Keys that must not be given together.
    pub fn exclusive(&mut self, keys: &[&str], help: &str) {
        if self.templated(keys) {
            return;
        }
        let given: Vec<(&str, Value<'a>)> =
            keys.iter().filter_map(|key| self.on(key).map(|value| (*key, value))).collect();
        let [(first, at), (second, other), rest @ ..] = given.as_slice() else { return };
        let mut with = vec![Location::primary(other.key_span())];
        with.extend(rest.iter().map(|(_, value)| Location::primary(value.key_span())));
        self.found.push(Refusal {
            kind: RefusalKind::Exclusive,
            at: Location::primary(at.key_span()),
            message: format!("`{first}` and `{second}` cannot be given together"),
            with,
            help: help.to_owned(),
            since: None,
        });
    }

    /// A combination that stops the framework; nothing when one of the values is a placeholder.
    pub fn refuse(&mut self, at: Value<'a>, with: &[Option<Value<'a>>], message: &str, help: &str) {
        self.push(RefusalKind::Refused, at, with, message, help);
    }

    /// A value that stops the framework from a release on.
    pub fn refuse_since(&mut self, since: &'static str, at: Value<'a>, message: &str, help: &str) {
        self.push(RefusalKind::Refused, at, &[], message, help);
        if let Some(last) = self.found.last_mut().filter(|last| last.at == Location::primary(place(at))) {
            last.since = Some(since);
        }
    }

    /// A key that does nothing.
    pub fn no_effect(&mut self, at: Value<'a>, with: &[Option<Value<'a>>], message: &str, help: &str) {
        self.push(RefusalKind::NoEffect, at, with, message, help);
    }

    fn push(
        &mut self,
        kind: RefusalKind,
        at: Value<'a>,
        with: &[Option<Value<'a>>],
        message: &str,
        help: &str,
    ) {
        let with: Vec<Value<'a>> = with.iter().flatten().copied().collect();
        if is_placeholder(at) || with.iter().copied().any(is_placeholder) {
            return;
        }
        self.found.push(Refusal {
            kind,
            at: Location::primary(place(at)),
            message: message.to_owned(),
            with: with.into_iter().map(|value| Location::primary(place(value))).collect(),
            help: help.to_owned(),
            since: None,
        });
    }
}

/// A scalar itself, or the key of a collection: underlining a whole section says nothing.
fn place(value: Value<'_>) -> Span {
    if value.scalar().is_some() && !value.span().is_empty() { value.span() } else { value.key_span() }
}

/// Python's truth of a loaded value.
pub fn truthy(value: Value<'_>) -> bool {
    match value.scalar() {
        Some(Scalar::Null) => false,
        Some(Scalar::Bool(b)) => b,
        Some(Scalar::Int(n)) => n != 0,
        Some(Scalar::Float(x)) => x != 0.0,
        Some(Scalar::Str(text) | Scalar::DateTime(text) | Scalar::Interpolated(text)) => !text.is_empty(),
        None => !value.fields().is_empty() || value.items().next().is_some(),
    }
}
