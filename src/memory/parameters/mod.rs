//! Exact parameter counts, by tensor.
//!
//! [`Inventory::of`] lists every parameter tensor of a model as transformers 5 builds it: name,
//! shape, how many layers repeat it. Everything else about parameters is a sum over that list.

mod build;
mod decoders;
mod deepseek;
mod encoders;
mod experts;
mod gemma;
mod gpt;
mod inventory;
pub mod lora;
mod mixers;
pub(crate) mod patterns;
mod vision;

pub use inventory::{Inventory, LayerKind, Linear, LinearKind, Place, Role, Tensor};

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
