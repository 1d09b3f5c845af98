//! PyTorch's FSDP 1 and 2, hybrid shards included.

use super::{
    SHARDED, adapters, deferred, layer_bytes, reduction, shard_of_weights, sharded_gradients,
    sharded_optimizer,
};
use crate::memory::dtensor;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::fsdp_groups::{self, Groups};
use crate::memory::ledger::{Component, Driver, Phase};
use crate::memory::lines::{Lines, line};
use crate::memory::pipeline;
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::memory::timeline::{AFTER_LOAD, SAVED, WITH_LAYERS};
use crate::run::{Checkpointing, KeptBuffers, ModelCode, Offload};

pub(super) const FSDP: &str = "PyTorch FSDP, traced";

/// Parameters of one wrapped layer, and outside the layers.
pub(super) fn wrapped(plan: &Plan<'_>) -> (f64, f64) {
    let inventory = &plan.shape.inventory;
    let root = inventory.language().saturating_sub(inventory.in_layers());
    (inventory.largest_layer() as f64, root as f64 + inventory.extra() as f64)
}

pub(super) fn fsdp(plan: &Plan<'_>, rank: &Rank, shards: f64, reshard: bool, lines: &mut Lines) {
    let run = plan.run;
    let (layer, root) = wrapped(plan);
    let stored = run.weights.value.bytes() as f64;
    let compute = run.gathered_bytes();
    let reduce = reduction(run);
    let inventory = &plan.shape.inventory;
    let embedding = inventory.embedding() as f64;
    let apart = run.parallelism.ends_apart.value && plan.adapters.is_none() && !plan.groups.tied;
    // CPU offload keeps the shards, their gradients and the step in the host's memory.
    if run.parallelism.offload_parameters.value == Offload::None {
        shard_of_weights(plan, stored, shards, FSDP, lines);
        adapters(plan, shards, lines);
        // Megatron's FSDP, or an optimizer that keeps wide copies of narrow weights.
        if run.master_weights.value && plan.weight < 4.0 {
            let masters = "shard of the fp32 master weights";
            let drivers = &[Driver::Gpus, Driver::DataParallel, Driver::Weights];
            lines.product(
                line(
                    Component::Optimizer,
                    masters,
                    &Phase::ALL,
                    drivers,
                    "copies of the shards that the step is made on",
                ),
                &[("4", 4.0), ("P_trained/W", (plan.groups.total + plan.spread_experts) / shards)],
            );
        }
        sharded_gradients(plan, shards, if apart { embedding } else { root }, lines);
    }
    sharded_optimizer(plan, rank, shards, &plan.optimizer, lines);
    if pipeline::waits(plan, rank) {
        pipeline::sharded(plan, lines);
        return;
    }
    if apart {
        let head = (root - embedding).max(0.0);
        let groups = Groups { compute, reduce, kept: !reshard, layer, embedding, head };
        fsdp_groups::lines(plan, &groups, lines);
        return;
    }
    // Quantised layers are gathered as they are stored.
    let gathered_part = layer_bytes(plan, compute) / compute;
    let all = root + plan.shape.inventory.in_layers() as f64 * gathered_part;
    let layer = layer * gathered_part;
    let kept = run.parallelism.kept_buffers;
    if kept != KeptBuffers::None && plan.adapters.is_none() {
        kept_buffers(plan, kept, (compute, reduce), lines);
        return;
    }
    if reshard {
        // torchtune's last layer has been given back when the head runs.
        let (name, formula, gathered) = if run.model_code.value == ModelCode::Torchtune {
            ("gathered weights: root group", "P_r", root)
        } else {
            ("gathered weights: root group and one layer", "P_r + P_l", root + layer)
        };
        let head = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward];
        lines.product(
            line(Component::Communication, name, head, SHARDED, FSDP),
            &[("bytes", compute), (formula, gathered)],
        );
        lines.product(
            line(
                Component::Communication,
                "gathered weights: root group and the last layer",
                &[Phase::BackwardTop],
                SHARDED,
                FSDP,
            ),
            &[("bytes", compute), ("P_r + P_l", root + layer)],
        );
    } else {
        lines.product(
            line(Component::Communication, "gathered weights, kept until backward", SAVED, SHARDED, FSDP),
            &[("bytes", compute), ("P", all)],
        );
    }
    let drivers = &[Driver::DataParallel, Driver::Model];
    let (name, formula, gathered) = if gathers_late(plan) {
        ("gathered weights: root group and a layer, none ahead", "P_r + P_l", root + layer)
    } else {
        ("gathered weights: root group, a layer and the next", "P_r + 2·P_l", root + 2.0 * layer)
    };
    lines.product(
        line(Component::Communication, name, &[Phase::BackwardBottom], drivers, FSDP),
        &[("bytes", compute), (formula, gathered)],
    );
    if plan.adapters.is_some() {
        held_by_hooks(plan, lines);
        return;
    }
    let head = plan.shape.get(Symbol::Vocabulary) * plan.shape.get(Symbol::Hidden);
    lines.product(
        line(
            Component::Gradients,
            "the head's gradient, not yet reduced",
            &[Phase::BackwardTop, Phase::BackwardBottom],
            drivers,
            FSDP,
        ),
        &[("bytes", compute), ("V·d", head)],
    );
    lines.product(
        line(
            Component::Communication,
            "a layer's gradients being reduced",
            &[Phase::BackwardBottom],
            drivers,
            FSDP,
        ),
        &[("bytes", reduce), ("P_l", layer)],
    );
    lines.product(
        line(
            Component::Communication,
            "the root group's gradients and their reduction",
            &[Phase::BackwardEnd],
            drivers,
            FSDP,
        ),
        &[root_reduction(plan, compute, reduce, shards), ("P_r", root)],
    );
    if let Some(whole) = dtensor::while_reduced(plan, compute) {
        // Gathered weights, the other gradients, the embedding's whole one and its rows.
        let held = whole + compute * (2.0 * root - embedding);
        let counted = root_reduction(plan, compute, reduce, shards).1 * root;
        lines.worded(
            line(
                Component::Communication,
                "the embedding's gradient, whole on each rank",
                &[Phase::BackwardEnd],
                &[Driver::Tensor, Driver::Model],
                FSDP,
            ),
            "bytes·(V·d + 2·P_r) beyond the reduction",
            (held - counted).max(0.0),
        );
    }
}

