//! States, gradients and communication buffers of data-parallel training: DDP, FSDP, ZeRO.
//!
//! In the formulas `W` is the number of ranks that share one copy, `P_r` the parameters outside
//! the wrapped layers (embedding, head, last norm: FSDP's root group), `P_l` those of one layer.

use super::dtensor;
use super::expression::Symbol;
use super::fsdp_groups::{self, Groups};
use super::ledger::{Component, Driver, Phase, PhaseSet};
use super::lines::{Line, Lines, line};
use super::parallel::Degrees;
use super::plan::Plan;
use super::rank::Rank;
use super::states::{self, OptimizerMemory, quantized_bytes};
use super::timeline::{self, STEP};
use super::zero_options;
use crate::run::{DataParallel, ModelCode, Offload, Optimizer, Parallelism, TrainingRun, ZeroBuffers};

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
        let megatron = run.model_code.value == ModelCode::Megatron && run.lora.is_none();
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
            DataParallel::MegatronDistributed if run.lora.is_none() => Strategy::Megatron { shards },
            DataParallel::MegatronDistributed => {
                return Err("adapters under Megatron's distributed optimizer are not modelled".into());
            }
        })
    }
}

fn shards(parallel: &Parallelism, ranks: u64) -> f64 {
    parallel.shard_group.as_ref().map_or(ranks, |g| g.value.clamp(1, ranks)) as f64
}

const FSDP: &str = "PyTorch FSDP, traced";
const ZERO: &str = "DeepSpeed ZeRO, traced";
const OFFLOAD: &str = "DeepSpeed keeps gradients' parts where the optimizer is (stage_1_and_2.py, stage3.py)";
const SHARDED: &[Driver] = &[Driver::Gpus, Driver::DataParallel, Driver::Model];
const BEFORE_LAYERS: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward, Phase::BackwardTop];

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

/// Megatron's own data parallelism: gradients are accumulated in one buffer that is also what is
/// reduced; with its distributed optimizer each rank steps on its part of the masters.
fn megatron(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    const SOURCE: &str = "Megatron core: parameter and gradient buffers, masters and moments";
    let run = plan.run;
    let total = plan.groups.total;
    let stored = run.weights.value.bytes() as f64;
    let always = |component, name: &str, drivers| Line {
        component,
        name: name.to_owned(),
        live: PhaseSet::ALL,
        drivers,
        source: SOURCE,
    };
    let all = plan.shape.inventory.total() as f64;
    let drivers: &[Driver] = &[Driver::Model, Driver::Tensor, Driver::Pipeline, Driver::Weights];
    lines.product(
        always(Component::Weights, "weights of this rank", drivers),
        &[("bytes", stored), ("P", all)],
    );
    let drivers: &[Driver] = &[Driver::Model, Driver::Gradients, Driver::Tensor, Driver::Pipeline];
    lines.product(
        always(Component::Gradients, "buffer of the gradients", drivers),
        &[("bytes", plan.gradient), ("P", total)],
    );
    let workspaces = line(
        Component::Temporaries,
        "workspaces of cuBLAS (forward and backward thread) and Transformer Engine",
        STEP,
        &[],
        "32 MiB each from sm90 on: PyTorch's CublasHandlePool, Transformer Engine's get_cublas_workspace_size_bytes",
    );
    lines.product(workspaces, &[("3", 3.0), ("32 MiB", 33_554_432.0)]);
    if rank.optimizer_on_host {
        return;
    }
    let shared = (total + plan.spread_experts) / shards;
    if stored < 4.0 {
        let line = always(Component::Optimizer, "fp32 master weights, this rank's part", SHARDED);
        lines.product(line, &[("4", 4.0), ("P/W", shared)]);
    }
    sharded_optimizer(plan, rank, shards, &plan.optimizer, lines);
}

/// Parameters of one wrapped layer, and outside the layers.
fn wrapped(plan: &Plan<'_>) -> (f64, f64) {
    let inventory = &plan.shape.inventory;
    let root = inventory.language().saturating_sub(inventory.in_layers());
    (inventory.largest_layer() as f64, root as f64 + inventory.extra() as f64)
}

