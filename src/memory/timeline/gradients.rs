//! Gradients, and when each of them is whole.

use super::{BACKWARD, GRADIENTS_WHOLE, LAYER_BACKWARD, STEP, TIMELINE};
use crate::memory::data_parallel::bucket_views;
use crate::memory::dtensor;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::ledger::{Component, Driver, Phase, PhaseSet};
use crate::memory::lines::{Line, Lines, line};
use crate::memory::pipeline;
use crate::memory::plan::Plan;
use crate::memory::shape::Precision;
use crate::run::{Checkpointing, Loss, ModelCode, OptimizerImplementation};

/// Gradients appear in the order of the backward pass. With accumulation those of earlier
/// micro-batches are there all the time.
pub(crate) fn gradients(plan: &Plan<'_>, lines: &mut Lines) {
    let g = plan.gradient;
    let groups = plan.groups;
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    if plan.run.optimizer_implementation.value == OptimizerImplementation::InBackward {
        let name = "gradient of the largest tensor (freed as soon as it is applied)";
        lines.product(
            line(Component::Gradients, name, BACKWARD, drivers, "the step runs inside the backward"),
            &[("bytes", g), ("largest tensor", plan.trained.largest)],
        );
        return;
    }
    let embedding = plan.shape.inventory.embedding() as f64;
    if bucket_views(plan.run) {
        lines.product(
            Line {
                component: Component::Gradients,
                name: "gradients, which are DDP's buckets".into(),
                live: PhaseSet::ALL,
                drivers,
                source: "DDP with gradient_as_bucket_view; traced",
            },
            &[("bytes", g), ("P_trained", groups.total)],
        );
    } else if let Some(live) = plan.live.filter(|_| plan.run.gradient_accumulation_steps.value > 1) {
        pipeline::gradients(plan, g, live, lines);
        let name = "gradients";
        lines.product(
            line(Component::Gradients, name, &[Phase::OptimizerStep], drivers, TIMELINE),
            &[("bytes", g), ("P_trained", groups.total)],
        );
    } else if plan.run.gradient_accumulation_steps.value > 1 {
        lines.product(
            line(
                Component::Gradients,
                "gradients, those of earlier micro-batches included",
                STEP,
                &[Driver::Method, Driver::GradientAccumulation, Driver::Gradients],
                "gradients stay allocated between micro-batches",
            ),
            &[("bytes", g), ("P_trained", groups.total)],
        );
    } else {
        gradients_of_one_batch(plan, lines);
    }
    gradients_of_modules(plan, lines);
    if groups.total < embedding {
        return;
    }
    tied_gradients(plan, lines);
}

/// Modules trained in full beside adapters may have another dtype than those: what the lines that
/// count every trained parameter as an adapter's are off by.
fn gradients_of_modules(plan: &Plan<'_>, lines: &mut Lines) {
    let Some(adapters) = &plan.adapters else { return };
    let more = adapters.saved_weight - plan.gradient;
    let live: PhaseSet = if bucket_views(plan.run) {
        PhaseSet::ALL
    } else if plan.run.gradient_accumulation_steps.value > 1 {
        PhaseSet::of(STEP)
    } else {
        PhaseSet::of(GRADIENTS_WHOLE)
    };
    let what = Line {
        component: Component::Gradients,
        name: "of which modules trained in full, in their own dtype".into(),
        live,
        drivers: &[Driver::LoraTargets, Driver::Gradients],
        source: "a gradient has its parameter's dtype",
    };
    lines.product(what, &[("(bytes − bytes_adapters)", more), ("P_modules", adapters.saved_modules)]);
}

fn gradients_of_one_batch(plan: &Plan<'_>, lines: &mut Lines) {
    let (g, groups, n) = (plan.gradient, plan.groups, plan.trained_layers());
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    let head = if groups.tied { plan.shape.inventory.embedding() as f64 } else { groups.head };
    lines.product(
        line(Component::Gradients, "gradient of the output head", LAYER_BACKWARD, drivers, TIMELINE),
        &[("bytes", g), ("P_head", head)],
    );
    // With adapters the gradients are so small that the last layer's are not told apart.
    let (name, factor, share) = if plan.adapters.is_some() {
        ("gradients", "(n−1)/n", 1.0)
    } else if let Some(first) = encoder_backward(plan) {
        let left = first.layers * first.parameters / groups.layers.max(1.0);
        ("gradients of the layers that have gone backward", "P_gone/P", (1.0 - left).max(0.0))
    } else {
        ("gradients of all layers but one", "(n−1)/n", (n - 1.0) / n.max(1.0))
    };
    lines.product(
        line(Component::Gradients, name, &[Phase::BackwardBottom], drivers, TIMELINE),
        &[(factor, share), ("bytes", g), ("P_layers", groups.layers)],
    );
    if plan.activations.encoder.is_some() && !groups.tied && groups.total > groups.layers {
        lines.product(
            line(
                Component::Gradients,
                "the shared embedding's gradient from the decoder",
                &[Phase::BackwardBottom],
                drivers,
                TIMELINE,
            ),
            &[("bytes", g), ("V·d", plan.shape.inventory.embedding() as f64)],
        );
    }
    lines.product(
        line(Component::Gradients, "gradients", GRADIENTS_WHOLE, drivers, TIMELINE),
        &[("bytes", g), ("P_trained", groups.total)],
    );
}

