//! NCCL's communicators: one for each process group that a run makes and uses, outside the allocator.
//!
//! A group's buffers are there from its first exchange on, however small that is.

use super::estimate::GPUS_PER_HOST;
use super::ledger::{Component, Driver, PhaseSet};
use super::lines::{Line, Lines};
use super::parallel::Degrees;
use crate::run::{ContextExchange, DataParallel, ModelCode, TrainingRun};

/// A communicator of two ranks, and of more: four A100 on NVLink, an all-reduce of 4 MB over every
/// group (NVIDIA/nccl#964).
const OF_TWO: f64 = 544.0 * 1_048_576.0;
const OF_MORE: f64 = 688.0 * 1_048_576.0;
/// Buffers of an all-to-all for one peer: 3.28 GB for seven on H100 (NVIDIA/nccl#1685), 1.15 GiB for
/// three (NVIDIA/Megatron-LM#6392).
const A_PEER: f64 = 0.44e9;
/// The one buffer through which a rank sends to all peers of other hosts: 512 MiB (NVIDIA/nccl#2366); that
/// it is shared: NVIDIA/nccl#1450.
const OTHER_HOSTS: f64 = 512.0 * 1_048_576.0;

/// A process group, as one rank sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Group {
    /// Who is in it.
    name: &'static str,
    /// How many.
    ranks: u64,
    /// Every rank sends to every other.
    all_to_all: bool,
    driver: Driver,
}

impl Group {
    fn of(name: &'static str, ranks: u64, driver: Driver) -> Group {
        Group { name, ranks, all_to_all: false, driver }
    }

    /// Others on this rank's host.
    fn peers(self) -> f64 {
        (self.ranks.min(GPUS_PER_HOST) - 1) as f64
    }

    fn bytes(self) -> f64 {
        match self.ranks {
            0 | 1 => 0.0,
            n if self.all_to_all && n > GPUS_PER_HOST => self.peers() * A_PEER + OTHER_HOSTS,
            _ if self.all_to_all => self.peers() * A_PEER,
            2 => OF_TWO,
            _ => OF_MORE,
        }
    }
}

/// The groups of a run on `gpus` ranks that have more than one member.
pub(crate) fn groups(run: &TrainingRun, gpus: u64) -> Vec<Group> {
    let degrees = Degrees::of(run);
    let parallel = &run.parallelism;
    let replicas = degrees.replicas(gpus);
    let data = replicas / degrees.context.min(replicas).max(1);
    let shard = parallel.shard_group.as_ref().map_or(replicas, |g| g.value.clamp(1, replicas));
    let exchange = parallel.context_exchange.value == ContextExchange::AllToAll;
    let zero = matches!(
        parallel.data_parallel.value,
        DataParallel::Zero1 | DataParallel::Zero2 | DataParallel::Zero3
    );
    let titan = run.model_code.value == ModelCode::Torchtitan;
    let mut of_dimensions = vec![
        Group::of("data-parallel ranks that share a copy", shard, Driver::DataParallel),
        Group::of("replicas of the shards", replicas / shard.max(1), Driver::DataParallel),
        Group::of("tensor-parallel ranks", degrees.tensor, Driver::Tensor),
        Group::of("pipeline stages", degrees.pipeline, Driver::Pipeline),
        Group {
            all_to_all: exchange,
            ..Group::of("context-parallel ranks", degrees.context, Driver::Context)
        },
        Group { all_to_all: true, ..Group::of("expert-parallel ranks", degrees.expert, Driver::Expert) },
    ];
    of_dimensions.retain(|group| group.ranks > 1);
    let several = of_dimensions.len() > 1;
    let mut groups = of_dimensions;
    if titan {
        // `ParallelDims` makes a group for each mesh, equal ones again: token counts are summed over
        // `batch`, losses over `loss`.
        groups.push(Group::of("ranks that count tokens", data, Driver::DataParallel));
        groups.push(Group::of("ranks that sum losses", replicas, Driver::DataParallel));
    }
    if let Some(options) = parallel.zero.as_ref().filter(|_| zero) {
        let second = options.secondary.value;
        groups.push(Group::of(
            "ranks that share the second copy of the weights",
            second,
            Driver::ZeroBuffers,
        ));
        if options.quantized_gradients.value && gpus > GPUS_PER_HOST {
            // `_get_local_all_to_all_group`: one within a node, one across.
            let of = |name, ranks| Group { all_to_all: true, ..Group::of(name, ranks, Driver::ZeroBuffers) };
            groups.push(of("ranks of a node that exchange quantised gradients", GPUS_PER_HOST));
            groups.push(of("nodes that exchange quantised gradients", gpus / GPUS_PER_HOST));
        }
    }
    // A single dimension is the world's own group, but for those who clone it: DeepSpeed
    // (`_clone_world_group`), Megatron (`new_group` for every kind) and torchtitan.
    let cloned = zero || titan || run.model_code.value == ModelCode::Megatron;
    if several || cloned {
        groups.push(Group::of("all ranks", gpus, Driver::Gpus));
    }
    groups.retain(|group| group.ranks > 1);
    groups
}

/// What they come to, in bytes.
pub(crate) fn bytes(groups: &[Group]) -> f64 {
    groups.iter().map(|group| group.bytes()).sum()
}

/// A line for each.
pub(crate) fn lines(groups: &[Group], lines: &mut Lines) {
    for group in groups {
        let line = Line {
            component: Component::Context,
            name: format!("NCCL: {}", group.name),
            live: PhaseSet::ALL,
            drivers: &[group.driver],
            source: "measured: NVIDIA/nccl#964; all-to-all NVIDIA/nccl#1685, #1450, #2366",
        };
        if group.all_to_all && group.ranks > GPUS_PER_HOST {
            lines.worded(line, "peers·0.44 GB + 512 MiB for other hosts", group.bytes());
        } else if group.all_to_all {
            lines.product(line, &[("peers", group.peers()), ("0.44 GB", A_PEER)]);
        } else {
            let words = if group.ranks == 2 { "544 MiB, 2 ranks" } else { "688 MiB, more than 2 ranks" };
            lines.worded(line, words, group.bytes());
        }
    }
}
