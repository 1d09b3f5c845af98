//! Frameworks with model code of their own: where a layer keeps other tensors than transformers'.

use super::activations::Activations;
use super::adapters::Adapters;
use super::coefficients::Table;
use super::expression::{Sum, Symbol};
use super::shape::{Precision, Shape};
use crate::run::{Attention, ModelCode, Quantization, TrainingRun};

/// Is what a layer of this run's model code keeps known from that code itself?
pub(crate) fn traced(run: &TrainingRun, shape: &Shape<'_>) -> bool {
    let attends = !matches!(run.attention.value, Attention::Eager | Attention::SdpaMath);
    match run.model_code.value {
        ModelCode::Transformers => true,
        ModelCode::Torchtune => attends && matches!(shape.family, "llama" | "qwen2"),
        ModelCode::Torchtitan => {
            attends && run.fused_norms.value && run.lora.is_none() && torchtitan_table(shape).is_some()
        }
        _ => false,
    }
}

/// Turns transformers' figures into those of the run's own model code.
pub(crate) fn apply(
    activations: &mut Activations,
    run: &TrainingRun,
    shape: &Shape<'_>,
    adapters: Option<&Adapters>,
    checkpointed: bool,
) {
    match run.model_code.value {
        ModelCode::Torchtune if run.attention.value != Attention::Eager => {
            torchtune(activations);
        }
        ModelCode::Torchtitan if traced(run, shape) => torchtitan(activations, shape, checkpointed),
        ModelCode::Litgpt => litgpt(activations, run, shape, adapters),
        _ => {}
    }
}

/// torchtune's layers keep what transformers' do with a mask, but for the mask: keys and values are
/// expanded to the queries' width, and attention is plainly causal (or takes blocks of a mask).
/// Read off the saved tensors of torchtune 0.7.0's Llama and Qwen 2 layers, full and with LoRA.
fn torchtune(activations: &mut Activations) {
    let pairs = |symbols: &[Symbol]| symbols.iter().filter(|s| **s == Symbol::Sequence).count() > 1;
    for sum in [
        &mut activations.layer,
        &mut activations.checkpoint,
        &mut activations.body,
        &mut activations.transient,
    ] {
        *sum = std::mem::take(sum).without(pairs);
    }
    activations.source = "torchtune's layers: transformers' without a mask, with expanded keys and values";
}

fn torchtitan_table(shape: &Shape<'_>) -> Option<Table> {
    Table::find(&format!("torchtitan {} {}", shape.precision.key(), shape.family))
}

fn torchtitan(activations: &mut Activations, shape: &Shape<'_>, checkpointed: bool) {
    let Some(table) = torchtitan_table(shape) else { return };
    activations.layer = table.get("layer");
    activations.body = table.get("body");
    let (tokens, hidden, width) = (Symbol::Tokens, Symbol::Hidden, Symbol::FeedForward);
    // The MLP's point: gradients of the product and of one factor, and of one weight.
    let transient = Sum::term(4.0, &[tokens, width]).plus(&Sum::term(2.0, &[hidden, width]));
    activations.transient = if checkpointed {
        // Recomputed, but for the layer's input, which is the checkpoint.
        let input = Sum::term(-shape.precision.residual(), &[tokens, hidden]);
        activations.layer.clone().plus(&input).plus(&transient)
    } else {
        transient
    };
    activations.source = "traced layer of torchtitan";
}

/// LitGPT's own layers, where its code is traced.
fn litgpt(activations: &mut Activations, run: &TrainingRun, shape: &Shape<'_>, adapters: Option<&Adapters>) {
    let family = match shape.family {
        family @ ("phi" | "gpt_neox" | "falcon") => family,
        _ => "llama",
    };
    let four_bit = run.quantization.value.is_packed();
    let quantised = run.quantization.value != Quantization::None;
    let kind = match (adapters.is_some(), shape.precision) {
        (false, Precision::Half) => "full",
        (false, Precision::Mixed) => "full-mixed",
        (true, Precision::Half) => "frozen",
        (true, _) if quantised => "frozen",
        (true, Precision::Mixed) => "frozen-mixed",
        (true, Precision::Full) => "frozen-fp32",
        _ => return,
    };
    let Some(table) = Table::find(&format!("litgpt {kind} {family}")) else { return };
    let element = if kind == "frozen-fp32" { 4.0 } else { 2.0 };
    let own =
        adapters.zip(run.lora.as_ref()).map(|(a, lora)| a.saved_by_litgpt(lora, element, &shape.symbols));
    activations.layer = table.get("layer").plus(&own.unwrap_or_default());
    let a = shape.architecture;
    if family == "llama" && a.heads == a.kv_heads {
        // Traced with grouped queries, whose keys and values are expanded into copies. Without groups
        // the values stay a view of the whole product, and queries and keys beside their rotated
        // copies are kept with it.
        activations.layer =
            activations.layer.clone().plus(&Sum::term(2.0 * element, &[Symbol::Tokens, Symbol::Query]));
    }
    if adapters.is_some() && four_bit && run.quantized_inputs_kept.value {
        // bitsandbytes up to 0.43.2 keeps the input of every 4-bit layer (`MatMul4Bit`): the norms'
        // outputs and the MLP's product. Attention's output is kept anyway.
        let norms = if matches!(family, "phi" | "falcon") { 2.0 } else { 4.0 };
        activations.layer = activations
            .layer
            .clone()
            .plus(&Sum::term(norms, &[Symbol::Tokens, Symbol::Hidden]))
            .plus(&Sum::term(2.0, &[Symbol::Tokens, Symbol::FeedForward]));
    }
    activations.source = "traced block of LitGPT";
}
