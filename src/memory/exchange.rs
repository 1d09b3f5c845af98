//! What ranks of model parallelism hand to each other inside a step, and the room it takes.
//!
//! Keys and values between context ranks, tokens between experts' ranks. Tensor parallelism's gathered
//! inputs are in the layers' sums, what goes between pipeline stages in `pipeline`.

use super::expression::{Sum, Symbol};
use super::ledger::{Component, Driver};
use super::lines::{Lines, line};
use super::parallel::Degrees;
use super::plan::Plan;
use super::timeline::LAYER_BACKWARD;
use crate::run::{ContextExchange, ModelCode, TrainingRun};

const N: Symbol = Symbol::Tokens;

/// Tensor-parallel ranks that a micro-batch's tokens are divided over between the layers.
fn token_shares(run: &TrainingRun) -> f64 {
    if run.parallelism.sequence_parallel.value { Degrees::of(run).tensor as f64 } else { 1.0 }
}

/// The lines of one rank.
pub(crate) fn lines(plan: &Plan<'_>, lines: &mut Lines) {
    let degrees = Degrees::of(plan.run);
    if degrees.context > 1 {
        context(plan, degrees.context as f64, lines);
    }
    if degrees.expert > 1 {
        experts(plan, lines);
    }
}

/// Bytes a token of attention's backward beyond its own gradients, on one of `ranks`, and who says so.
///
/// `q` and `k` are the widths of this rank's query and key heads, elements have 16 bits.
fn exchanged(plan: &Plan<'_>, ranks: f64) -> (Sum, &'static str) {
    let per_token =
        |query: f64, key: f64| Sum::term(query, &[N, Symbol::Query]).plus(&Sum::term(key, &[N, Symbol::Key]));
    let code = plan.run.model_code.value;
    match (plan.run.parallelism.context_exchange.value, code) {
        // Keys, values and their gradients, twice; one rank's gradients of all three.
        (ContextExchange::Ring, ModelCode::Megatron) => {
            (per_token(2.0, 20.0), "Transformer Engine's AttnFuncWithCPAndKVP2P.backward")
        }
        // All keys and values, and all their gradients.
        (ContextExchange::AllGather, ModelCode::Megatron) => {
            (per_token(0.0, 8.0 * ranks), "Transformer Engine's AttnFuncWithCPAndKVAllGather.backward")
        }
        // fp32 sums of the gradients, those that travel and those that arrive; keys and values.
        (ContextExchange::Ring, ModelCode::Torchtitan) => {
            (per_token(4.0, 32.0), "PyTorch's _templated_ring_attention_backward, all-to-all")
        }
        (ContextExchange::AllGather, _) => {
            (per_token(4.0, 28.0 + 4.0 * ranks), "PyTorch's _templated_ring_attention_backward, all-gather")
        }
        // A block's gradients in 16 bits, their sums in fp32, those that arrive; keys and values.
        (ContextExchange::Ring, _) => {
            (per_token(6.0, 24.0), "ring-flash-attention's ring_flash_attn_backward")
        }
        // One key head at a time: two gathered copies and the gradients.
        (ContextExchange::GatherByHead, _) => (
            Sum::term(12.0 * ranks, &[N, Symbol::HeadWidth]),
            "ring-flash-attention's llama3_flash_attn_varlen_backward, heads_k_stride 1",
        ),
        // Queries, keys and values go out contiguous and come back in a buffer of their size.
        (ContextExchange::AllToAll, _) => (
            Sum::term(4.0, &[N, Symbol::QueryKeyValue]),
            "DeepSpeed's single_all_to_all: a copy and a buffer",
        ),
    }
}

/// Attention goes backward when the MLP of its layer has given back the outputs of its matrices: what
/// is exchanged counts where it is more than they were.
fn context(plan: &Plan<'_>, ranks: f64, lines: &mut Lines) {
    let (sum, source) = exchanged(plan, ranks);
    let width: &[Symbol] = if plan.shape.architecture.moe.is_some() {
        &[N, Symbol::TopK, Symbol::Expert]
    } else {
        &[N, Symbol::FeedForward]
    };
    let given_back = Sum::term(4.0, width);
    let symbols = &plan.shape.symbols;
    let beyond = sum.value(symbols) - given_back.value(symbols);
    if beyond <= 0.0 {
        return;
    }
    lines.worded(
        line(
            Component::Communication,
            "keys, values and their gradients between context ranks",
            LAYER_BACKWARD,
            &[Driver::Context, Driver::SequenceLength, Driver::MicroBatchSize],
            source,
        ),
        &format!("{} − {}", sum.symbolic(symbols), given_back.symbolic(symbols)),
        beyond,
    );
}

/// Tokens sent to their experts' ranks and received from others: twice the routed tokens, on average.
fn experts(plan: &Plan<'_>, lines: &mut Lines) {
    lines.sum(
        line(
            Component::Communication,
            "tokens on their way between experts' ranks",
            LAYER_BACKWARD,
            &[Driver::Expert, Driver::SequenceLength, Driver::MicroBatchSize],
            "a send and a receive buffer of the all-to-all: Megatron's MoEAlltoAllTokenDispatcher, \
             torchtitan's ExpertParallel",
        ),
        None,
        &Sum::term(4.0 / token_shares(plan.run), &[N, Symbol::TopK, Symbol::Hidden]),
        &plan.shape.symbols,
    );
}

/// Bytes of the buffers that PyTorch's stages once made for the activations and gradients of every
/// micro-batch; those of 2.15 are made as they are received (`_RecvInfo.allocate_buffer`).
pub(crate) fn receive_buffers(plan: &Plan<'_>) -> f64 {
    let run = plan.run;
    // Where `step` returned its outputs they are counted.
    if plan.live.is_none() || run.keep_logits.value {
        return 0.0;
    }
    let each = plan.shape.precision.residual() * plan.shape.get(N) * plan.shape.get(Symbol::Hidden)
        / token_shares(run);
    2.0 * run.gradient_accumulation_steps.value as f64 * each
}

/// Routed tokens that a rank may get beyond its share, as a part of it: an upper end and its reason.
///
/// With a capacity that; else what was measured: the busiest expert of a model of 1B trained with an
/// auxiliary loss got 0.72 more than its share (MaxVio, Wang et al. 2024, arXiv 2408.15664, table 2),
/// never more than all tokens can.
pub(crate) fn imbalance(plan: &Plan<'_>) -> Option<f64> {
    const BUSIEST: f64 = 0.72;
    let moe = plan.shape.architecture.moe.as_ref()?;
    let ranks = Degrees::of(plan.run).expert;
    if ranks < 2 {
        return None;
    }
    let here = moe.experts as f64 / ranks as f64;
    let share = moe.experts_per_token as f64 / ranks as f64;
    let all = (moe.experts_per_token as f64).min(here) / share.max(f64::MIN_POSITIVE) - 1.0;
    let most = plan.run.parallelism.expert_capacity.as_ref().map_or(BUSIEST, |c| (c.value - 1.0).max(0.0));
    Some(most.min(all))
}
