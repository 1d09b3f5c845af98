//! What one rank holds: the view that the ledger is written for.

use super::data_parallel::Strategy;
use super::plan::Plan;

/// A distinct rank.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rank {
    /// `every rank`, `pipeline stage 0`.
    pub(crate) name: String,
    /// Layers on it.
    pub(crate) layers: f64,
    /// Ranks that share one copy of the weights.
    pub(crate) weight_shards: f64,
    /// How states are spread.
    pub(crate) strategy: Strategy,
    /// Optimizer states live in the host's memory.
    pub(crate) optimizer_on_host: bool,
}

impl Rank {
    /// The rank that holds the plan's slice.
    pub(crate) fn of(plan: &Plan<'_>, strategy: Strategy) -> Rank {
        let weight_shards = match strategy {
            Strategy::Fsdp { shards, .. } | Strategy::Zero { stage: 3, shards } => shards,
            _ => 1.0,
        };
        Rank {
            name: if !plan.slice.name.is_empty() {
                plan.slice.name.clone()
            } else if strategy == Strategy::Single {
                "the GPU".into()
            } else {
                "every rank".into()
            },
            layers: plan.layers(),
            weight_shards,
            strategy,
            optimizer_on_host: plan.run.parallelism.offload_optimizer.value != crate::run::Offload::None,
        }
    }
}