/// Megatron's FSDP takes turns with two buffers of the largest layer, for weights and for gradients,
/// which its products write into; what is no layer has buffers of its own, or memory as it is needed.
fn kept_buffers(plan: &Plan<'_>, kept: KeptBuffers, (compute, reduce): (f64, f64), lines: &mut Lines) {
    const SOURCE: &str = "Megatron-FSDP's FixedPoolAllocator, MaxPoolAllocator and their persistent fallback";
    let (layer, root) = wrapped(plan);
    let trained = (root - plan.shape.inventory.extra() as f64).max(0.0);
    let drivers = &[Driver::DataParallel, Driver::Model];
    let name = "two buffers of a layer's weights and gradients, kept";
    lines.product(
        line(Component::Communication, name, AFTER_LOAD, drivers, SOURCE),
        &[("bytes of weight and gradient", compute + reduce), ("2·P_l", 2.0 * layer)],
    );
    let (weights, gradients) = match kept {
        KeptBuffers::All => (AFTER_LOAD, AFTER_LOAD),
        KeptBuffers::Layers | KeptBuffers::None => (WITH_LAYERS, &[Phase::BackwardEnd][..]),
    };
    lines.product(
        line(Component::Communication, "gathered weights: root group", weights, drivers, SOURCE),
        &[("bytes", compute), ("P_r", root)],
    );
    let name = "the root group's gradients, whole";
    lines.product(
        line(Component::Communication, name, gradients, drivers, SOURCE),
        &[("bytes", reduce), ("P_r, trained", trained)],
    );
}

/// A reentrant checkpoint around FSDP1's units: their first forward records no graph, so that no unit
/// is known to need its weights in the backward, and none is gathered ahead.
pub(crate) fn gathers_late(plan: &Plan<'_>) -> bool {
    let parallel = &plan.run.parallelism;
    parallel.fsdp.as_ref().is_some_and(|fsdp| fsdp.version.value == 1)
        && parallel.checkpoints_around_units.value
        && plan.run.reentrant_checkpointing.value
        && plan.run.activation_checkpointing.value == Checkpointing::Full
}

/// FSDP1 reshards a frozen unit once the gradients of its inputs are there, by a hook on those inputs
/// that stays until the backward ends. A reentrant checkpoint around the unit makes them leaves: each
/// hook then holds an input and its gradient.
pub(crate) fn hooks_hold_inputs(plan: &Plan<'_>) -> bool {
    gathers_late(plan) && plan.adapters.is_some()
}

fn held_by_hooks(plan: &Plan<'_>, lines: &mut Lines) {
    if !hooks_hold_inputs(plan) {
        return;
    }
    let gradient = Sum::term(plan.residual(), &[Symbol::Tokens, Symbol::Hidden]);
    let others = (plan.layers() - 1.0).max(0.0);
    lines.sum(
        line(
            Component::Activations,
            "inputs of the layers above and their gradients, held by FSDP's hooks",
            &[Phase::BackwardBottom, Phase::BackwardEnd],
            &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::DataParallel],
            "FSDP1's _register_post_backward_reshard_only_hook on a checkpoint's detached inputs, traced",
        ),
        Some(("(n − 1)", others)),
        &plan.activations.checkpoint.clone().plus(&gradient),
        &plan.shape.symbols,
    );
}

/// Bytes of a root parameter when its gradient is reduced. FSDP2 copies each gradient into the
/// reduction's input. FSDP1 puts them together in a flat one while the weights are still gathered,
/// then casts that, and the reduced shard comes beside it.
fn root_reduction(plan: &Plan<'_>, compute: f64, reduce: f64, shards: f64) -> (&'static str, f64) {
    let flat = plan.run.parallelism.fsdp.as_ref().is_some_and(|fsdp| fsdp.version.value == 1);
    let cast = if reduce == compute { 0.0 } else { reduce };
    if flat {
        let together = 3.0 * compute;
        let waits = deferred(plan).is_some();
        let reduced = if waits { 0.0 } else { compute + cast + reduce / shards };
        return ("bytes of weight, gradients, flat gradient", together.max(reduced));
    }
    if deferred(plan).is_some() {
        return ("bytes of its new gradient", compute);
    }
    ("(compute + reduce bytes)", compute + reduce)
}
