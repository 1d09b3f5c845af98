//! States, gradients and communication buffers of data-parallel training: DDP, FSDP, ZeRO.
//!
//! In the formulas `W` is the number of ranks that share one copy, `P_r` the parameters outside
//! the wrapped layers (embedding, head, last norm: FSDP's root group), `P_l` those of one layer.

mod alone;
mod fsdp;
mod megatron;
mod zero;

use super::ledger::{Component, Driver, Phase, PhaseSet};
use super::lines::{Line, Lines, line};
use super::parallel::Degrees;
use super::pipeline;
use super::plan::Plan;
use super::rank::Rank;
use super::states::{OptimizerMemory, quantized_bytes};
use super::timeline::{self, AFTER_LOAD, BEFORE_STEP, STEP};
use crate::run::{DataParallel, ModelCode, Parallelism, TrainingRun};
pub(crate) use alone::{forward_alone, gathered_to_generate};
use fsdp::{FSDP, fsdp};
pub(crate) use fsdp::{gathers_late, hooks_hold_inputs};
use megatron::megatron;
pub(crate) use zero::zero_optimizer;
use zero::{zero3, zero12};

/// How states are spread over data-parallel ranks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Strategy {
    /// One copy, nothing to exchange.
    Single,
    /// Whole copies, gradients exchanged in buckets.
    Ddp,
    /// Everything in shards, gathered layer by layer.
    Fsdp {
        /// Ranks that share one copy.
        shards: f64,
        /// Layers are freed after their forward.
        reshard: bool,
    },
    /// DeepSpeed's stages.
    Zero {
        /// 1 to 3.
        stage: u8,
        /// Ranks that share one copy.
        shards: f64,
    },
    /// Megatron's buffers: whole weights, whole fp32 gradients, masters and states in shards.
    Megatron {
        /// Ranks that share one copy of masters and states.
        shards: f64,
    },
}

impl Strategy {
    /// Of a run; `Err` says what is not modelled.
    pub(crate) fn of(run: &TrainingRun) -> Result<Strategy, String> {
        let parallel = &run.parallelism;
        let gpus = parallel.gpus.as_ref().map_or(1, |g| g.value).max(1);
        let ranks = Degrees::of(run).replicas(gpus);
        let shards = shards(parallel, ranks);
        let megatron = run.model_code.value == ModelCode::Megatron;
        Ok(match parallel.data_parallel.value {
            DataParallel::None | DataParallel::Ddp if megatron => Strategy::Megatron { shards: 1.0 },
            DataParallel::None => Strategy::Single,
            DataParallel::Ddp if ranks == 1 => Strategy::Single,
            DataParallel::Ddp => Strategy::Ddp,
            DataParallel::Fsdp | DataParallel::Hsdp => Strategy::Fsdp {
                shards,
                reshard: parallel.fsdp.as_ref().is_none_or(|f| f.reshard_after_forward.value),
            },
            DataParallel::Zero1 => Strategy::Zero { stage: 1, shards },
            DataParallel::Zero2 => Strategy::Zero { stage: 2, shards },
            DataParallel::Zero3 => Strategy::Zero { stage: 3, shards },
            DataParallel::MegatronDistributed if megatron || run.lora.is_none() => {
                Strategy::Megatron { shards }
            }
            DataParallel::MegatronDistributed => {
                return Err(
                    "adapters under Megatron's distributed optimizer are modelled for its own layers only"
                        .into(),
                );
            }
        })
    }
}

fn shards(parallel: &Parallelism, ranks: u64) -> f64 {
    parallel.shard_group.as_ref().map_or(ranks, |g| g.value.clamp(1, ranks)) as f64
}

const SHARDED: &[Driver] = &[Driver::Gpus, Driver::DataParallel, Driver::Model];

