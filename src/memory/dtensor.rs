//! Tensor parallelism by DTensor (torchtitan, torchtune): the embedding's gradient.
//!
//! The table is split by rows. DTensor's `embedding_dense_backward` has no rule that gives a gradient
//! by rows: each rank makes the whole one. It waits so for the step, which cuts this rank's rows
//! out of it; FSDP cuts them out as it reduces (`_get_grad_inner_tensor`).

use super::data_parallel::Strategy;
use super::ledger::{Component, Driver, Phase};
use super::lines::{Lines, line};
use super::parallel::Degrees;
use super::plan::Plan;
use super::rank::Rank;
use super::timeline::STEP;
use crate::run::ModelCode;

const SOURCE: &str = "DTensor's rules for embedding_dense_backward; torchtitan 0.2.2, traced";
const DRIVERS: &[Driver] = &[Driver::Tensor, Driver::Model];

/// Parameters of the whole table and of this rank's rows, where a rank makes the whole gradient.
fn tables(plan: &Plan<'_>) -> Option<(f64, f64)> {
    let code = matches!(plan.run.model_code.value, ModelCode::Torchtitan | ModelCode::Torchtune);
    let split = Degrees::of(plan.run).tensor > 1 && plan.slice.first && plan.adapters.is_none();
    let rows = plan.shape.inventory.embedding() as f64;
    (code && split).then_some((plan.whole.1 as f64, rows))
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
