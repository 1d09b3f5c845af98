//! Logits and what becomes of them: the largest single source of error in estimates by rule of
//! thumb, up to 16 bytes a logit.

use super::coefficients::Table;
use super::expression::{Sum, Symbol, Symbols};
use crate::run::Loss;

const LOGITS: &[Symbol] = &[Symbol::Tokens, Symbol::Vocabulary];
const HEAD_WEIGHT: &[Symbol] = &[Symbol::Vocabulary, Symbol::Hidden];
const HIDDEN: &[Symbol] = &[Symbol::Tokens, Symbol::Hidden];

/// What the loss depends on beside the table of its family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LossContext {
    /// The variant.
    pub(crate) loss: Loss,
    /// Bytes of a logit as the head makes it.
    pub(crate) logit: f64,
    /// The head's weight is stored in fp32 and cast under autocast.
    pub(crate) cast_head: bool,
    /// PEFT trains a copy of the head in fp32 under autocast, over a 16-bit base.
    pub(crate) saved_head: bool,
    /// The forward runs under autocast (cross entropy then casts 16-bit logits up itself).
    pub(crate) autocast: bool,
    /// The head's weight gets a gradient.
    pub(crate) head_trained: bool,
    /// Logits are soft-capped (Gemma 2): the tanh's output is one more copy.
    pub(crate) capped: bool,
    /// The fused loss is Liger's own.
    pub(crate) liger: bool,
    /// The caller holds the logits until the step ends.
    pub(crate) keep_logits: bool,
    /// The loss is compiled.
    pub(crate) compiled: bool,
    /// An encoder-decoder: logits are of the decoder's tokens.
    pub(crate) target: bool,
    /// How a loss in chunks goes about it.
    pub(crate) chunks: Chunks,
}

/// Whose chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// All chunks' logits first, then upcast one by one.
    Logits,
    /// The same in torchtune's transformer, whose head runs once a chunk.
    HeadFirst,
    /// Head and loss chunk by chunk.
    HeadInside,
    /// LitGPT's, which come in fp32 already.
    Litgpt,
}

/// The loss's memory beyond the body's activations, as sums of bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct LossMemory {
    /// Most while the head and the loss run forward.
    pub(crate) forward: Sum,
    /// Kept until backward.
    pub(crate) saved: Sum,
    /// Temporaries at the start of the loss's backward, beyond `saved`.
    pub(crate) backward: Sum,
    /// While the head's matrix products run backward; `None`: already done in the forward.
    pub(crate) head_backward: Option<Sum>,
    /// Where it comes from.
    pub(crate) source: &'static str,
}

/// Works out the loss for `table`'s family.
pub(crate) fn loss(cx: LossContext, table: Table, symbols: &Symbols) -> LossMemory {
    let mut memory = match cx.loss {
        Loss::Full if cx.saved_head => full_with_cast_head(cx, table),
        Loss::Full => full(table),
        Loss::FullUpcastShifted => upcast_shifted(cx),
        Loss::FullShifted => shifted(cx),
        Loss::FullShiftedNoUpcast => shifted_no_upcast(cx),
        Loss::FullNoUpcast => no_upcast(cx),
        Loss::FusedSoftmax => fused_softmax(cx),
        Loss::LogProbabilities => log_probabilities(cx, false),
        Loss::ComparedLogProbabilities => log_probabilities(cx, true),
        Loss::Chunked { chunked } => chunks(cx, chunked),
        Loss::Fused => return fused(cx, symbols),
        Loss::Tiled => return tiled(cx, symbols),
    };
    if cx.compiled {
        compiled(cx, &mut memory);
    }
    // The fused softmax saves the very logits that the caller holds; LitGPT's are counted.
    let counted = cx.loss == Loss::FusedSoftmax || cx.chunks == Chunks::Litgpt;
    if cx.keep_logits && !counted {
        memory.saved = memory.saved.plus(&Sum::term(held_logit(cx.loss, cx.logit), LOGITS));
    }
    let mut head = chunked_head_backward(cx).unwrap_or_else(|| head_backward(cx, &memory.saved));
    if cx.target {
        for sum in [&mut memory.forward, &mut memory.saved, &mut memory.backward, &mut head] {
            of_the_decoder(sum);
        }
    }
    let cast = cast_gradient(cx);
    memory.head_backward = Some(if cast.value(symbols) > head.value(symbols) { cast } else { head });
    memory
}

