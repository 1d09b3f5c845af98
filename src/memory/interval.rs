//! How far the device figure may be off, cause by cause: wide enough that about nine measured runs
//! in ten lie inside.

use super::estimate::{Cause, Interval, base_bytes};
use super::ledger::{Component, Ledger, Phase};
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
    pub(crate) reserved: Bytes,
    pub(crate) device: Bytes,
    pub(crate) gpus: u64,
}

/// The causes, and the interval that they come to: independent ones add up in squares.
pub(crate) fn interval(figures: &Figures<'_>) -> (Interval, Vec<Cause>) {
    let mut causes = Vec::new();
    let mut push = |what: &str, below: f64, above: f64| {
        if below > 0.0 || above > 0.0 {
            causes.push(Cause {
                what: what.into(),
                below: Bytes::from_f64(below),
                above: Bytes::from_f64(above),
            });
        }
    };
    allocator(figures, &mut push);
    outside(figures, &mut push);
    activations(figures, &mut push);
    states(figures, &mut push);
    let square =
        |side: fn(&Cause) -> Bytes| causes.iter().map(|c| (side(c).0 as f64).powi(2)).sum::<f64>().sqrt();
    let low = figures.device - Bytes::from_f64(square(|c| c.below));
    let high = figures.device + Bytes::from_f64(square(|c| c.above));
    (Interval { low: low.max(Bytes::ZERO), high }, causes)
}

type Push<'a> = &'a mut dyn FnMut(&str, f64, f64);

/// Reserved over allocated: from nothing to the 90th percentile of traced runs; more where batches
/// vary in length and the allocator keeps blocks of every size.
fn allocator(f: &Figures<'_>, push: Push<'_>) {
    let slack = (f.reserved - f.allocated).0 as f64;
    let allocated = f.allocated.0 as f64;
    // What the streams' pools cannot share is in the figure already.
    let above =
        if matches!(f.plan.run.activation_checkpointing.value, Checkpointing::None) { 0.08 } else { 0.12 };
    push("blocks that the allocator reserves and cannot use", slack, above * allocated);
    if f.plan.run.batching.value == Batching::Padded {
        let activations = part(f, Component::Activations) + part(f, Component::Logits);
        push(
            "batches shorter than the longest, and blocks of many sizes",
            0.35 * activations,
            0.12 * allocated,
        );
    }
}

fn outside(f: &Figures<'_>, push: Push<'_>) {
    push("CUDA context and kernels", 0.4 * GIB, 0.7 * GIB);
    if f.gpus > 1 {
        push("NCCL's communicators", 0.4 * GIB, 1.2 * GIB);
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
        push("logits of a compiled loss", 0.2 * logits, 0.2 * logits);
    }
    let code = match run.model_code.value {
        ModelCode::Transformers => 0.0,
        ModelCode::Torchtune | ModelCode::Litgpt | ModelCode::Torchtitan => 0.15,
        // Derived tensor by tensor, not traced.
        ModelCode::Megatron => 0.15,
        // Derived too; its two attention kernels differ by one copy of attention's output, 2 of 32
        // bytes an element.
        ModelCode::LlmFoundry if run.attention.value != Attention::Eager => 0.1,
        ModelCode::GptNeox | ModelCode::LlmFoundry => 0.3,
    };
    push("modelling code that is not traced: transformers' figures stand in", code * saved, code * saved);
    if f.plan.shape.architecture.moe.is_some() {
        push("experts that get more than their share of the tokens", 0.0, 0.08 * saved);
    }
    if matches!(run.task.value, Task::Preference | Task::Rollout) {
        push("preference losses keep log-probabilities in ways of their own", 0.3 * logits, 0.3 * logits);
    }
    if matches!(run.loss.value, Loss::Full | Loss::FullShifted) && run.kernels.value == Kernels::Torch {
        push("releases of transformers differ in how logits are upcast", 0.1 * logits, 0.1 * logits);
    }
}

fn states(f: &Figures<'_>, push: Push<'_>) {
    let run = f.plan.run;
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
