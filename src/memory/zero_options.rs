//! What ZeRO's options keep beside its stages: ZeRO++'s second copy and its 8-bit and 4-bit buffers,
//! parameters that stay gathered, and what offloading needs in the host's memory.
//!
//! Facts: DeepSpeed 0.19.6 `runtime/zero/partition_parameters.py`, `stage3.py`, `stage_1_and_2.py`,
//! `runtime/comm/coalesced_collectives.py`, `runtime/swap_tensor/`. `round_robin_gradients` changes an
//! order and no size; MiCS gathers in the buffer that ZeRO-3 has.

use super::data_parallel::Strategy;
use super::estimate::{GPUS_PER_HOST, base_bytes};
use super::ledger::{Component, Driver, Phase, PhaseSet};
use super::lines::{Line, Lines, line};
use super::plan::Plan;
use super::rank::Rank;
use super::timeline::WITH_LAYERS;
use crate::run::{Offload, ZeroBuffers};

const DRIVERS: &[Driver] = &[Driver::ZeroBuffers, Driver::DataParallel];
/// The lines of stage 3; a weight has `w` bytes.
pub(crate) fn stage3(plan: &Plan<'_>, w: f64, lines: &mut Lines) {
    let Some(zero) = &plan.run.parallelism.zero else { return };
    let inventory = &plan.shape.inventory;
    let all = inventory.total() as f64;
    let group = zero.secondary.value as f64;
    if group > 1.0 && plan.run.parallelism.offload_parameters.value == Offload::None {
        lines.product(
            Line {
                component: Component::Weights,
                name: "second shard of the weights, within a group (ZeRO++)".into(),
                live: PhaseSet::ALL,
                drivers: DRIVERS,
                source: "DeepSpeed's ds_secondary_tensor: 1/zero_hpz_partition_size of each parameter",
            },
            &[("bytes", w), ("P/zero_hpz_partition_size", all / group)],
        );
    }
    let largest = inventory.largest_tensor() as f64;
    if zero.quantized_weights.value {
        lines.product(
            line(
                Component::Communication,
                "weights gathered in 8 bits, before they are made whole (ZeRO++)",
                WITH_LAYERS,
                DRIVERS,
                "DeepSpeed's _all_gather_coalesced: an int8 buffer of what is fetched at once",
            ),
            &[(
                "max(stage3_prefetch_bucket_size, largest)",
                (zero.prefetch_bucket.value as f64).max(largest),
            )],
        );
    }
    let gpus = plan.run.parallelism.gpus.as_ref().map_or(1, |gpus| gpus.value);
    if zero.quantized_gradients.value && gpus > GPUS_PER_HOST {
        lines.product(
            line(
                Component::Communication,
                "a gradient in 4 bits, sent and received (ZeRO++)",
                &[Phase::BackwardTop, Phase::BackwardBottom, Phase::BackwardEnd],
                DRIVERS,
                "DeepSpeed's all_to_all_quant_reduce, between several nodes",
            ),
            &[("2·0.5", 1.0), ("largest", largest)],
        );
    }
    let stays = persistent(plan, zero);
    lines.product(
        line(
            Component::Weights,
            "parameters that stay gathered, too small to be divided",
            &[Phase::Load, Phase::BackwardEnd, Phase::OptimizerStep, Phase::Evaluation],
            DRIVERS,
            "DeepSpeed's ds_persist: at most stage3_param_persistence_threshold elements",
        ),
        &[("bytes", w), ("P_small", stays)],
    );
}

/// Parameters in tensors of at most `stage3_param_persistence_threshold` elements.
pub(crate) fn persistent(plan: &Plan<'_>, zero: &ZeroBuffers) -> f64 {
    let threshold = zero.persistence_threshold.value.saturating_add(1);
    plan.shape.inventory.parameters_in_tensors_smaller_than(threshold) as f64
}

/// Bytes of the host for one rank's offloaded weights, gradients and states.
pub(crate) fn host(plan: &Plan<'_>, rank: &Rank) -> f64 {
    let parallelism = &plan.run.parallelism;
    let (states, weights) = (parallelism.offload_optimizer.value, parallelism.offload_parameters.value);
    let trained = plan.groups.total;
    let w = plan.run.gathered_bytes();
    let (stage, shards) = match rank.strategy {
        Strategy::Zero { stage, shards } => (stage, shards),
        Strategy::Single | Strategy::Ddp => (0, 1.0),
        Strategy::Fsdp { shards, .. } | Strategy::Megatron { shards } => (0, shards),
    };
    let mine = trained / shards;
    let zero = parallelism.zero.as_ref().filter(|_| stage > 0);
    let mut bytes = match (states, zero) {
        (Offload::None, _) => 0.0,
        (Offload::Cpu, Some(zero)) => {
            // fp32 weights and gradients, 16-bit gradients or weights; two moments.
            let pinned = |bytes: f64| if zero.pinned.value { power_of_two(bytes) } else { bytes };
            if stage == 3 {
                let group = mine.min(zero.sub_group.value as f64).max(1.0);
                let groups = mine / group;
                4.0 * mine + 8.0 * mine + groups * pinned(4.0 * group) + pinned(w * mine)
            } else {
                let largest = plan.trained.largest;
                2.0 * pinned(4.0 * mine) + 8.0 * mine + pinned(w * mine) + pinned(w * largest)
            }
        }
        // FSDP's shards are counted with the weights; gradients and states beside them.
        (Offload::Cpu, None) if weights == Offload::Cpu => {
            (plan.gradient * trained + plan.optimizer.state) / shards
        }
        (Offload::Cpu, None) => 16.0 * mine,
        // Through buffers of the largest sub-group, fp32.
        (Offload::Nvme, Some(zero)) => {
            let group = mine.min(zero.sub_group.value as f64);
            zero.nvme_states.value as f64 * power_of_two(4.0 * group) + w * mine
        }
        (Offload::Nvme, None) => 0.0,
    };
    let all = plan.shape.inventory.total() as f64;
    bytes += match (weights, zero) {
        (Offload::None, _) | (Offload::Nvme, None) => 0.0,
        (Offload::Cpu, zero) => {
            let group = zero.map_or(1.0, |zero| zero.secondary.value as f64);
            let second = if group > 1.0 { w * all / group } else { 0.0 };
            base_bytes(plan) / shards + second
        }
        (Offload::Nvme, Some(zero)) => {
            let kept = (zero.nvme_in_cpu.value as f64).min(all / shards);
            power_of_two(w * zero.nvme_parameters.value as f64) + power_of_two(w * kept)
        }
    };
    bytes
}

/// What a pinned block of `bytes` takes: PyTorch rounds up (`ATen/core/CachingHostAllocator.h`).
fn power_of_two(bytes: f64) -> f64 {
    if bytes <= 1.0 { bytes } else { 2.0_f64.powf(bytes.log2().ceil()) }
}

#[cfg(test)]
mod tests {
    use super::power_of_two;

    #[test]
    fn pinned_blocks_are_powers_of_two() {
        assert_eq!(power_of_two(0.0), 0.0);
        assert_eq!(power_of_two(4e9), 4_294_967_296.0);
        assert_eq!(power_of_two(4_294_967_296.0), 4_294_967_296.0);
        assert!(power_of_two(1e30) >= 1e30);
    }
}