/// After the products: the gradient of the head's 16-bit copy beside what it becomes in fp32.
fn cast_gradient(cx: LossContext) -> Sum {
    if !(cx.cast_head && cx.head_trained) {
        return Sum::default();
    }
    let held = if cx.keep_logits { held_logit(cx.loss, cx.logit) } else { 0.0 };
    Sum::term(6.0, HEAD_WEIGHT).plus(&Sum::term(2.0, HIDDEN)).plus(&Sum::term(held, LOGITS))
}

/// Bytes of a logit as the model returns it: transformers before 4.46 upcast before the loss.
pub(crate) fn held_logit(loss: Loss, logit: f64) -> f64 {
    if loss == Loss::FullShifted { 4.0 } else { logit }
}

/// Tokens are the decoder's.
fn of_the_decoder(sum: &mut Sum) {
    for symbol in sum.0.iter_mut().flat_map(|term| &mut term.symbols) {
        if *symbol == Symbol::Tokens {
            *symbol = Symbol::TargetTokens;
        }
    }
}

/// Transformers from 4.49: logits, `.float()`, log-softmax; backward holds the log-softmax, the
/// gradient of the negative log-likelihood and the gradient of the log-softmax, 4 bytes each.
fn full(table: Table) -> LossMemory {
    LossMemory {
        forward: table.get("head-forward"),
        saved: table.get("head"),
        backward: table.get("loss-backward"),
        head_backward: None,
        source: "transformers' own loss, traced",
    }
}

/// The same over a head in `modules_to_save`: its 16-bit cast and its input stay as well.
fn full_with_cast_head(cx: LossContext, table: Table) -> LossMemory {
    let mut memory = full(table);
    let kept = cast_inputs(cx);
    memory.forward = memory.forward.plus(&kept);
    memory.saved = memory.saved.plus(&kept);
    memory
}

/// The head's weight in 16 bits and its input, kept by the autocast head.
fn cast_inputs(cx: LossContext) -> Sum {
    if !cx.cast_head {
        return Sum::default();
    }
    Sum::term(2.0, HEAD_WEIGHT).plus(&Sum::term(2.0, HIDDEN))
}

/// Transformers before 4.46: upcast, a shifted contiguous copy and the log-softmax, all in fp32.
fn shifted(cx: LossContext) -> LossMemory {
    let cast = if cx.cast_head { Sum::term(2.0, HEAD_WEIGHT) } else { Sum::default() };
    LossMemory {
        forward: Sum::term(12.0, LOGITS).plus(&cast),
        saved: Sum::term(4.0, LOGITS).plus(&cast),
        backward: Sum::term(8.0, LOGITS),
        head_backward: None,
        source: "fp32 logits, their shifted copy, log-softmax (transformers before 4.46), traced",
    }
}

/// Transformers 4.46 to 4.48: the model still holds the head's logits while its loss function
/// upcasts them and shifts that with a copy (`ForCausalLMLoss` of those releases).
fn upcast_shifted(cx: LossContext) -> LossMemory {
    let memory = shifted(cx);
    let held = if cx.logit < 4.0 { cx.logit } else { 0.0 };
    LossMemory {
        forward: memory.forward.plus(&Sum::term(held, LOGITS)),
        source: "logits, an fp32 copy, its shifted copy, log-softmax (transformers 4.46 to 4.48)",
        ..memory
    }
}

/// Logits and their shifted copy in the head's precision. Under autocast the log-softmax is in fp32
/// and keeps the 16-bit copy; the trainer's fp32 copy of the logits is made beside them (accelerate).
fn shifted_no_upcast(cx: LossContext) -> LossMemory {
    let w = cx.logit;
    let kept = cast_inputs(cx);
    let (forward, saved, backward) =
        if cx.autocast && w < 4.0 { (2.0 * w + 8.0, w + 4.0, 4.0) } else { (3.0 * w, w, 2.0 * w) };
    LossMemory {
        forward: Sum::term(forward, LOGITS).plus(&kept),
        saved: Sum::term(saved, LOGITS).plus(&kept),
        backward: Sum::term(backward, LOGITS),
        head_backward: None,
        source: "logits and their shifted copy, cross entropy without an explicit upcast",
    }
}

