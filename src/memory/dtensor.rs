//! Tensor parallelism by DTensor (torchtitan, torchtune): what it gathers and keeps, and the
//! embedding's gradient.
//!
//! Between layers the sequence is split. A layer's matrix products take it whole, and autograd keeps
//! what they take: two gathered inputs a layer, and the head's. Megatron gathers them again instead.
//! Read off the blocks alive at the peaks of torchtitan 0.2.2, Llama 3 over 2 and 8 ranks.
//!
//! The table is split by rows. DTensor's `embedding_dense_backward` has no rule that gives a gradient
//! by rows: each rank makes the whole one. It waits so for the step, which cuts this rank's rows
//! out of it; FSDP cuts them out as it reduces (`_get_grad_inner_tensor`).

use super::activations::Activations;
use super::data_parallel::Strategy;
use super::expression::{Sum, Symbol, Symbols};
use super::ledger::{Component, Driver, Phase};
use super::lines::{Lines, line};
use super::loss::LossMemory;
use super::plan::Plan;
use super::rank::Rank;
use super::timeline::STEP;
use crate::run::{Checkpointing, Loss, ModelCode, TrainingRun};

const SOURCE: &str = "DTensor's rules for embedding_dense_backward; torchtitan 0.2.2, traced";
const DRIVERS: &[Driver] = &[Driver::Tensor, Driver::Model];

/// DTensor splits this run's layers, and the sequence between them.
pub(crate) fn splits(run: &TrainingRun) -> bool {
    let code = matches!(run.model_code.value, ModelCode::Torchtitan | ModelCode::Torchtune);
    code && run.lora.is_none() && run.parallelism.sequence_parallel.value && run.parallelism.tensor.value > 1
}

fn hidden(bytes: f64) -> Sum {
    Sum::term(bytes, &[Symbol::Tokens, Symbol::Hidden])
}

/// What is gathered, beside sums whose stream has been divided by the ranks.
pub(crate) fn gather(activations: &mut Activations, run: &TrainingRun, symbols: &Symbols) {
    let share = 1.0 / run.parallelism.tensor.value.max(1) as f64;
    let whole = |bytes: f64| hidden(bytes * (1.0 - share));
    let mlp = Sum::term(4.0, &[Symbol::Tokens, Symbol::FeedForward]);
    let weight = Sum::term(2.0, &[Symbol::Hidden, Symbol::FeedForward]);
    let larger = |a: Sum, b: Sum| if a.value(symbols) >= b.value(symbols) { a } else { b };
    // The inputs of attention and MLP, whole where the norms' outputs were counted.
    let inputs = whole(4.0);
    let transient = activations.transient.clone();
    activations.body = activations.body.clone().plus(&whole(2.0));
    activations.transient = match run.activation_checkpointing.value {
        Checkpointing::None | Checkpointing::Modules { .. } => {
            activations.layer = activations.layer.clone().plus(&inputs);
            // The output's gradient is gathered, then put in order; or it waits while the MLP's are made.
            larger(transient.plus(&hidden(2.0)), hidden(4.0))
        }
        Checkpointing::Selective => {
            // One output of a pair of matrices is kept whole, before it is reduced; both reduced ones are.
            activations.layer = activations.layer.clone().plus(&whole(2.0)).plus(&hidden(4.0 * share));
            let point = transient.plus(&inputs);
            let recomputed = point.clone().plus(&mlp.times(-1.0)).plus(&weight.times(-1.0));
            larger(point, recomputed.plus(&hidden(2.0 + 4.0 * share)))
        }
        Checkpointing::Full | Checkpointing::Every { .. } | Checkpointing::First { .. } => {
            activations.layer = activations.layer.clone().plus(&inputs);
            let point = transient.plus(&inputs);
            // The end of the recomputation: the gathered gradient, the last product whole, and put in
            // order to be reduced; the reduced ones and the norm's output.
            let recomputed = point.clone().plus(&mlp.times(-1.0)).plus(&weight.times(-1.0));
            larger(point, recomputed.plus(&hidden(6.0 + 4.0 * share)))
        }
    };
}

/// `loss_parallel`: log-softmax and cross entropy operation by operation in fp32 on this rank's part of
/// the vocabulary (PyTorch's `tensor/parallel/loss.py`).
pub(crate) fn loss(loss: &mut LossMemory, run: &TrainingRun) {
    if !splits(run) || !run.parallelism.vocab_parallel_loss.value || run.loss.value != Loss::Full {
        return;
    }
    let logits = |bytes: f64| Sum::term(bytes, &[Symbol::Tokens, Symbol::Vocabulary]);
    // 16-bit logits, their fp32 copy, shifted, and exponentials or the result.
    loss.forward = logits(14.0);
    loss.saved = logits(4.0);
    // The gradient's zeros, the exponentials, their sum or the product.
    loss.backward = logits(12.0);
    loss.source = "PyTorch's loss_parallel, traced with torchtitan";
}

/// Parameters of the whole table and of this rank's rows, where a rank makes the whole gradient.
pub(crate) fn tables(plan: &Plan<'_>) -> Option<(f64, f64)> {
    let rows = plan.shape.inventory.embedding() as f64;
    (splits(plan.run) && plan.slice.first).then_some((plan.whole.1 as f64, rows))
}

/// The lines of a run without FSDP, whose gradients stay as the backward made them.
pub(crate) fn lines(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let Some((whole, rows)) = tables(plan) else { return };
    if !matches!(rank.strategy, Strategy::Single | Strategy::Ddp) {
        return;
    }
    let accumulated = plan.run.gradient_accumulation_steps.value > 1;
    let live: &[Phase] = if accumulated { STEP } else { &[Phase::BackwardEnd, Phase::OptimizerStep] };
    let name = "the embedding's gradient, whole on each rank";
    lines.product(
        line(Component::Gradients, name, live, DRIVERS, SOURCE),
        &[("bytes", plan.gradient), ("(V·d − P_e)", (whole - rows).max(0.0))],
    );
    let name = "this rank's rows of the embedding's gradient";
    lines.product(
        line(Component::Temporaries, name, &[Phase::OptimizerStep], DRIVERS, SOURCE),
        &[("bytes", plan.gradient), ("P_e", rows)],
    );
}

/// Bytes of the whole gradient and the rows cut out of it, while FSDP reduces; a gradient has
/// `compute` bytes an element.
pub(crate) fn while_reduced(plan: &Plan<'_>, compute: f64) -> Option<f64> {
    tables(plan).map(|(whole, rows)| compute * (whole + rows))
}
