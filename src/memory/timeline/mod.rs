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
use super::plan::Plan;
use super::rank::Rank;
use backward::layer_backward;
pub(crate) use forward::saved;
use forward::{cast_cache, evaluation, head_and_loss};
pub(crate) use gradients::gradients;
use weights::{inputs, reference};
pub(crate) use weights::{optimizer, weights};

/// From the first forward to the optimizer's step.
pub(crate) const STEP: &[Phase] = &[
    Phase::ForwardEnd,
    Phase::Loss,
    Phase::HeadBackward,
    Phase::BackwardTop,
    Phase::BackwardBottom,
    Phase::BackwardEnd,
    Phase::OptimizerStep,
];

/// While the layers' activations are all there.
const SAVED: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward, Phase::BackwardTop];

/// … before the last norm's backward.
const UNTIL_HEAD_BACKWARD: &[Phase] = &[Phase::ForwardEnd, Phase::Loss, Phase::HeadBackward];

/// While a layer goes backward.
const LAYER_BACKWARD: &[Phase] = &[Phase::BackwardTop, Phase::BackwardBottom];

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
    dtensor::lines(plan, rank, &mut lines);
    exchange::lines(plan, &mut lines);
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
