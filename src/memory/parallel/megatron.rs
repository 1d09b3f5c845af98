//! What Megatron's own layers save for backward, from the shapes of their tensors.
//!
//! Korthikanti et al. 2022 (section 4) give `34·N·d + 5·B·h·S²` bytes for a GPT layer in 16 bits with
//! dropout; the terms below are theirs, tensor by tensor, with the widths of this model.

use crate::catalog::{Architecture, Family};
use crate::memory::activations::Activations;
use crate::memory::expression::{Sum, Symbol};
use crate::memory::loss::LossMemory;
use crate::run::{Attention, Checkpointing, TrainingRun};

const N: Symbol = Symbol::Tokens;
const SOURCE: &str = "Megatron's layers tensor by tensor (Korthikanti et al. 2022, section 4)";

/// Replaces the layers' sums by Megatron's.
pub(crate) fn layer(activations: &mut Activations, run: &TrainingRun, architecture: &Architecture) {
    let dropout = run.dropout.value.unwrap_or(architecture.dropout) > 0.0;
    let plain = [
        Family::Gpt2,
        Family::GuideGpt,
        Family::GptNeox,
        Family::Gptj,
        Family::GptNeo,
        Family::GptBigcode,
        Family::Falcon,
        Family::Opt,
        Family::Bloom,
        Family::Mpt,
        Family::Phi,
        Family::Starcoder2,
    ];
    let gated = !plain.contains(&architecture.family);
    let hidden = |bytes: f64| Sum::term(bytes, &[N, Symbol::Hidden]);
    // Two norms: input and output of each in 16 bits; two dropout masks of a byte.
    let stream = hidden(8.0 + if dropout { 2.0 } else { 0.0 });
    // Queries, keys, values, attention's output.
    let attention = Sum::term(2.0, &[N, Symbol::QueryKeyValue]).plus(&Sum::term(2.0, &[N, Symbol::Query]));
    let whole = run.activation_checkpointing.value != Checkpointing::Selective;
    let scores = match run.attention.value {
        // Softmax's output (2), its dropout mask (1) and the dropped probabilities (2).
        Attention::Eager | Attention::SdpaMath if whole => Sum::term(
            if dropout { 5.0 } else { 2.0 },
            &[Symbol::Batch, Symbol::Heads, Symbol::Sequence, Symbol::Sequence],
        ),
        Attention::Eager | Attention::SdpaMath => Sum::default(),
        // The log-sum-exp of each row.
        _ => Sum::term(4.0, &[N, Symbol::Heads]),
    };
    let mlp = match &architecture.moe {
        // Routed tokens are copied for their experts, and their outputs kept for the weighted sum.
        Some(_) => {
            let routed = [N, Symbol::TopK, Symbol::Expert];
            Sum::term(if gated { 6.0 } else { 4.0 }, &routed)
                .plus(&Sum::term(4.0, &[N, Symbol::TopK, Symbol::Hidden]))
                .plus(&Sum::term(8.0, &[N, Symbol::Experts]))
                .plus(&Sum::term(if gated { 6.0 } else { 4.0 }, &[N, Symbol::FeedForward]))
        }
        // Input and output of the activation function; gate and up are one tensor.
        None => Sum::term(if gated { 6.0 } else { 4.0 }, &[N, Symbol::FeedForward]),
    };
    let norms = Sum::term(16.0, &[N]);
    activations.layer = stream.plus(&attention).plus(&scores).plus(&mlp).plus(&norms);
    activations.checkpoint = hidden(2.0);
    // The last norm's input and output, the embedding's dropout mask.
    activations.body = hidden(4.0 + if dropout { 1.0 } else { 0.0 });
    let width = if architecture.moe.is_some() {
        vec![N, Symbol::TopK, Symbol::Expert]
    } else {
        vec![N, Symbol::FeedForward]
    };
    // Gradients of the activation function's output and input, of the layer's input.
    let backward = Sum::term(if gated { 6.0 } else { 4.0 }, &width).plus(&hidden(2.0));
    let recomputed =
        matches!(run.activation_checkpointing.value, Checkpointing::Full | Checkpointing::Every { .. });
    activations.transient = if recomputed { backward.plus(&activations.layer) } else { backward };
    activations.source = SOURCE;
    activations.doubt = None;
}

/// Vocabulary-parallel cross entropy: 16-bit logits and their fp32 copy, which the softmax and then
/// its gradient overwrite in place; the caller lets the 16-bit ones go with the forward.
pub(crate) fn loss() -> LossMemory {
    let logits = |bytes: f64| Sum::term(bytes, &[N, Symbol::Vocabulary]);
    LossMemory {
        forward: logits(6.0),
        saved: logits(4.0),
        backward: logits(2.0),
        head_backward: Some(logits(2.0).plus(&Sum::term(2.0, &[N, Symbol::Hidden]))),
        source: "Megatron's vocabulary-parallel cross entropy: fp32 softmax in place",
    }
}
