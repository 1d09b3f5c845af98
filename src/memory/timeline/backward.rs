//! What the widest layer's backward needs beside what is saved.

use super::gradients::{decoder_backward, encoder_backward};
use super::{BACKWARD, LAYER_BACKWARD, TIMELINE};
use crate::memory::dtensor;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::ledger::{Component, Driver, Phase};
use crate::memory::lines::{Lines, line};
use crate::memory::overhead::CUBLAS_WORKSPACE;
use crate::memory::plan::Plan;
use crate::run::Checkpointing;

/// One layer's backward: its gradient in flight, its own activations and its temporaries.
pub(super) fn layer_backward(plan: &Plan<'_>, lines: &mut Lines) {
    let activations = &plan.activations;
    let symbols = &plan.shape.symbols;
    let drivers = &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::Attention];
    let split = if dtensor::splits(plan.run) { plan.run.parallelism.tensor.value as f64 } else { 1.0 };
    let residual = Sum::term(plan.residual() / split, &[Symbol::Tokens, Symbol::Hidden]);
    let ends: &[Phase] = if plan.adapters.is_some() { LAYER_BACKWARD } else { BACKWARD };
    lines.sum(
        line(Component::Temporaries, "gradient of the residual stream", ends, drivers, TIMELINE),
        None,
        &residual,
        symbols,
    );
    encoder_decoder(plan, lines);
    let first = encoder_backward(plan).map_or(1.0, |first| first.layers);
    let (what, one) = match plan.run.activation_checkpointing.value {
        Checkpointing::None | Checkpointing::Selective | Checkpointing::Modules { .. } => {
            let first = activations.encoder.as_ref().map_or(&activations.layer, |e| &e.layer);
            ("saved activations of the first layer", first)
        }
        Checkpointing::Full | Checkpointing::Every { .. } | Checkpointing::First { .. } => {
            let first = activations.encoder.as_ref().map_or(&activations.checkpoint, |e| &e.checkpoint);
            ("input of the first layer", first)
        }
    };
    lines.sum(
        line(Component::Activations, what, &[Phase::BackwardBottom], drivers, activations.source),
        (first > 1.0).then_some(("n_enc", first)),
        one,
        symbols,
    );
    let what = match plan.run.activation_checkpointing.value {
        Checkpointing::None => "one layer's backward",
        _ => "one layer recomputed, and its backward",
    };
    // The first layer to go backward is the decoder's last, the last one the encoder's first.
    let ends: &[(&[Phase], &Sum)] = match &activations.encoder {
        None => &[(LAYER_BACKWARD, &activations.transient)],
        Some(encoder) => {
            &[(&[Phase::BackwardTop], &activations.transient), (&[Phase::BackwardBottom], &encoder.transient)]
        }
    };
    for (live, transient) in ends {
        lines.sum(
            line(Component::Temporaries, what, live, drivers, activations.source),
            None,
            transient,
            symbols,
        );
    }
    dequantised(plan, lines);
    lines.worded(
        line(
            Component::Temporaries,
            "cuBLAS workspace",
            LAYER_BACKWARD,
            &[],
            "one matrix product's workspace, sm80 to sm89",
        ),
        "8.125 MiB",
        CUBLAS_WORKSPACE,
    );
}

/// What is alive beside the layers of an encoder-decoder: the gradient of the encoder's output
/// (above, of the residual stream) gathers over all decoder layers, T5's position biases and their
/// gradients over all layers of their side.
fn encoder_decoder(plan: &Plan<'_>, lines: &mut Lines) {
    let Some(encoder) = &plan.activations.encoder else { return };
    let drivers = &[Driver::MicroBatchSize, Driver::SequenceLength, Driver::Attention];
    let stream = Sum::term(plan.residual(), &[Symbol::TargetTokens, Symbol::Hidden]);
    for (name, phase, sum) in [
        ("gradient of the decoder's residual stream", Phase::BackwardTop, &stream),
        (
            "position biases and masks beside the decoder's layers",
            Phase::BackwardTop,
            &encoder.beside_decoder,
        ),
        ("position biases and masks beside the encoder's layers", Phase::BackwardBottom, &encoder.beside),
    ] {
        let what = line(Component::Temporaries, name, &[phase], drivers, plan.activations.source);
        lines.sum(what, None, sum, &plan.shape.symbols);
    }
    // The decoder at its first layer: gradients in the place of activations.
    let Some(decoder) = decoder_backward(plan).filter(|decoder| decoder.layers == 1.0) else { return };
    let gone = (plan.layers() - plan.shape.architecture.encoder_layers as f64 - 1.0).max(0.0);
    let checkpointed = !matches!(plan.run.activation_checkpointing.value, Checkpointing::None);
    let each = if checkpointed { &plan.activations.checkpoint } else { &plan.activations.layer };
    let top = &[Phase::BackwardTop];
    let freed = line(
        Component::Activations,
        "of which the decoder's layers are through",
        top,
        drivers,
        plan.activations.source,
    );
    lines.sum(freed, Some(("−(n_dec − 1)", -gone)), each, &plan.shape.symbols);
    let drivers = &[Driver::Method, Driver::Gradients, Driver::Model];
    lines.product(
        line(Component::Gradients, "gradients of all decoder layers but one", top, drivers, TIMELINE),
        &[("(n_dec − 1)", gone), ("bytes", plan.gradient), ("P_dec/n_dec", decoder.parameters)],
    );
}

/// 4-bit weights are dequantised one matrix at a time.
fn dequantised(plan: &Plan<'_>, lines: &mut Lines) {
    if !plan.run.quantization.value.is_packed() || plan.adapters.is_none() {
        return;
    }
    let linears = plan.shape.inventory.linears().filter(|(t, _)| t.in_layer());
    let largest = linears.map(|(_, l)| l.input * l.output).max().unwrap_or(0) as f64;
    // It is gone before the product's gradients are all there, which the layer's line counts: two
    // tensors of the MLP's width after an unadapted down projection, one after an adapted one.
    let adapted = plan.adapters.as_ref().is_some_and(|a| a.down_projection);
    let after = if adapted { 1.0 } else { 2.0 };
    let later = after * plan.shape.get(Symbol::Tokens) * plan.shape.get(Symbol::FeedForward);
    lines.product(
        line(
            Component::Temporaries,
            "the widest weight, dequantised",
            LAYER_BACKWARD,
            &[Driver::Quantization],
            "bitsandbytes multiplies with a 16-bit copy",
        ),
        &[("2", 2.0), ("(in·out − N·f·after)", (largest - later).max(0.0))],
    );
}
