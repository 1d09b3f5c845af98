//! Model parallelism: which part of the model each distinct rank holds, and how much of a layer.

mod megatron;
mod moments;
mod slice;
mod tensor;

pub(crate) use megatron::{layer as megatron_layer, loss as megatron_loss};
pub(crate) use moments::{Moment, Part};
pub(crate) use slice::{Degrees, Slice, slices};
pub(crate) use tensor::{dimensions, gathered_logits, inventory, sequence_parallel};
