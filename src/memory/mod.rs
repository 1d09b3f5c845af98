//! A training run to the memory it needs, rank by rank and phase by phase.

pub mod estimate;
pub mod ledger;
pub mod parameters;
pub mod rule_of_thumb;

pub use estimate::{Cause, Estimate, Interval, RankTotal, estimate};
pub use ledger::{Component, Driver, Entry, Ledger, Phase, PhaseSet};
pub use parameters::ParameterCount;
