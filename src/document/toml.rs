//! TOML text to a tree.

use super::{Document, Syntax};

/// Reads TOML text.
pub fn parse(_text: &str) -> Document {
    Document::empty(Syntax::Toml)
}
