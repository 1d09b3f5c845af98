//! Tensor, context and expert parallelism: what of each tensor one rank has.

use super::slice::{Degrees, Slice};
use crate::memory::activations::Activations;
use crate::memory::expression::{Sum, Symbol, Symbols};
use crate::memory::parameters::{Inventory, Place, Role, Tensor};

/// Modules that split their input: the second matrix of a pair, whose bias stays whole.
const ROWS: [&str; 12] = [
    "o_proj",
    "out_proj",
    "down_proj",
    "dense",
    "dense_4h_to_h",
    "c_proj",
    "fc2",
    "w2",
    "wo",
    "fc_out",
    "proj",
    "attn_out",
];

/// The rank's tensors.
pub(crate) fn inventory(whole: &Inventory, slice: &Slice, degrees: Degrees, kv_heads: u64) -> Inventory {
    let tensors = whole
        .tensors()
        .iter()
        .filter_map(|tensor| {
            let mut mine = tensor.clone();
            match tensor.place {
                Place::Layers { first, count } => {
                    let here = slice.layers_in(first, count);
                    mine.copies = tensor.copies / count.max(1) * here;
                    // One run of layers of the same kind: how many decides, not which.
                    mine.place = Place::Layers { first, count: here };
                    (here > 0).then_some(())?;
                }
                Place::Encoder { .. } | Place::Other => {}
                Place::Embedding | Place::Vision => slice.first.then_some(())?,
                Place::FinalNorm => slice.last.then_some(())?,
                Place::Head => {
                    slice.last.then_some(())?;
                    // A tied head on another stage than the embedding is a copy of its own.
                    mine.tied = tensor.tied && slice.first;
                }
            }
            // The tower is whole on every rank: torchtune's plans (`base_llama_tp_plan`) and transformers'
            // (`base_model_tp_plan` of the text models) name the language model's layers alone.
            if tensor.place != Place::Vision {
                divide(&mut mine, degrees, kv_heads);
            }
            Some(mine)
        })
        .collect();
    whole.part(tensors)
}

fn divide(tensor: &mut Tensor, degrees: Degrees, kv_heads: u64) {
    if tensor.role == Role::Expert {
        let (experts, parts) = (degrees.expert, degrees.expert_tensor);
        let copies_are_experts = tensor.shape.len() < 3;
        if copies_are_experts {
            tensor.copies = tensor.copies.div_ceil(experts);
        } else {
            split(tensor, 0, experts);
        }
        let last = tensor.shape.len().saturating_sub(1);
        split(tensor, last, parts);
        return;
    }
    let row = ROWS.contains(&tensor.module_name());
    match tensor.role {
        Role::InputEmbedding => split(tensor, 0, degrees.tensor),
        Role::Head if tensor.place == Place::Head => split(tensor, 0, degrees.tensor),
        // The bias of a second matrix stays whole.
        Role::Attention | Role::Mlp if tensor.is_vector() && row => {}
        Role::Attention | Role::Mlp if tensor.is_vector() => split(tensor, 0, degrees.tensor),
        Role::Attention | Role::Mlp => {
            // Fewer key heads than ranks: each rank has one.
            let name = tensor.module_name();
            let key = matches!(name, "k_proj" | "v_proj");
            let parts = if key { degrees.tensor.min(kv_heads.max(1)) } else { degrees.tensor };
            split(tensor, usize::from(row && tensor.shape.len() > 1), parts);
        }
        _ => {}
    }
}

fn split(tensor: &mut Tensor, side: usize, parts: u64) {
    if let Some(size) = tensor.shape.get_mut(side) {
        *size = size.div_ceil(parts.max(1));
    }
}

/// A rank's share of the dimensions that tensor parallelism divides. An expert's width is divided where
/// experts are whole too: a rank has as many tokens fewer. A stage without head has no
/// vocabulary: nothing of logits, head or their gradients is there.
pub(crate) fn dimensions(symbols: &mut Symbols, degrees: Degrees, last: bool) {
    let divided = [
        Symbol::FeedForward,
        Symbol::Expert,
        Symbol::Heads,
        Symbol::Query,
        Symbol::QueryKeyValue,
        Symbol::LatentQuery,
        Symbol::LatentValue,
        Symbol::LatentKeyValue,
        Symbol::Vocabulary,
    ];
    for symbol in divided {
        symbols.set(symbol, (symbols.get(symbol) as u64).div_ceil(degrees.tensor));
    }
    let heads = (symbols.get(Symbol::KvHeads) as u64).max(1);
    let parts = degrees.tensor.min(heads);
    for symbol in [Symbol::KvHeads, Symbol::Key] {
        symbols.set(symbol, (symbols.get(symbol) as u64).div_ceil(parts));
    }
    if !last {
        symbols.set(Symbol::Vocabulary, 0);
    }
}

fn on_stream(symbols: &[Symbol]) -> bool {
    symbols.first() == Some(&Symbol::Tokens)
        && symbols.iter().all(|s| matches!(s, Symbol::Tokens | Symbol::Hidden))
}

fn scaled(sum: &Sum, factor: f64, which: fn(&[Symbol]) -> bool) -> Sum {
    let mut sum = sum.clone();
    for term in sum.0.iter_mut().filter(|t| which(&t.symbols)) {
        term.coefficient *= factor;
    }
    sum
}

/// Sequence parallelism splits norms, dropout and the residual stream over the tensor ranks too:
/// `34/t` where it is `10 + 24/t` without (Korthikanti et al. 2022, table 2). A layer's input is
/// gathered whole for its matrix products, and so is its gradient.
pub(crate) fn sequence_parallel(activations: &mut Activations, tensor: u64, element: f64) {
    let share = 1.0 / tensor as f64;
    for sum in [
        &mut activations.layer,
        &mut activations.checkpoint,
        &mut activations.body,
        &mut activations.transient,
    ] {
        *sum = scaled(sum, share, on_stream);
    }
    let gathered = Sum::term(2.0 * element * (1.0 - share), &[Symbol::Tokens, Symbol::Hidden]);
    activations.transient = activations.transient.clone().plus(&gathered);
}

/// Without a loss over a part of the vocabulary every rank has all logits.
pub(crate) fn gathered_logits(sum: &Sum, tensor: u64) -> Sum {
    scaled(sum, tensor as f64, |symbols| symbols == [Symbol::Tokens, Symbol::Vocabulary])
}
