//! What each loader makes of a plain scalar.

use super::{Dialect, Document, Scalar, Style};

/// Types a scalar as `dialect` does.
pub fn resolve(
    _document: &Document,
    text: &str,
    _style: Style,
    _tag: Option<&str>,
    _dialect: Dialect,
) -> Scalar {
    Scalar::Str(text.to_owned())
}
