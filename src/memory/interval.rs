//! How far the three figures may be off, cause by cause: wide enough that about nine measured runs in
//! ten lie inside.

use super::activations::split_layers;
use super::communicators;
use super::data_parallel::deferred;
use super::estimate::{Cause, Interval, base_bytes};
use super::exchange;
use super::expression::{Sum, Symbol};
use super::ledger::{Component, Ledger, Phase};
use super::own_layers;
use super::plan::Plan;
use super::states::quantized_bytes;
use crate::catalog::Family;
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Kernels, Loss, ModelCode, Optimizer, Origin,
    Quantization, Task,
};
use crate::units::{Bytes, GIB};

/// Everything the width is computed from.
pub(crate) struct Figures<'a> {
    pub(crate) plan: &'a Plan<'a>,
    pub(crate) ledger: &'a Ledger,
    pub(crate) phase: Phase,
    pub(crate) allocated: Bytes,
    /// What a card must hold of what is reserved.
    pub(crate) reserved: Bytes,
    /// Reserved, cached blocks included.
    pub(crate) cached: Bytes,
    /// The same for nine drawn orders of batches in ten.
    pub(crate) orders: (Bytes, Bytes),
    pub(crate) device: Bytes,
    pub(crate) gpus: u64,
    /// How far the replay of a sharded run may be off, below and above, as shares of what is reserved.
    pub(crate) replay: Option<(f64, f64)>,
}

/// One interval a figure; the causes are of the device's.
pub(crate) struct Intervals {
    pub(crate) allocated: Interval,
    pub(crate) reserved: Interval,
    pub(crate) device: Interval,
    pub(crate) causes: Vec<Cause>,
}

/// The causes, and the intervals that they come to: independent ones add up in squares.
pub(crate) fn intervals(f: &Figures<'_>) -> Intervals {
    let gather = |parts: &[fn(&Figures<'_>, Push<'_>)]| {
        let mut causes = Vec::new();
        for part in parts {
            part(f, &mut |what, below, above| {
                if below > 0.0 || above > 0.0 {
                    causes.push(Cause {
                        what: what.into(),
                        below: Bytes::from_f64(below),
                        above: Bytes::from_f64(above),
                    });
                }
            });
        }
        causes
    };
    let causes = gather(&[allocator, outside, activations, states]);
    Intervals {
        allocated: around(f.allocated, &gather(&[kernels, lengths, activations, states])),
        reserved: around(f.cached, &gather(&[kernels, allocator, order, activations, states])),
        device: around(f.device, &causes),
        causes,
    }
}

/// Below and above a figure by the root of the causes' squares.
fn around(figure: Bytes, causes: &[Cause]) -> Interval {
    let square =
        |side: fn(&Cause) -> Bytes| causes.iter().map(|c| (side(c).0 as f64).powi(2)).sum::<f64>().sqrt();
    let low = figure - Bytes::from_f64(square(|c| c.below));
    Interval { low: low.max(Bytes::ZERO), high: figure + Bytes::from_f64(square(|c| c.above)) }
}

/// Workspaces and temporaries that differ between releases and cards: prime-rl's runs on four kinds of
/// card agree within 2 %, runs repeated elsewhere within 0.6 %.
fn kernels(f: &Figures<'_>, push: Push<'_>) {
    let share = 0.02 * f.allocated.0 as f64;
    push("kernels and libraries of another release or card", share, share);
}

/// Batches of lengths that nobody declared.
fn undeclared(f: &Figures<'_>) -> bool {
    f.plan.run.batching.value == Batching::Padded && f.plan.run.sequence_lengths.value.is_none()
}

fn lengths(f: &Figures<'_>, push: Push<'_>) {
    if undeclared(f) {
        let activations = part(f, Component::Activations) + part(f, Component::Logits);
        push("batches shorter than the longest", 0.35 * activations, 0.0);
    }
}

/// Which lengths come in which order decides what the allocator keeps: of PyTorch's own allocator over
/// 60 to 700 drawn lengths, nine runs in ten keep 0.3 to 1.8 times the median beyond what is allocated.
fn order(f: &Figures<'_>, push: Push<'_>) {
    let (below, above) = if undeclared(f) {
        let beyond = (f.cached - f.allocated).0 as f64;
        (0.7 * beyond, 0.8 * beyond)
    } else {
        ((f.cached - f.orders.0).0 as f64, (f.orders.1 - f.cached).0 as f64)
    };
    push("the order in which batches of different lengths come", below, above);
}

type Push<'a> = &'a mut dyn FnMut(&str, f64, f64);

