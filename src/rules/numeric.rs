//! Which keys take numbers: what the rules about YAML's number forms share.

use super::Checked;
use crate::document::Value;

/// Words in key names that stand for a number, where no schema says so.
const WORDS: [&str; 22] = [
    "lr",
    "rate",
    "eps",
    "epsilon",
    "decay",
    "beta",
    "beta1",
    "beta2",
    "ratio",
    "std",
    "theta",
    "alpha",
    "dropout",
    "norm",
    "steps",
    "epochs",
    "size",
    "len",
    "length",
    "rank",
    "scale",
    "temperature",
];

/// Calls `visit` with the dotted path of every scalar under a key. List items have their list's
/// path. Depth and number are bounded by the tree's own limits.
pub(super) fn each_scalar<'d>(root: Value<'d>, visit: &mut dyn FnMut(&str, Value<'d>)) {
    let mut stack = vec![(String::new(), root)];
    // Aliases can make a small tree large; no real config has this many scalars.
    let mut budget = crate::document::limits::NODES;
    while let Some((path, value)) = stack.pop() {
        if budget == 0 {
            return;
        }
        budget -= 1;
        if value.is_mapping() {
            for field in value.fields().into_iter().rev() {
                let dotted =
                    if path.is_empty() { field.key.to_owned() } else { format!("{path}.{}", field.key) };
                stack.push((dotted, field.value));
            }
        } else if value.is_sequence() {
            stack
                .extend(value.items().map(|item| (path.clone(), item)).collect::<Vec<_>>().into_iter().rev());
        } else {
            visit(&path, value);
        }
    }
}

/// Does the key take a number? The framework's schema says so for top-level keys; elsewhere its
/// name does.
pub(super) fn is_number_key(file: &Checked<'_>, path: &str) -> bool {
    let schema = file.framework.and_then(|f| f.schema(file.kind)).and_then(|text| {
        let schema: serde_json::Value = serde_json::from_str(text).ok()?;
        let types = schema.get("properties")?.get(path)?.get("type")?.clone();
        let has =
            |word: &str| types == word || types.as_array().is_some_and(|list| list.iter().any(|t| t == word));
        Some((has("number") || has("integer")) && !has("string"))
    });
    let key = path.rsplit('.').next().unwrap_or(path);
    schema.unwrap_or_else(|| key.split(['_', '-']).any(|word| WORDS.contains(&word)))
}
