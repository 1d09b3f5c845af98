//! JSON text to a tree.

use super::{Document, Syntax};

/// Reads JSON text.
pub fn parse(_text: &str) -> Document {
    Document::empty(Syntax::Json)
}