/// Cross entropy straight on the head's logits: logits and log-softmax of one size, then two
/// gradients of it. Autocast casts 16-bit logits up itself.
fn no_upcast(cx: LossContext) -> LossMemory {
    let w = cx.logit;
    let cap = Sum::term(if cx.capped { w } else { 0.0 }, LOGITS);
    let kept = cast_inputs(cx).plus(&cap);
    let (forward, saved, backward) =
        if cx.autocast && w < 4.0 { (8.0, 6.0, 4.0) } else { (2.0 * w, w, 2.0 * w) };
    LossMemory {
        forward: Sum::term(forward, LOGITS).plus(&kept),
        saved: Sum::term(saved, LOGITS).plus(&kept),
        backward: Sum::term(backward, LOGITS),
        head_backward: None,
        source: "cross entropy on the head's logits without upcast, traced",
    }
}

/// One kernel reads the logits, keeps a log-sum-exp a token (and the loss of each), and makes the
/// gradient in a tensor of its own.
fn fused_softmax(cx: LossContext) -> LossMemory {
    let kept = cast_inputs(cx);
    let rows = Sum::term(8.0, &[Symbol::Tokens]);
    LossMemory {
        forward: Sum::term(cx.logit, LOGITS).plus(&kept).plus(&rows),
        saved: Sum::term(cx.logit, LOGITS).plus(&kept).plus(&rows),
        backward: Sum::term(cx.logit, LOGITS),
        head_backward: None,
        source: "flash-attn's cross entropy: logits and log-sum-exp kept, one gradient, not in place",
    }
}

/// fp32 logits that are held for the metrics, a contiguous copy without the last position, and the
/// log-softmax; of these the first and the last stay while a reference goes through the same.
/// Backward holds the log-softmax, the gradient of the gathered values and the log-softmax's.
fn log_probabilities(cx: LossContext, compared: bool) -> LossMemory {
    let kept = cast_inputs(cx);
    LossMemory {
        forward: Sum::term(if compared { 20.0 } else { 12.0 }, LOGITS).plus(&kept),
        saved: Sum::term(4.0, LOGITS).plus(&kept),
        backward: Sum::term(8.0, LOGITS),
        head_backward: None,
        source: "LLaMA-Factory's get_batch_logps over fp32 logits, traced",
    }
}

/// The head run chunk by chunk: all chunks' logits (w) and log-softmaxes (4) stay, only the fp32
/// copy (4) and the two gradients (8) are of one chunk.
fn chunks(cx: LossContext, chunks: u32) -> LossMemory {
    let share = 1.0 / f64::from(chunks.max(1));
    let cast = if cx.cast_head { Sum::term(2.0, HEAD_WEIGHT) } else { Sum::default() };
    match cx.chunks {
        Chunks::Litgpt => return litgpt(cx, share),
        Chunks::HeadInside => {
            // Tokens that count are gathered into a tensor of their own before the head.
            let gathered = Sum::term(cx.logit, HIDDEN);
            let upcast = if cx.logit < 4.0 { 4.0 } else { 0.0 };
            return LossMemory {
                forward: Sum::term(4.0 + (cx.logit + upcast) * share, LOGITS).plus(&gathered).plus(&cast),
                saved: Sum::term(4.0, LOGITS).plus(&gathered).plus(&cast),
                backward: Sum::term(8.0 * share, LOGITS),
                head_backward: None,
                source: "head and loss chunk by chunk, each log-softmax kept; traced with torchtune",
            };
        }
        Chunks::Logits | Chunks::HeadFirst => {}
    }
    LossMemory {
        forward: Sum::term(cx.logit + 4.0 + 4.0 * share, LOGITS).plus(&cast),
        saved: Sum::term(4.0, LOGITS).plus(&cast),
        backward: Sum::term(8.0 * share, LOGITS),
        head_backward: None,
        source: "logits in chunks, upcast one by one; traced for 8 chunks",
    }
}

