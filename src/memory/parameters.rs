//! Exact parameter counts, by tensor group.

/// How many parameters a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ParameterCount {
    /// All, tied tensors once.
    pub total: u64,
    /// Those that get a gradient.
    pub trainable: u64,
    /// The input embedding (tied: also the head).
    pub embedding: u64,
}