/// Where the backward of one side of an encoder-decoder is largest: at its last layer, all its
/// activations still there, or at its first, all its gradients but that one's.
pub(super) struct SideBackward {
    /// Layers whose activations are there and whose gradients are not.
    pub(super) layers: f64,
    /// Parameters of one.
    pub(super) parameters: f64,
}

pub(super) fn encoder_backward(plan: &Plan<'_>) -> Option<SideBackward> {
    let encoder = plan.activations.encoder.as_ref()?;
    side_backward(plan, true, &encoder.checkpoint, &encoder.layer)
}

/// The same of the decoder.
pub(super) fn decoder_backward(plan: &Plan<'_>) -> Option<SideBackward> {
    plan.activations.encoder.as_ref()?;
    side_backward(plan, false, &plan.activations.checkpoint, &plan.activations.layer)
}

fn side_backward(plan: &Plan<'_>, encoder: bool, checkpoint: &Sum, layer: &Sum) -> Option<SideBackward> {
    let kinds = plan.shape.inventory.layer_kinds();
    let kinds = kinds.iter().filter(|kind| kind.encoder == encoder);
    let (count, all) = kinds.fold((0, 0), |(count, all), kind| {
        (count + kind.count, all + kind.count.saturating_mul(kind.parameters))
    });
    if count == 0 {
        return None;
    }
    let (count, parameters) = (count as f64, all as f64 / count as f64);
    let checkpointed = !matches!(plan.run.activation_checkpointing.value, Checkpointing::None);
    let each = if checkpointed { checkpoint } else { layer };
    let growing = plan.adapters.is_none() && plan.run.gradient_accumulation_steps.value <= 1;
    let gradient = if growing { plan.gradient * parameters } else { 0.0 };
    let at_its_end = gradient > each.value(&plan.shape.symbols);
    Some(SideBackward { layers: if at_its_end { 1.0 } else { count }, parameters })
}

/// A tied embedding gets two gradients, the head's and its own, which the engine adds out of
/// place: two tensors more at the end of the backward, three where `.grad` exists already. Under
/// autocast the cast lets the sum be in place: one fewer.
fn tied_gradients(plan: &Plan<'_>, lines: &mut Lines) {
    // A bucket's view stands ready like the gradient of an earlier micro-batch.
    let accumulated = plan.run.gradient_accumulation_steps.value > 1 || bucket_views(plan.run);
    // A head that ran once a chunk has made the engine's sum its own already.
    let chunked = plan.run.model_code.value == ModelCode::Torchtune
        && matches!(plan.run.loss.value, Loss::Chunked { chunked } if chunked > 1);
    let in_place =
        plan.shape.precision == Precision::Mixed || plan.run.loss.value.without_logits() || chunked;
    // A stage may have the embedding and no head, or the other way.
    let matrix = match plan.live {
        Some(_) => {
            let rows = plan.shape.inventory.embedding() as f64;
            plan.gradient * dtensor::tables(plan).map_or(rows, |(whole, _)| whole)
        }
        None => plan.gradient * plan.shape.get(Symbol::Vocabulary) * plan.shape.get(Symbol::Hidden),
    };
    let drivers = &[Driver::Model, Driver::Gradients];
    let tied = plan.groups.tied;
    let copies = match (tied, accumulated, in_place) {
        (true, false, true) => 1.0,
        (true, false, false) | (true, true, true) => 2.0,
        (true, true, false) => 3.0,
        (false, true, _) => 1.0,
        // The encoder's, beside the decoder's.
        (false, false, _) if plan.activations.encoder.is_some() => 1.0,
        (false, false, _) => 0.0,
    };
    let name = if tied {
        "the tied embedding's gradients, added out of place"
    } else {
        "the embedding's new gradient"
    };
    lines.product(
        line(Component::Temporaries, name, &[Phase::BackwardEnd], drivers, TIMELINE),
        &[("copies", copies), ("bytes·V·d", matrix)],
    );
    if tied && accumulated {
        lines.product(
            line(Component::Temporaries, "the head's new gradient", LAYER_BACKWARD, drivers, TIMELINE),
            &[("bytes·V·d", matrix)],
        );
    }
}