/// Lightning Fabric hands 16-bit logits out in fp32, and the caller holds them until the step ends.
/// Adapters: the head runs in chunks, each keeps its log-softmax. Full training: the shifted logits
/// are copied for the chunks, and the chunks' gradients are put together in one tensor.
fn litgpt(cx: LossContext, share: f64) -> LossMemory {
    // The last step's logits go only when these, in both dtypes, are there.
    let (copied, gradients) = match (cx.head_trained, cx.logit < 4.0) {
        (true, _) => (4.0, 4.0),
        (false, true) => (cx.logit, 8.0 * share),
        (false, false) => (0.0, 8.0 * share),
    };
    // autocast casts a frozen head anew for each chunk, and each is kept.
    let heads = if cx.cast_head && !cx.head_trained { (1.0 / share).round() } else { 0.0 };
    let cast = Sum::term(2.0 * heads, HEAD_WEIGHT);
    LossMemory {
        forward: Sum::term(8.0 + copied, LOGITS).plus(&cast),
        saved: Sum::term(8.0, LOGITS).plus(&cast),
        backward: Sum::term(gradients, LOGITS),
        head_backward: None,
        source: "LitGPT's chunked cross entropy on the fp32 logits that Fabric returns",
    }
}

/// A compiled loss fuses upcast, log-softmax and their backward: what is left is the logits in the
/// dtype in which they enter and one gradient of that size. torchtune and torchtitan upcast before
/// the compiled part unless they chunk.
fn compiled(cx: LossContext, memory: &mut LossMemory) {
    let w = cx.logit;
    let cast = cast_inputs(cx);
    let (enters, share) = match cx.loss {
        Loss::Chunked { chunked } => (w, 1.0 / f64::from(chunked.max(1))),
        Loss::FullNoUpcast => (w, 1.0),
        _ => (4.0, 1.0),
    };
    let upcast = if enters > w { w } else { 0.0 };
    memory.forward = Sum::term(enters + upcast, LOGITS).plus(&cast);
    memory.saved = Sum::term(enters, LOGITS).plus(&cast);
    memory.backward = Sum::term((enters + upcast) * share, LOGITS);
    memory.source = "a compiled loss keeps the logits and makes one gradient";
}

/// Liger's rule for the rows of one chunk: `nextpow2(⌈N / ⌈V/d⌉⌉)`.
fn liger_chunk(symbols: &Symbols) -> f64 {
    let (tokens, hidden) = (symbols.get(Symbol::Tokens), symbols.get(Symbol::Hidden).max(1.0));
    let parts = (symbols.get(Symbol::Vocabulary) / hidden).ceil().max(1.0);
    let rows = (tokens / parts).ceil().max(1.0) as u64;
    (rows.next_power_of_two() as f64).min(tokens)
}

/// Liger's fused linear cross entropy: gradients of the hidden states and of the head are made in
/// the forward, chunk by chunk; the logits of one chunk exist at a time.
fn fused(cx: LossContext, symbols: &Symbols) -> LossMemory {
    let w = if cx.cast_head { 2.0 } else { cx.logit };
    let cast = Sum::term(if cx.cast_head { 2.0 } else { 0.0 }, HEAD_WEIGHT);
    let head = Sum::term(if cx.head_trained { w } else { 0.0 }, HEAD_WEIGHT);
    let saved = Sum::term(w, HIDDEN).plus(&head).plus(&cast);
    let chunk = Sum::term(liger_chunk(symbols) * w, &[Symbol::Vocabulary]);
    // Each chunk's part of the head's gradient is a matrix of its own before it is added; Liger adds
    // it in place where hidden states and head have one dtype (0.8, `_can_use_mm_out`), and elsewhere
    // holds the head's cast besides.
    let part = match (cx.liger, cx.cast_head) {
        (true, false) => Sum::default(),
        (true, true) => head.times(2.0),
        (false, _) => head,
    };
    LossMemory {
        forward: saved.clone().plus(&chunk).plus(&part),
        saved,
        backward: Sum::default(),
        head_backward: None,
        source: "Liger's fused linear cross entropy, traced",
    }
}