/// Reserved over allocated: from nothing to the 90th percentile of traced runs; more where batches
/// vary in length and the allocator keeps blocks of every size.
fn allocator(f: &Figures<'_>, push: Push<'_>) {
    let slack = (f.reserved - f.allocated).0 as f64;
    let allocated = f.allocated.0 as f64;
    if let Some((below, above)) = f.replay {
        let reserved = f.reserved.0 as f64;
        push(BLOCKS, slack.min(below * reserved), above * reserved);
        shorter(f, push);
        return;
    }
    // Traced pipelines under FSDP reserve up to 1.31 times what is allocated; how much less with segments
    // that grow is not traced.
    let pipeline = f.plan.live.is_some() && deferred(f.plan).is_some();
    let above = if pipeline {
        (1.31 * allocated - f.reserved.0 as f64).max(0.0) / allocated.max(1.0)
    } else if matches!(f.plan.run.activation_checkpointing.value, Checkpointing::None) {
        0.07
    } else if f.plan.adapters.is_some() {
        0.08
    } else {
        0.12
    };
    push(BLOCKS, slack, above * allocated);
    shorter(f, push);
}

const BLOCKS: &str = "blocks that the allocator reserves and cannot use";

/// A limit says little of the rows: alpaca-lora cuts at 256 tokens, "about 96% of the data", and
/// LLaMA-Factory's examples train on the same rows with a limit of 2,048. A third of the limit is what the
/// longest batch may well have.
fn shorter(f: &Figures<'_>, push: Push<'_>) {
    if undeclared(f) {
        let activations = part(f, Component::Activations) + part(f, Component::Logits);
        push(
            "batches shorter than the longest, and blocks of many sizes",
            0.65 * activations,
            0.12 * f.allocated.0 as f64,
        );
    }
}

fn outside(f: &Figures<'_>, push: Push<'_>) {
    push("CUDA context and kernels", 0.4 * GIB, 0.7 * GIB);
    let nccl = communicators::bytes(&communicators::groups(f.plan.run, f.gpus));
    if nccl > 0.0 {
        // Readings of one lie between half of what is taken and 1.6 GiB; where there are several,
        // groups that only count tokens or wait for each other may take less (NCCL 2.22 and later
        // connect what is used).
        push("NCCL's communicators", (0.5 * nccl).max(0.4 * GIB), 1.2 * GIB);
    }
}

fn part(f: &Figures<'_>, component: Component) -> f64 {
    f.ledger.component(component, f.phase).0 as f64
}

fn activations(f: &Figures<'_>, push: Push<'_>) {
    let run = f.plan.run;
    let saved = part(f, Component::Activations) + part(f, Component::Temporaries);
    let logits = part(f, Component::Logits);
    if let Some((share, why)) = f.plan.activations.doubt {
        push(why, share * saved, share * saved);
    }
    for doubt in &run.beside.doubts {
        push(doubt.why, doubt.below * saved, doubt.above * saved);
    }
    if run.compile.value {
        // Compiled steps of torchtune's ladder lie within 4 % of what is derived for eager ones.
        let own = 0.04 * f.allocated.0 as f64;
        push("buffers of compiled graphs, which are not traced", own, own);
        push("logits of a compiled loss", 0.2 * logits, 0.2 * logits);
    }
    let code = match run.model_code.value {
        ModelCode::Transformers => 0.0,
        ModelCode::Torchtune | ModelCode::Torchtitan if own_layers::traced(run, &f.plan.shape) => 0.0,
        // Published runs of compiled layers lie within what compiled graphs are given above.
        ModelCode::Torchtitan if run.compile.value => 0.0,
        ModelCode::Torchtune | ModelCode::Litgpt | ModelCode::Torchtitan => 0.15,
        // Derived tensor by tensor, not traced; with a tenth of what is saved 36 of 39 published runs are
        // inside.
        ModelCode::Megatron => 0.1,
        // Derived too; its two attention kernels differ by one copy of attention's output, 2 of 32
        // bytes an element.
        ModelCode::LlmFoundry if run.attention.value != Attention::Eager => 0.1,
        ModelCode::GptNeox | ModelCode::LlmFoundry => 0.3,
    };
    push("modelling code that is not traced: transformers' figures stand in", code * saved, code * saved);
    let early = exchange::receive_buffers(f.plan);
    push("receive buffers of all micro-batches, which earlier releases of PyTorch made at once", 0.0, early);
    match exchange::imbalance(f.plan) {
        Some(share) => push("expert imbalance", 0.0, share * routed(f.plan)),
        None if f.plan.shape.architecture.moe.is_some() => {
            push("experts that get more than their share of the tokens", 0.0, 0.08 * saved);
        }
        None => {}
    }
    if matches!(run.task.value, Task::Preference | Task::Rollout) {
        push("preference losses keep log-probabilities in ways of their own", 0.3 * logits, 0.3 * logits);
    }
    if matches!(run.loss.value, Loss::Full | Loss::FullShifted | Loss::FullShiftedNoUpcast)
        && run.kernels.value == Kernels::Torch
        && run.model_code.value == ModelCode::Transformers
    {
        push("releases of transformers differ in how logits are upcast", 0.1 * logits, 0.1 * logits);
    }
}

