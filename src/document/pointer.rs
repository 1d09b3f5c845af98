//! JSON pointer to node: where the thing that a schema error names stands in the file.

use super::Value;

/// Walks `pointer` (RFC 6901) from `root`; `None` when a step does not exist.
pub fn locate<'d>(root: Value<'d>, pointer: &str) -> Option<Value<'d>> {
    pointer.split('/').skip(1).try_fold(root, |value, step| {
        let step = step.replace("~1", "/").replace("~0", "~");
        if value.is_sequence() { value.items().nth(step.parse().ok()?) } else { value.get(&step) }
    })
}