/// Tokens of a tile (`TOKEN_CHUNK_SIZE`, trl 1.16 `kernels/chunked_logprob.py`).
const TILE_TOKENS: f64 = 4096.0;
/// Vocabulary of a tile (`_CHUNKED_LOGPROB_CHUNK_SIZE`, `trainer/utils.py`).
const TILE_VOCABULARY: f64 = 32_768.0;

/// The hidden states of the labelled positions are copied; one tile's buffer is made in its full
/// width, with 16-bit copies of the tile's inputs where those are fp32. The backward sums the
/// gradients of hidden states and head in fp32, and casts them at its end.
fn tiled(cx: LossContext, symbols: &Symbols) -> LossMemory {
    let wide = if cx.cast_head { 4.0 } else { cx.logit };
    let rows = symbols.get(Symbol::Tokens).min(TILE_TOKENS);
    let columns = symbols.get(Symbol::Vocabulary).min(TILE_VOCABULARY);
    let copied = Sum::term(wide, HIDDEN);
    let mut tile = Sum::term(cx.logit * rows * TILE_VOCABULARY, &[]);
    if cx.logit < wide {
        tile = tile.plus(&Sum::term(cx.logit * (rows + columns), &[Symbol::Hidden]));
    }
    let trained = if cx.head_trained { 1.0 } else { 0.0 };
    let cast = if wide < 4.0 { wide } else { 0.0 };
    let gradients = Sum::term(4.0 + cast, HIDDEN).plus(&Sum::term(trained * (4.0 + cast), HEAD_WEIGHT));
    LossMemory {
        forward: copied.clone().plus(&tile),
        saved: copied.clone(),
        backward: Sum::default(),
        head_backward: Some(copied.plus(&tile).plus(&gradients)),
        source: "TRL's fused head: tiles of 4,096 tokens by 32,768 entries, gradients in fp32",
    }
}

/// A head that ran once a chunk gets one gradient a chunk, and the engine adds the second to the
/// first out of place: three at once, beside what the chunks still to come keep. Later ones are
/// added in place.
fn chunked_head_backward(cx: LossContext) -> Option<Sum> {
    let Loss::Chunked { chunked } = cx.loss else { return None };
    let waiting = match cx.chunks {
        Chunks::HeadInside => 4.0,
        Chunks::HeadFirst => cx.logit,
        Chunks::Logits | Chunks::Litgpt => return None,
    };
    let share = 1.0 / f64::from(chunked.max(1));
    let copies = match (cx.head_trained, chunked) {
        (false, _) => 0.0,
        (true, 0 | 1) => 1.0,
        (true, _) => 3.0,
    };
    let left = (1.0 - 2.0 * share).max(0.0);
    let gathered = if cx.chunks == Chunks::HeadInside { 1.0 } else { 0.0 };
    Some(
        Sum::term(waiting * left + if copies == 1.0 { cx.logit } else { 0.0 }, LOGITS)
            .plus(&Sum::term(copies * cx.logit, HEAD_WEIGHT))
            // Each chunk's gradient is put into zeros of the whole, and those are added up.
            .plus(&Sum::term((gathered + 3.0) * cx.logit, HIDDEN)),
    )
}

/// The logits' gradient, the head's weight gradient and the hidden states' gradient, beside what
/// the head keeps of its inputs.
fn head_backward(cx: LossContext, saved: &Sum) -> Sum {
    let w = cx.logit;
    let inputs = saved.clone().without(|symbols| symbols == LOGITS);
    let held = match (cx.keep_logits, cx.chunks) {
        (false, _) => Sum::default(),
        (true, Chunks::Litgpt) => Sum::term(4.0, LOGITS),
        (true, _) => Sum::term(held_logit(cx.loss, w), LOGITS),
    };
    let weight = Sum::term(if cx.head_trained { w } else { 0.0 }, HEAD_WEIGHT);
    inputs.plus(&held).plus(&Sum::term(w, LOGITS)).plus(&weight).plus(&Sum::term(w, HIDDEN))
}
