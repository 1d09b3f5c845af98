//! DeepSpeed's ZeRO, stages 1 to 3.

use super::{SHARDED, adapters, layer_bytes, shard_of_weights, sharded_optimizer, states_shard};
use crate::memory::expression::Symbol;
use crate::memory::ledger::{Component, Driver, Phase, PhaseSet};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::states::{self, OptimizerMemory, quantized_bytes};
use crate::memory::timeline::{self, AFTER_LOAD, STEP, WITH_LAYERS};
use crate::memory::zero_options;
use crate::run::{Offload, Optimizer, ZeroBuffers};

const ZERO: &str = "DeepSpeed ZeRO, traced";

const OFFLOAD: &str = "DeepSpeed keeps gradients' parts where the optimizer is (stage_1_and_2.py, stage3.py)";

/// DeepSpeed steps on flat fp32 masters, whatever the model's dtype.
pub(crate) fn zero_optimizer(plan: &Plan<'_>) -> OptimizerMemory {
    let run = plan.run;
    states::optimizer(run.optimizer.value, run.optimizer_implementation.value, &plan.trained, 4.0, 4.0)
        .unwrap_or_else(|| plan.optimizer.clone())
}

pub(super) fn buffers(plan: &Plan<'_>) -> (f64, f64, f64) {
    let zero = plan.run.parallelism.zero.as_ref();
    let get = |f: fn(&ZeroBuffers) -> u64, default: f64| zero.map_or(default, |z| f(z) as f64);
    let bucket = get(|z| z.reduce_bucket.value, 5e8);
    let twice = if zero.is_some_and(|z| z.overlap_comm.value) { 2.0 } else { 1.0 };
    (bucket, bucket * twice, get(|z| z.max_live_parameters.value, 1e9))
}

pub(super) fn masters(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    if plan.run.gathered_bytes() < 4.0 && !rank.optimizer_on_host {
        lines.product(
            Line {
                component: Component::Optimizer,
                name: "shard of the fp32 master weights".into(),
                live: PhaseSet::ALL,
                drivers: SHARDED,
                source: ZERO,
            },
            &[("4", 4.0), ("P_trained/W", plan.groups.total / shards)],
        );
    }
}

