//! Weights that are gathered for a forward without a backward: an evaluation, or generation.

use super::fsdp::{FSDP, wrapped};
use super::zero::live_elements;
use super::{SHARDED, Strategy, layer_bytes};
use crate::memory::ledger::{Component, Driver, Phase};
use crate::memory::lines::{Lines, line};
use crate::memory::plan::Plan;
use crate::memory::rank::Rank;
use crate::run::TrainingRun;

const GENERATION: &str = "TRL's unwrap_model_for_generation gathers every parameter of a ZeRO-3 model until the texts \
                          are there; DeepSpeed's hybrid engine does with pinned parameters";

/// Does the run's own model go forward outside of the training step?
fn goes_forward(run: &TrainingRun) -> bool {
    run.eval_batch_size.is_some() || run.beside.rollout.as_ref().is_some_and(|rollout| rollout.by_model())
}

/// Bytes of the weights that ZeRO-3 makes whole for as long as texts are generated.
pub(crate) fn gathered_to_generate(plan: &Plan<'_>, rank: &Rank) -> f64 {
    let rollout = plan.run.beside.rollout.as_ref();
    let gathers = rollout.is_some_and(|rollout| rollout.by_model() && rollout.gathers.value);
    let divided = matches!(rank.strategy, Strategy::Zero { stage: 3, shards } if shards > 1.0);
    if gathers && divided { layer_bytes(plan, plan.run.gathered_bytes()) * plan.whole.0 as f64 } else { 0.0 }
}

/// What one rank holds of others' weights meanwhile.
pub(crate) fn forward_alone(plan: &Plan<'_>, rank: &Rank, lines: &mut Lines) {
    let run = plan.run;
    if !goes_forward(run) {
        return;
    }
    let whole = gathered_to_generate(plan, rank);
    match rank.strategy {
        Strategy::Zero { stage: 3, .. } if whole > 0.0 => lines.product(
            line(
                Component::Weights,
                "whole weights, gathered to generate",
                &[Phase::Evaluation],
                &[Driver::DataParallel, Driver::Rollout, Driver::Model],
                GENERATION,
            ),
            &[("bytes", whole / plan.whole.0 as f64), ("P", plan.whole.0 as f64)],
        ),
        Strategy::Zero { stage: 3, .. } => lines.product(
            line(
                Component::Communication,
                "gathered weights of a forward alone",
                &[Phase::Evaluation],
                &[Driver::ZeroBuffers, Driver::DataParallel],
                "DeepSpeed ZeRO, traced",
            ),
            &[
                ("bytes", layer_bytes(plan, plan.run.gathered_bytes())),
                ("min(P, max_live_parameters)", live_elements(plan)),
            ],
        ),
        Strategy::Fsdp { reshard, .. } => {
            // FSDP2 needs no gathering to generate, FSDP1 that of the root group alone
            // (`summon_full_params(recurse=False)`): layers come and go as in any forward.
            let (layer, root) = wrapped(plan);
            let compute = plan.run.gathered_bytes();
            let part = layer_bytes(plan, compute) / compute;
            let (formula, gathered) = if reshard {
                ("P_r + P_l", root + layer * part)
            } else {
                ("P", root + plan.shape.inventory.in_layers() as f64 * part)
            };
            lines.product(
                line(
                    Component::Communication,
                    "gathered weights of a forward alone",
                    &[Phase::Evaluation],
                    SHARDED,
                    FSDP,
                ),
                &[("bytes", compute), (formula, gathered)],
            );
        }
        _ => {}
    }
}