/// Bytes that grow with the tokens that are routed to a rank, while a layer goes backward.
fn routed(plan: &Plan<'_>) -> f64 {
    let of = |sum: &Sum| {
        let elsewhere: fn(&[Symbol]) -> bool = |symbols| !symbols.contains(&Symbol::TopK);
        sum.clone().without(elsewhere).value(&plan.shape.symbols)
    };
    let (_, whole) =
        split_layers(plan.run.activation_checkpointing.value, plan.trained_layers(), plan.slice.ranges.len());
    let kept = whole * plan.slice.in_flight * of(&plan.activations.layer);
    let sent = 4.0 * plan.shape.get(Symbol::Tokens) * plan.shape.get(Symbol::TopK);
    kept + of(&plan.activations.transient) + sent * plan.shape.get(Symbol::Hidden)
}

fn states(f: &Figures<'_>, push: Push<'_>) {
    let run = f.plan.run;
    let low_bit = matches!(run.optimizer.value, Optimizer::Adamw8bit | Optimizer::Adamw4bit);
    if low_bit && matches!(run.model_code.value, ModelCode::Torchtune | ModelCode::Torchtitan) {
        // torchao's `single_param_adam` takes parameter and both moments to fp32; what of it the
        // compiler keeps in registers is its affair.
        push("torchao's step, which works on fp32 copies of one tensor", 0.0, 12.0 * f.plan.trained.largest);
    }
    if run.quantized_inputs_kept.value {
        // LitGPT's published QLoRA runs of 2024 lie between none and twice what the source shows.
        let symbols = &f.plan.shape.symbols;
        let inputs = Sum::term(4.0, &[Symbol::Tokens, Symbol::Hidden])
            .plus(&Sum::term(2.0, &[Symbol::Tokens, Symbol::FeedForward]));
        let kept = f.plan.layers() * inputs.value(symbols);
        push("inputs that 4-bit layers of old bitsandbytes keep, or keep twice", kept, kept);
    }
    let optimizer = part(f, Component::Optimizer);
    if f.plan.optimizer.doubt > 0.0 {
        push(
            "an optimizer that is not traced",
            f.plan.optimizer.doubt * optimizer,
            f.plan.optimizer.doubt * optimizer,
        );
    }
    if run.quantization.value != Quantization::None {
        let weights = part(f, Component::Weights);
        push("4-bit and 8-bit kernels whose temporaries are not traced", 0.03 * weights, 0.08 * weights);
        if let Origin::Default { .. } | Origin::Assumed(_) = run.quantized_experts.origin {
            // This rank's experts, quantised like the rest.
            let experts = f.plan.shape.inventory.stacked_experts() as f64;
            let stored = run.weights.value.bytes() as f64;
            let quantised = quantized_bytes(run.quantization.value).map_or(stored, |(bytes, ..)| bytes);
            let share = (stored - quantised) * experts / base_bytes(f.plan).max(1.0);
            push("experts stay in 16 bits since transformers 5, and did not before", share * weights, 0.0);
        }
    }
    if matches!(
        run.optimizer.value,
        Optimizer::PagedAdamw8bit
            | Optimizer::PagedAdamw32bit
            | Optimizer::PagedLion8bit
            | Optimizer::PagedLion32bit
    ) {
        push("paged states that happen to be on the card", 0.0, f.plan.optimizer.paged);
    }
    if f.plan.shape.architecture.family == Family::GptOss {
        push("4-bit floats of the checkpoint, if kept", 0.3 * part(f, Component::Weights), 0.0);
    }
    if f.gpus > 1 {
        let buffers = part(f, Component::Communication);
        match run.parallelism.data_parallel.value {
            // Traced; what a release or a setting changes is a layer that is gathered ahead.
            DataParallel::Fsdp | DataParallel::Hsdp => {
                let layer = run.compute.value.bytes() as f64 * f.plan.shape.inventory.largest_layer() as f64;
                push("a layer gathered ahead or not", layer.min(buffers), layer);
            }
            _ => push("buckets of distributed training", 0.15 * buffers, 0.15 * buffers),
        }
    }
}
