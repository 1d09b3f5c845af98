//! A value with where it came from.

use crate::source::Location;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The checked file says so.
    Written(Location),
    /// The framework's own default for an absent key.
    Default {
        /// Who sets it, with the version: `axolotl 0.16`.
        by: String,
    },
    /// A file that the checked file refers to says so (DeepSpeed JSON, a model's config.json).
    Referenced(Location),
    /// `llmlint.toml`, the command line or an inline comment says so.
    Declared(String),
    /// Nobody says so; why we take it.
    Assumed(String),
}

impl Origin {
    /// The place to point at, when there is one.
    pub fn location(&self) -> Option<Location> {
        match self {
            Origin::Written(location) | Origin::Referenced(location) => Some(*location),
            _ => None,
        }
    }

    /// True when a person should be told that this value was not read in their file.
    pub fn is_assumption(&self) -> bool {
        matches!(self, Origin::Default { .. } | Origin::Assumed(_))
    }

    /// In words, for `explain` and the JSON contract.
    pub fn describe(&self) -> String {
        match self {
            Origin::Written(_) => "written".into(),
            Origin::Default { by } => format!("default of {by}"),
            Origin::Referenced(_) => "referenced file".into(),
            Origin::Declared(place) => format!("declared in {place}"),
            Origin::Assumed(reason) => format!("assumed: {reason}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value the checked file writes at `location`.
    pub fn written(value: T, location: Location) -> Setting<T> {
        Setting { value, origin: Origin::Written(location) }
    }

    /// A framework's default.
    pub fn default_of(value: T, by: impl Into<String>) -> Setting<T> {
        Setting { value, origin: Origin::Default { by: by.into() } }
    }

    /// A value nobody wrote, with the reason for taking it.
    pub fn assumed(value: T, reason: impl Into<String>) -> Setting<T> {
        Setting { value, origin: Origin::Assumed(reason.into()) }
    }

    /// Another value with the same origin.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: f(self.value), origin: self.origin }
    }
}