/// Stages 1 and 2: whole weights; gradients leave through buckets of the reduction.
pub(super) fn zero12(plan: &Plan<'_>, rank: &Rank, stage: u8, shards: f64, lines: &mut Lines) {
    let (w, total) = (plan.run.gathered_bytes(), plan.groups.total);
    let accumulated = plan.run.gradient_accumulation_steps.value > 1;
    whole_weights(plan, w, lines);
    masters(plan, rank, shards, lines);
    let memory = zero_optimizer(plan);
    sharded_optimizer(plan, rank, shards, &memory, lines);
    let (_, bucket, _) = buffers(plan);
    let buckets = w * bucket;
    let whole = stage == 1 && accumulated;
    let gradients = if whole { total } else { total / shards };
    let live: &[Phase] = if accumulated { STEP } else { &[Phase::BackwardEnd] };
    let formula = if whole { "P_trained" } else { "P_trained/W" };
    if rank.optimizer_on_host && !whole {
        // Each gradient passes through one buffer on its way to the host.
        lines.product(
            line(
                Component::Gradients,
                "buffer for a gradient on its way to the host",
                STEP,
                SHARDED,
                OFFLOAD,
            ),
            &[("bytes", w), ("largest tensor", plan.trained.largest)],
        );
    } else {
        lines.product(
            line(Component::Gradients, "gradients of this rank's part", live, SHARDED, ZERO),
            &[("bytes", w), (formula, gradients)],
        );
    }
    // Made whole, however little is trained, when the first gradient (the head's) is there.
    let live: &[Phase] =
        if whole { STEP } else { &[Phase::BackwardTop, Phase::BackwardBottom, Phase::BackwardEnd] };
    lines.worded(
        line(
            Component::Communication,
            "buckets of the gradient reduction",
            live,
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        "bytes·reduce_bucket_size (twice with overlap_comm)",
        buckets,
    );
    if plan.adapters.is_none() {
        // The embedding's gradient comes last; tied, both halves and their sums are there at once.
        let copies = match (plan.groups.tied, accumulated) {
            (true, true) => 4.0,
            (true, false) => 3.0,
            (false, _) => 1.0,
        };
        let matrix = plan.shape.get(Symbol::Vocabulary) * plan.shape.get(Symbol::Hidden);
        lines.product(
            line(
                Component::Temporaries,
                "the embedding's gradient",
                &[Phase::BackwardEnd],
                &[Driver::Model],
                ZERO,
            ),
            &[("copies", copies), ("bytes", w), ("V·d", matrix)],
        );
    }
    if !rank.optimizer_on_host {
        step_gradients(plan, shards, total / shards, lines);
    }
}

fn whole_weights(plan: &Plan<'_>, w: f64, lines: &mut Lines) {
    if plan.adapters.is_some() {
        timeline::weights(plan, lines);
        return;
    }
    lines.product(
        Line {
            component: Component::Weights,
            name: "weights".into(),
            live: PhaseSet::ALL,
            drivers: &[Driver::Model, Driver::Compute],
            source: ZERO,
        },
        &[("bytes", w), ("P", plan.shape.inventory.total() as f64)],
    );
}

/// The step upcasts this rank's gradients to fp32.
fn step_gradients(plan: &Plan<'_>, shards: f64, elements: f64, lines: &mut Lines) {
    if plan.run.gathered_bytes() < 4.0 && elements > 0.0 && shards >= 1.0 {
        lines.product(
            line(
                Component::Gradients,
                "fp32 gradients of this rank's part",
                &[Phase::OptimizerStep],
                SHARDED,
                ZERO,
            ),
            &[("4", 4.0), ("P_trained/W", elements)],
        );
    }
}

/// Stage 3: shards of everything, parameters gathered up to `max_live_parameters`.
pub(super) fn zero3(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    let (w, total) = (plan.run.gathered_bytes(), plan.groups.total);
    let on_host = plan.run.parallelism.offload_parameters.value != Offload::None;
    if !on_host {
        shard_of_weights(plan, w, shards, ZERO, lines);
    }
    adapters(plan, shards, lines);
    masters(plan, rank, shards, lines);
    let (bucket, ..) = buffers(plan);
    // `grad_partitions_flat_buffer` is where the optimizer is; it and the bucket are made once.
    if !rank.optimizer_on_host {
        lines.product(
            line(Component::Gradients, "shard of the gradients", AFTER_LOAD, SHARDED, ZERO),
            &[("bytes", w), ("P_trained/W", total / shards)],
        );
    }
    lines.product(
        line(
            Component::Communication,
            "reduction bucket",
            AFTER_LOAD,
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        &[("bytes", w), ("reduce_bucket_size", bucket)],
    );
    zero_options::stage3(plan, w, lines);
    lines.product(
        line(
            Component::Communication,
            "gathered weights",
            WITH_LAYERS,
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        &[("bytes", layer_bytes(plan, w)), ("min(P, max_live_parameters)", live_elements(plan))],
    );
    whole_at_load(plan, if on_host { 0.0 } else { 1.0 / shards }, lines);
    zero3_step(plan, rank, shards, lines);
}

/// Elements that are gathered at once while layers run.
pub(super) fn live_elements(plan: &Plan<'_>) -> f64 {
    let (_, _, live) = buffers(plan);
    let stays = plan.run.parallelism.zero.as_ref().map_or(0.0, |z| zero_options::persistent(plan, z));
    (plan.shape.inventory.total() as f64).min(live.max(stays))
}

/// A quantised model is not built under `zero.Init`: each rank has it whole on its GPU until
/// DeepSpeed's engine takes it apart. `kept` is the part that stays.
fn whole_at_load(plan: &Plan<'_>, kept: f64, lines: &mut Lines) {
    let quantised = quantized_bytes(plan.run.quantization.value).filter(|_| plan.adapters.is_some());
    let Some((bytes, formula, _)) = quantised else { return };
    lines.product(
        line(
            Component::Weights,
            "quantised weights, whole until DeepSpeed shards them",
            &[Phase::Load],
            &[Driver::Quantization, Driver::Model],
            "transformers enters zero.Init unless the model is quantised; DeepSpeed's engine moves it to its device",
        ),
        &[(&format!("({formula})"), bytes), ("P_linear", plan.quantized()), ("1 − 1/W", 1.0 - kept)],
    );
}

/// The step goes over groups of at most `sub_group_size` elements, fp32 gradients and temporaries.
fn zero3_step(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    if rank.optimizer_on_host {
        return;
    }
    let memory = zero_optimizer(plan);
    states_shard(&memory, memory.state / shards, lines);
    let group = plan.run.parallelism.zero.as_ref().map_or(1e9, |z| z.sub_group.value as f64);
    let each = if matches!(plan.run.optimizer.value, Optimizer::Adam | Optimizer::Adamw) { 8.0 } else { 4.0 };
    lines.product(
        line(
            Component::Temporaries,
            "fp32 gradients and temporaries of one sub-group",
            &[Phase::OptimizerStep],
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        &[("bytes", each), ("min(sub_group_size, P/W)", (plan.groups.total / shards).min(group))],
    );
}