/// Writes the lines of weights, gradients, optimizer and buffers.
pub(crate) fn states(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    match rank.strategy {
        Strategy::Single | Strategy::Ddp => ddp(plan, rank, lines),
        Strategy::Megatron { shards } => megatron(plan, rank, shards, lines),
        Strategy::Fsdp { shards, reshard } => fsdp(plan, rank, shards, reshard, lines),
        Strategy::Zero { stage: 3, shards } => zero3(plan, rank, shards, lines),
        Strategy::Zero { stage, shards } => zero12(plan, rank, stage, shards, lines),
    }
}

/// Are DDP's gradients views of its buckets? Those are made when the model is wrapped and stay.
pub(crate) fn bucket_views(run: &TrainingRun) -> bool {
    run.parallelism.data_parallel.value == DataParallel::Ddp && run.parallelism.ddp_bucket_view.value
}

/// Whole states and a flat copy of the gradients in buckets: `.grad` is a second one, or a view.
fn ddp(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    timeline::weights(plan, lines);
    timeline::optimizer(plan, rank, lines);
    timeline::gradients(plan, lines);
    if rank.strategy == Strategy::Single || bucket_views(plan.run) {
        return;
    }
    lines.product(
        line(
            Component::Communication,
            "gradient buckets of DDP",
            STEP,
            &[Driver::DataParallel, Driver::Gradients],
            "DDP without gradient_as_bucket_view keeps a second copy; traced",
        ),
        &[("bytes", plan.gradient), ("P_trained", plan.groups.total)],
    );
}

/// Bytes of a stored parameter of the layers, on average: quantised matrices beside the rest.
fn layer_bytes(plan: &Plan<'_>, stored: f64) -> f64 {
    let inventory = &plan.shape.inventory;
    let in_layers = inventory.in_layers() as f64;
    match quantized_bytes(plan.run.quantization.value) {
        Some((bytes, ..)) if plan.adapters.is_some() && in_layers > 0.0 => {
            let part = plan.quantized().min(in_layers);
            (bytes * part + stored * (in_layers - part)) / in_layers
        }
        _ => stored,
    }
}

/// The base weights of one rank, quantised matrices apart.
fn shard_of_weights(plan: &Plan<'_>, stored: f64, shards: f64, source: &'static str, lines: &mut Lines) {
    let all = plan.shape.inventory.total() as f64 + plan.spread_experts;
    let always = |name: &str, drivers: &'static [Driver]| Line {
        component: Component::Weights,
        name: name.to_owned(),
        live: PhaseSet::ALL,
        drivers,
        source,
    };
    let quantised = quantized_bytes(plan.run.quantization.value).filter(|_| plan.adapters.is_some());
    let Some((bytes, formula, _)) = quantised else {
        lines.product(always("shard of the weights", SHARDED), &[("bytes", stored), ("P/W", all / shards)]);
        return;
    };
    let part = plan.quantized();
    let drivers = &[Driver::Quantization, Driver::Gpus, Driver::Model];
    lines.product(
        always("shard of the quantised weights", drivers),
        &[(&format!("({formula})"), bytes), ("P_linear/W", part / shards)],
    );
    lines.product(
        always("shard of the weights that stay as they are", SHARDED),
        &[("bytes", stored), ("(P − P_linear)/W", (all - part).max(0.0) / shards)],
    );
}

/// Adapters are sharded like everything else.
fn adapters(plan: &Plan<'_>, shards: f64, lines: &mut Lines) {
    if let Some(adapters) = &plan.adapters {
        lines.product(
            Line {
                component: Component::Weights,
                name: "shard of the adapters".into(),
                live: PhaseSet::ALL,
                drivers: &[Driver::LoraRank, Driver::LoraTargets],
                source: FSDP,
            },
            &[
                ("bytes", plan.weight),
                ("P_adapters/W", (adapters.parameters() + adapters.saved_modules) / shards),
            ],
        );
    }
}

/// Bytes of a gradient as FSDP reduces it. Without options it has no policy: fp32 weights that are
/// cast are reduced as they are stored.
pub(crate) fn reduction(run: &TrainingRun) -> f64 {
    let stored = run.weights.value.bytes() as f64;
    match &run.parallelism.fsdp {
        Some(fsdp) => fsdp.reduce.value.bytes() as f64,
        None if (run.compute.value.bytes() as f64) < stored => 4.0,
        None => stored,
    }
}

