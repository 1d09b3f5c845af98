//! What a rule says: a message, where it points, and the edits it offers.

use crate::source::{Location, Span};

/// How bad a finding is. `--fail-on` compares against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Note,
    /// Probably not what was meant.
    Warning,
    /// The run will fail, or will not be the run that was meant.
    Error,
}

impl Severity {
    /// The word users read and write.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A place with a few words about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub location: Location,
    /// What to say there. Empty: just underline.
    pub text: String,
}

/// One replacement of bytes in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Which bytes to replace. An empty span inserts.
    pub location: Location,
    /// The new text.
    pub replacement: String,
}

/// Whether an edit keeps the meaning of the training run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Safety {
    /// The trainer does what the file already said it should (quoting, renamed keys).
    Safe,
    /// Training itself changes (batch size, precision, method).
    Unsafe,
}

/// A named set of edits that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// What the edits do, as an imperative sentence without a full stop.
    pub title: String,
    /// Applied by `--fix`, or only by `--unsafe-fixes`.
    pub safety: Safety,
    /// The replacements; they never overlap.
    pub edits: Vec<Edit>,
}

/// One thing to tell the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The rule's name, kebab-case.
    pub rule: &'static str,
    /// How bad it is; `llmlint.toml` may override it after the rule has run.
    pub severity: Severity,
    /// What is wrong, in one line without a full stop.
    pub message: String,
    /// The thing to change.
    pub primary: Label,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// Why it is wrong or what happens then; whole sentences, one a line.
    pub notes: Vec<String>,
    /// What to change, one possibility an item.
    pub help: Vec<String>,
    /// Edits on offer.
    pub fixes: Vec<Fix>,
}

impl Finding {
    /// A finding that points at `location`.
    pub fn new(
        rule: &'static str,
        severity: Severity,
        location: Location,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            rule,
            severity,
            message: message.into(),
            primary: Label { location, text: String::new() },
            labels: Vec::new(),
            notes: Vec::new(),
            help: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// Sets the words under the primary span.
    #[must_use]
    pub fn at(mut self, text: impl Into<String>) -> Finding {
        self.primary.text = text.into();
        self
    }

    /// Adds another place.
    #[must_use]
    pub fn label(mut self, location: Location, text: impl Into<String>) -> Finding {
        self.labels.push(Label { location, text: text.into() });
        self
    }

    /// Adds a reason.
    #[must_use]
    pub fn note(mut self, text: impl Into<String>) -> Finding {
        self.notes.push(text.into());
        self
    }

    /// Adds a possibility for what to change.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Finding {
        self.help.push(text.into());
        self
    }

    /// Offers an edit of one span of the checked file.
    #[must_use]
    pub fn fix(
        mut self,
        safety: Safety,
        title: impl Into<String>,
        span: Span,
        replacement: impl Into<String>,
    ) -> Finding {
        self.fixes.push(Fix {
            title: title.into(),
            safety,
            edits: vec![Edit { location: Location::primary(span), replacement: replacement.into() }],
        });
        self
    }
}
