//! The seed guide's estimate, kept as the explainable first approximation.

use crate::catalog::Architecture;
use crate::run::TrainingRun;
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

/// Works it out; `None` when a dimension is missing.
pub fn rule_of_thumb(run: &TrainingRun, architecture: &Architecture) -> Option<RuleOfThumb> {
    let _ = (run, architecture);
    None
}
