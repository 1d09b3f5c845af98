//! Vision-language configs: which part is the language model, and how large the rest is.

use super::Architecture;
use serde_json::{Map, Value};

/// The language model's config, when `config` holds one beside others.
pub(super) fn language_part(config: &Map<String, Value>) -> Result<Option<Map<String, Value>>, String> {
    let _ = config;
    Ok(None)
}

/// Parameters outside the language model.
pub(super) fn parameters(config: &Map<String, Value>, language: &Architecture) -> u64 {
    let _ = (config, language);
    0
}
