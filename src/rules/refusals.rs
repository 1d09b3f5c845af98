//! What the rules about a framework's own refusals share.

use crate::document::Value;
use crate::finding::{Finding, Severity};
use crate::framework::lowering::here;

/// Collects the findings of one framework's rule.
pub(super) struct Refusals<'a, 'f> {
    /// The rule's name.
    pub(super) rule: &'static str,
    /// The part of the file that the framework reads.
    pub(super) root: Value<'a>,
    /// Where findings go.
    pub(super) findings: &'f mut Vec<Finding>,
}

impl<'a> Refusals<'a, '_> {
    /// A value, by its dotted path.
    pub(super) fn get(&self, path: &str) -> Option<Value<'a>> {
        self.root.path(path)
    }

    /// A positive count.
    pub(super) fn count(&self, path: &str) -> Option<(u64, Value<'a>)> {
        let value = self.get(path)?;
        Some((crate::framework::baseline::count(value)?, value))
    }

    /// A switch that is on.
    pub(super) fn on(&self, path: &str) -> Option<Value<'a>> {
        self.get(path).filter(|v| v.as_bool() == Some(true))
    }

    /// Text.
    pub(super) fn text(&self, path: &str) -> Option<(&'a str, Value<'a>)> {
        let value = self.get(path)?;
        Some((value.as_str()?, value))
    }

    /// The framework stops with an error.
    pub(super) fn refuse(&mut self, at: Value<'_>, message: impl Into<String>, why: &str) -> &mut Finding {
        self.add(Severity::Error, at, message.into(), why)
    }

    /// The framework goes on and does something else than the file says.
    pub(super) fn warn(&mut self, at: Value<'_>, message: impl Into<String>, why: &str) -> &mut Finding {
        self.add(Severity::Warning, at, message.into(), why)
    }

    fn add(&mut self, severity: Severity, at: Value<'_>, message: String, why: &str) -> &mut Finding {
        self.findings.push(Finding::new(self.rule, severity, here(at), message).note(why));
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
}

/// Adds help or another place to a finding that is already in the list.
pub(super) trait Extend {
    /// What to change.
    fn advise(&mut self, help: &str) -> &mut Self;
    /// Another place that matters.
    fn beside(&mut self, at: Value<'_>, text: &str) -> &mut Self;
}

impl Extend for Finding {
    fn advise(&mut self, help: &str) -> &mut Self {
        self.help.push(help.to_owned());
        self
    }

    fn beside(&mut self, at: Value<'_>, text: &str) -> &mut Self {
        self.labels.push(crate::finding::Label { location: here(at), text: text.to_owned() });
        self
    }
}
