//! YAML text to a tree.

use super::{Document, Syntax};

/// Reads YAML text.
pub fn parse(_text: &str) -> Document {
    Document::empty(Syntax::Yaml)
}
