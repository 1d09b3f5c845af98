//! A training run to the memory it needs, rank by rank and phase by phase.

mod activations;
mod adapters;
mod allocator;
mod beside;
mod blend;
mod coefficients;
mod communicators;
mod data_parallel;
mod draws;
mod dtensor;
pub mod estimate;
mod exchange;
pub mod expression;
pub mod floor;
mod fsdp_groups;
mod interval;
pub mod ledger;
mod lines;
mod loss;
mod overhead;
mod own_layers;
mod parallel;
pub mod parameters;
mod plan;
mod rank;
mod replay;
pub mod rule_of_thumb;
mod shape;
mod states;
mod streams;
mod timeline;
mod zero_options;

pub use estimate::{Cause, Estimate, Interval, RankTotal, estimate};
pub use floor::{Floor, floor};
pub use ledger::{Component, Driver, Entry, Ledger, Phase, PhaseSet};
pub use parameters::ParameterCount;
