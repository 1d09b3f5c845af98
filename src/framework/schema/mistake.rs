//! What can be wrong with a key or a value.

use serde_json::Value as Json;

use crate::document::{Scalar, Value};
use crate::source::Span;

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

pub(super) fn at(kind: MistakeKind, value: Value<'_>, pointer: &str) -> Mistake {
    Mistake { kind, key_span: value.key_span(), value_span: value.span(), pointer: pointer.to_owned() }
}

pub(super) fn type_name(json: &str) -> &'static str {
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

pub(super) fn json_type(value: &Json) -> &'static str {
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