fn fsdp(plan: &Plan<'_>, rank: &Rank, shards: f64, reshard: bool, lines: &mut Lines) {
    let run = plan.run;
    let (layer, root) = wrapped(plan);
    let stored = run.weights.value.bytes() as f64;
    let compute = stored.min(run.compute.value.bytes() as f64);
    let reduce = if compute < stored {
        run.parallelism.fsdp.as_ref().map_or(4.0, |f| f.reduce.value.bytes() as f64)
    } else {
        stored
    };
    let inventory = &plan.shape.inventory;
    let embedding = inventory.embedding() as f64;
    let apart = run.parallelism.ends_apart.value && plan.adapters.is_none() && !plan.groups.tied;
    // CPU offload keeps the shards, their gradients and the step in the host's memory.
    if run.parallelism.offload_parameters.value == Offload::None {
        shard_of_weights(plan, stored, shards, FSDP, lines);
        adapters(plan, shards, lines);
        sharded_gradients(plan, shards, if apart { embedding } else { root }, lines);
    }
    sharded_optimizer(plan, rank, shards, &plan.optimizer, lines);
    if parallel_stages(plan) {
        let ends = if apart { embedding.max(root - embedding) } else { root };
        over_micro_batches(plan, (compute, reduce), layer.max(ends), lines);
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
            line(
                Component::Communication,
                "gathered weights, kept until backward",
                BEFORE_LAYERS,
                SHARDED,
                FSDP,
            ),
            &[("bytes", compute), ("P", all)],
        );
    }
    let drivers = &[Driver::DataParallel, Driver::Model];
    lines.product(
        line(
            Component::Communication,
            "gathered weights: root group, a layer and the next",
            &[Phase::BackwardBottom],
            drivers,
            FSDP,
        ),
        &[("bytes", compute), ("P_r + 2·P_l", root + 2.0 * layer)],
    );
    if plan.adapters.is_some() {
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

/// PyTorch's pipeline stages put off FSDP's reduction and give no weights back until the last micro-batch.
fn parallel_stages(plan: &Plan<'_>) -> bool {
    Degrees::of(plan.run).pipeline > 1 && plan.adapters.is_none() && deferred(plan).is_some()
}

/// Weights and gradients of a stage that works on several micro-batches.
fn over_micro_batches(plan: &Plan<'_>, (compute, reduce): (f64, f64), group: f64, lines: &mut Lines) {
    const STAGE: &str =
        "PyTorch's PipelineStage.backward_maybe_with_nosync: no reshard, no reduction before the last";
    let drivers = &[Driver::Pipeline, Driver::DataParallel, Driver::Model];
    let all = plan.shape.inventory.total() as f64;
    let phases: Vec<Phase> = STEP.iter().copied().filter(|p| *p != Phase::OptimizerStep).collect();
    let name = "gathered weights, kept over all micro-batches";
    lines.product(
        line(Component::Communication, name, &phases, drivers, STAGE),
        &[("bytes", compute), ("P", all)],
    );
    let name = "a group's gradients being reduced";
    lines.product(
        line(Component::Communication, name, &[Phase::BackwardEnd], drivers, STAGE),
        &[("bytes", reduce), ("largest group", group)],
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

/// Bytes of a whole gradient that waits for the last micro-batch; `None`: each is reduced at once.
pub(crate) fn deferred(plan: &Plan<'_>) -> Option<f64> {
    let run = plan.run;
    let fsdp = run.parallelism.fsdp.as_ref().filter(|fsdp| fsdp.deferred_reduction.value)?;
    let stored = if plan.adapters.is_some() { plan.weight } else { run.weights.value.bytes() as f64 };
    let compute = stored.min(run.compute.value.bytes() as f64);
    let wide =
        if compute < stored && fsdp.version.value > 1 { fsdp.reduce.value.bytes() as f64 } else { compute };
    (run.gradient_accumulation_steps.value > 1).then_some(wide)
}

fn sharded_gradients(plan: &Plan<'_>, shards: f64, root: f64, lines: &mut Lines) {
    let g = plan.gradient;
    let total = plan.groups.total + plan.spread_experts;
    if let Some(each) = deferred(plan) {
        let live = [BEFORE_LAYERS, &[Phase::BackwardBottom, Phase::BackwardEnd]].concat();
        lines.product(
            line(
                Component::Gradients,
                "whole gradients of earlier micro-batches, reduced with the last",
                &live,
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

/// An optimizer's states and its step's temporaries, each rank its share.
fn sharded_optimizer(plan: &Plan<'_>, rank: &Rank, shards: f64, memory: &OptimizerMemory, lines: &mut Lines) {
    if rank.optimizer_on_host {
        return;
    }
    let kept: Vec<Phase> = STEP.iter().copied().chain([Phase::Evaluation]).collect();
    let drivers = &[Driver::Gpus, Driver::DataParallel, Driver::Optimizer];
    let formula = format!("({})/W", memory.formula);
    // States of experts are spread already.
    let spread = 1.0 + plan.spread_experts / plan.trained.parameters.max(1.0);
    lines.worded(
        line(Component::Optimizer, "shard of the optimizer states", &kept, drivers, memory.source),
        &formula,
        memory.state * spread / shards,
    );
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

/// DeepSpeed steps on flat fp32 masters, whatever the model's dtype.
fn zero_optimizer(plan: &Plan<'_>) -> OptimizerMemory {
    let run = plan.run;
    states::optimizer(run.optimizer.value, run.optimizer_implementation.value, &plan.trained, 4.0, 4.0)
        .unwrap_or_else(|| plan.optimizer.clone())
}

/// Bytes of a model weight under DeepSpeed: the compute dtype.
fn zero_weight(plan: &Plan<'_>) -> f64 {
    (plan.run.weights.value.bytes() as f64).min(plan.run.compute.value.bytes() as f64)
}

fn buffers(plan: &Plan<'_>) -> (f64, f64, f64) {
    let zero = plan.run.parallelism.zero.as_ref();
    let get = |f: fn(&ZeroBuffers) -> u64, default: f64| zero.map_or(default, |z| f(z) as f64);
    let bucket = get(|z| z.reduce_bucket.value, 5e8);
    let twice = if zero.is_some_and(|z| z.overlap_comm.value) { 2.0 } else { 1.0 };
    (bucket, bucket * twice, get(|z| z.max_live_parameters.value, 1e9))
}

fn masters(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    if zero_weight(plan) < 4.0 && !rank.optimizer_on_host {
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
fn zero12(plan: &Plan<'_>, rank: &Rank, stage: u8, shards: f64, lines: &mut Lines) {
    let (w, total) = (zero_weight(plan), plan.groups.total);
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
    if zero_weight(plan) < 4.0 && elements > 0.0 && shards >= 1.0 {
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
fn zero3(plan: &Plan<'_>, rank: &Rank, shards: f64, lines: &mut Lines) {
    let (w, total) = (zero_weight(plan), plan.groups.total);
    let all = plan.shape.inventory.total() as f64;
    let on_host = plan.run.parallelism.offload_parameters.value != Offload::None;
    if !on_host {
        shard_of_weights(plan, w, shards, ZERO, lines);
    }
    adapters(plan, shards, lines);
    masters(plan, rank, shards, lines);
    let (bucket, _, live) = buffers(plan);
    let every: Vec<Phase> = STEP.to_vec();
    // `grad_partitions_flat_buffer` is where the optimizer is.
    if !rank.optimizer_on_host {
        lines.product(
            line(Component::Gradients, "shard of the gradients", &every, SHARDED, ZERO),
            &[("bytes", w), ("P_trained/W", total / shards)],
        );
    }
    lines.product(
        line(
            Component::Communication,
            "reduction bucket",
            &every,
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        &[("bytes", w), ("reduce_bucket_size", bucket)],
    );
    let stays = plan.run.parallelism.zero.as_ref().map_or(0.0, |z| zero_options::persistent(plan, z));
    zero_options::stage3(plan, w, lines);
    let gathered: &[Phase] =
        &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward, Phase::BackwardTop, Phase::BackwardBottom];
    lines.product(
        line(
            Component::Communication,
            "gathered weights",
            gathered,
            &[Driver::ZeroBuffers, Driver::DataParallel],
            ZERO,
        ),
        &[("bytes", layer_bytes(plan, w)), ("min(P, max_live_parameters)", all.min(live.max(stays)))],
    );
    whole_at_load(plan, if on_host { 0.0 } else { 1.0 / shards }, lines);
    zero3_step(plan, rank, shards, lines);
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
    let kept: Vec<Phase> = STEP.iter().copied().chain([Phase::Evaluation]).collect();
    lines.worded(
        line(
            Component::Optimizer,
            "shard of the optimizer states",
            &kept,
            &[Driver::Gpus, Driver::DataParallel, Driver::Optimizer],
            memory.source,
        ),
        &format!("({})/W", memory.formula),
        memory.state / shards,
    );
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
