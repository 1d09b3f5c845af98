//! The moments of a step, and what is alive at each: the peak is the largest of them.
//!
//! ```text
//! forward end      states + gradients of earlier micro-batches + saved activations + head and loss
//! loss             … + log-softmax and its gradients
//! head backward    … + the logits' gradient, the head's weight gradient
//! backward top     … + one layer's transient (nothing of the body freed yet)
//! backward bottom  gradients of all layers but one + one layer's activations + its transient
//! backward end     all gradients + the embedding's halves where it is tied
//! optimizer step   all gradients + the step's temporaries
//! ```

mod backward;
mod forward;
mod gradients;
mod weights;

use super::beside;
use super::data_parallel::{self, Strategy};
use super::dtensor;
use super::exchange;
use super::ledger::{Ledger, Phase};
use super::lines::Lines;
use super::pipeline;
use super::plan::Plan;
use super::rank::Rank;
use backward::layer_backward;
pub(crate) use forward::saved;
use forward::{cast_cache, evaluation, head_and_loss};
pub(crate) use gradients::gradients;
pub(crate) use weights::{frozen_bytes, optimizer, weights};
use weights::{inputs, reference};

/// All but the loading: what the first step leaves is there in an evaluation too.
pub(crate) const AFTER_LOAD: &[Phase] = match Phase::ALL.split_first() {
    Some((_, after)) => after,
    None => &[],
};

/// From the first forward to the optimizer's step.
pub(crate) const STEP: &[Phase] = all_but_last(AFTER_LOAD);

/// From the first forward to the end of the backward.
pub(crate) const BEFORE_STEP: &[Phase] = all_but_last(STEP);

/// While layers go forward and backward.
pub(crate) const WITH_LAYERS: &[Phase] = all_but_last(BEFORE_STEP);

const fn all_but_last(phases: &'static [Phase]) -> &'static [Phase] {
    match phases.split_last() {
        Some((_, before)) => before,
        None => phases,
    }
}

/// While the layers' activations are all there.
pub(crate) const SAVED: &[Phase] = all_but_last(WITH_LAYERS);

/// … before the last norm's backward.
const UNTIL_HEAD_BACKWARD: &[Phase] = all_but_last(SAVED);

/// While a layer goes backward.
pub(crate) const LAYER_BACKWARD: &[Phase] = &[Phase::BackwardTop, Phase::BackwardBottom];

const BACKWARD: &[Phase] = &[Phase::BackwardTop, Phase::BackwardBottom, Phase::BackwardEnd];

const GRADIENTS_WHOLE: &[Phase] = &[Phase::BackwardEnd, Phase::OptimizerStep];

const TIMELINE: &str = "the engine's order of a backward pass, traced";

/// The ledger of one rank.
pub(crate) fn ledger(plan: &Plan<'_>, rank: &Rank) -> Ledger {
    let mut lines = Lines::default();
    match rank.strategy {
        Strategy::Single => {
            weights(plan, &mut lines);
            optimizer(plan, rank, &mut lines);
            gradients(plan, &mut lines);
        }
        _ => data_parallel::states(plan, rank, &mut lines),
    }
    data_parallel::forward_alone(plan, rank, &mut lines);
    dtensor::lines(plan, rank, &mut lines);
    exchange::lines(plan, &mut lines);
    pipeline::lines(plan, rank, &mut lines);
    inputs(plan, &mut lines);
    reference(plan, rank, &mut lines);
    beside::lines(plan, rank, &mut lines);
    saved(plan, rank, &mut lines);
    head_and_loss(plan, &mut lines);
    layer_backward(plan, &mut lines);
    cast_cache(plan, rank, &mut lines);
    evaluation(plan, rank, &mut lines);
    lines.finish()
}
