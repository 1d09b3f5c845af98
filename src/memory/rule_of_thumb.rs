//! The seed guide's estimate, kept as the explainable first approximation.

use super::parameters::Inventory;
use crate::catalog::Architecture;
use crate::run::{Optimizer, TrainingRun};
use crate::units::Bytes;

/// The guide's sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuleOfThumb {
    /// bytes per weight × parameters.
    pub weights: Bytes,
    /// The same again.
    pub gradients: Bytes,
    /// Two fp32 moments.
    pub optimizer: Bytes,
    /// `layers · 5 · B · L · d · bytes`.
    pub activations: Bytes,
    /// The guide's flat overhead.
    pub overhead: Bytes,
}

impl RuleOfThumb {
    /// The sum.
    pub fn total(&self) -> Bytes {
        self.weights + self.gradients + self.optimizer + self.activations + self.overhead
    }
}

/// The guide's activation factor: tensors of the hidden size that a layer keeps, it says.
const ALPHA: u64 = 5;
/// The guide's batch up to which it allows 1 GiB of overhead; above, 2 GiB.
const SMALL_BATCH: u64 = 8;

/// Works it out as the seed guide does: weights and gradients in the weights' dtype, two fp32
/// moments for Adam, one for momentum and Lion, `layers · 5 · B · L · d · bytes` of activations,
/// 1 GiB of overhead (2 GiB above eight sequences).
///
/// The guide prints 84,886,016 where `5·8·1,048,576·2` is 83,886,080, and so 1.90 and 7.59 GB
/// where its method gives 1.875 and 7.5 GiB. These are the method's numbers.
///
/// `None` when a dimension is missing.
pub fn rule_of_thumb(run: &TrainingRun, architecture: &Architecture) -> Option<RuleOfThumb> {
    let parameters = Inventory::of(architecture).ok()?.total();
    let bytes = run.weights.value.bytes();
    let tokens = run.micro_batch_size.value.checked_mul(run.sequence_length.value)?;
    let layers = architecture.layers + architecture.encoder_layers;
    let activations = [layers, ALPHA, tokens, architecture.hidden_size, bytes]
        .into_iter()
        .try_fold(1_u64, u64::checked_mul)?;
    let moments = match run.optimizer.value {
        Optimizer::Sgd => 0,
        Optimizer::SgdMomentum | Optimizer::Lion | Optimizer::Adagrad | Optimizer::Rmsprop => 1,
        _ => 2,
    };
    let overhead = if run.micro_batch_size.value <= SMALL_BATCH { 1.0 } else { 2.0 };
    let of = |count: u64| i64::try_from(count).ok().map(Bytes);
    Some(RuleOfThumb {
        weights: of(parameters.checked_mul(bytes)?)?,
        gradients: of(parameters.checked_mul(bytes)?)?,
        optimizer: of(parameters.checked_mul(4 * moments)?)?,
        activations: of(activations)?,
        overhead: Bytes::from_gib(overhead),
    })
}
