//! Parameters that are trained by name: regular expressions from the start of a name, as Python's
//! `re.match` takes them.

use regex::{Regex, RegexBuilder};

use super::{Inventory, Place, Role, Tensor};

/// How many parameters match, and where their gradients appear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    /// All.
    pub(crate) total: u64,
    /// In the layers.
    pub(crate) layers: u64,
    /// The head's own matrix.
    pub(crate) head: u64,
    /// The token embedding.
    pub(crate) embedding: u64,
}

/// Bytes that a compiled pattern may take: patterns come from input.
const PATTERN_BYTES: usize = 1 << 20;

/// Compiles patterns; `None`: one of them is none.
pub(crate) fn compile(patterns: &[String]) -> Option<Vec<Regex>> {
    patterns
        .iter()
        .map(|p| RegexBuilder::new(&format!("^(?:{p})")).size_limit(PATTERN_BYTES).build().ok())
        .collect()
}

/// Counts what matches; tied tensors have no name of their own.
pub(crate) fn matched(inventory: &Inventory, patterns: &[Regex]) -> Matched {
    let mut sum = Matched::default();
    for tensor in inventory.tensors().iter().filter(|t| !t.tied) {
        let count = copies_that_match(tensor, patterns);
        let parameters = count.saturating_mul(tensor.elements());
        sum.total = sum.total.saturating_add(parameters);
        match (tensor.place, tensor.role) {
            (Place::Layers { .. } | Place::Encoder { .. }, _) => sum.layers += parameters,
            (_, Role::Head) => sum.head += parameters,
            (_, Role::InputEmbedding) => sum.embedding += parameters,
            _ => {}
        }
    }
    sum
}

fn copies_that_match(tensor: &Tensor, patterns: &[Regex]) -> u64 {
    let any = |name: &str| patterns.iter().any(|pattern| pattern.is_match(name));
    match tensor.place {
        Place::Layers { first, count } | Place::Encoder { first, count } if count > 0 => {
            let each = tensor.copies / count;
            let named = |layer: u64| any(&tensor.name.replacen('*', &layer.to_string(), 1));
            each * (first..first + count).filter(|layer| named(*layer)).count() as u64
        }
        _ if any(&tensor.name) => tensor.copies,
        _ => 0,
    }
}