/// Bytes of a whole gradient that waits for the last micro-batch; `None`: each is reduced at once.
pub(crate) fn deferred(plan: &Plan<'_>) -> Option<f64> {
    let run = plan.run;
    let fsdp = run.parallelism.fsdp.as_ref().filter(|fsdp| fsdp.deferred_reduction.value)?;
    let stored = if plan.adapters.is_some() { plan.weight } else { run.weights.value.bytes() as f64 };
    let compute = stored.min(run.compute.value.bytes() as f64);
    let wide = if fsdp.version.value > 1 { reduction(run) } else { compute };
    (run.gradient_accumulation_steps.value > 1).then_some(wide)
}

fn sharded_gradients(plan: &Plan<'_>, shards: f64, root: f64, lines: &mut Lines) {
    let g = plan.gradient;
    let total = plan.groups.total + plan.spread_experts;
    if let Some((each, live)) = deferred(plan).zip(plan.live) {
        pipeline::gradients(plan, each, live, lines);
    } else if let Some(each) = deferred(plan) {
        lines.product(
            line(
                Component::Gradients,
                "whole gradients of earlier micro-batches, reduced with the last",
                BEFORE_STEP,
                &[Driver::GradientAccumulation, Driver::DataParallel, Driver::Model],
                "no_sync: the unsharded gradient stays, in the compute dtype (FSDP1) or the reduction's (FSDP2); traced",
            ),
            &[("bytes", each), ("P_trained", total)],
        );
    } else if plan.run.gradient_accumulation_steps.value > 1 {
        lines.product(
            line(
                Component::Gradients,
                "shard of the gradients, earlier micro-batches included",
                STEP,
                SHARDED,
                FSDP,
            ),
            &[("bytes", g), ("P_trained/W", total / shards)],
        );
        return;
    }
    if deferred(plan).is_none() {
        let layers = if plan.adapters.is_some() { total } else { total - root };
        lines.product(
            line(
                Component::Gradients,
                "shard of the layers' gradients",
                &[Phase::BackwardBottom, Phase::BackwardEnd],
                SHARDED,
                FSDP,
            ),
            &[("bytes", g), ("(P − P_r)/W", layers.max(0.0) / shards)],
        );
    }
    lines.product(
        line(Component::Gradients, "shard of the gradients", &[Phase::OptimizerStep], SHARDED, FSDP),
        &[("bytes", g), ("P_trained/W", total / shards)],
    );
}

fn states_shard(memory: &OptimizerMemory, bytes: f64, lines: &mut Lines) {
    let drivers = &[Driver::Gpus, Driver::DataParallel, Driver::Optimizer];
    lines.worded(
        line(Component::Optimizer, "shard of the optimizer states", AFTER_LOAD, drivers, memory.source),
        &format!("({})/W", memory.formula),
        bytes,
    );
}

/// An optimizer's states and its step's temporaries, each rank its share.
fn sharded_optimizer(plan: &Plan<'_>, rank: &Rank, shards: f64, memory: &OptimizerMemory, lines: &mut Lines) {
    if rank.optimizer_on_host {
        return;
    }
    // States of experts are spread already.
    let trained = if plan.adapters.is_some() { 0.0 } else { plan.spread_experts };
    let spread = 1.0 + trained / plan.trained.parameters.max(1.0);
    states_shard(memory, memory.state * spread / shards, lines);
    let whole_list = memory.step > 0.5 * plan.trained.parameters;
    let step = if whole_list { memory.step * spread / shards } else { memory.step };
    lines.worded(
        line(
            Component::Temporaries,
            "temporaries of the optimizer's step",
            &[Phase::OptimizerStep],
            &[Driver::OptimizerImplementation],
            memory.source,
        ),
        &format!("({})/W", memory.step_formula),
        step,
    );
}
