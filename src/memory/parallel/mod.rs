//! Model parallelism: which part of the model each distinct rank holds, and how much of a layer.

mod megatron;
mod slice;
mod tensor;

pub(crate) use megatron::{layer as megatron_layer, loss as megatron_loss};
pub(crate) use slice::{Degrees, Slice, slices};
pub(crate) use tensor::{dimensions, gathered_logits, inventory, sequence_parallel};
