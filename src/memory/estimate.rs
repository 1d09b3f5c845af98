//! The estimate of the worst rank: three figures, each with an interval.

use super::ledger::{Component, Ledger, Phase};
use super::parameters::ParameterCount;
use crate::catalog::Architecture;
use crate::run::{TrainingRun, Unknown};
use crate::units::Bytes;

/// A range that holds about nine measured runs in ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Lower end.
    pub low: Bytes,
    /// Upper end.
    pub high: Bytes,
}

/// One reason why the interval is as wide as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// In words: `reserved by the allocator beyond what is allocated`.
    pub what: String,
    /// How much it may lower the figure.
    pub below: Bytes,
    /// How much it may raise it.
    pub above: Bytes,
}

/// The total of one distinct rank.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTotal {
    /// `pipeline stage 0`, `every rank`.
    pub rank: String,
    /// Peak allocated there.
    pub allocated: Bytes,
    /// When.
    pub phase: Phase,
}

/// What a run needs on its worst rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// What `torch.cuda.max_memory_allocated()` would print.
    pub allocated: Bytes,
    /// What `torch.cuda.max_memory_reserved()` would print.
    pub reserved: Bytes,
    /// What `nvidia-smi` would show: reserved, context, communication libraries.
    pub device: Bytes,
    /// The interval of `device`; budgets are compared with it.
    pub device_interval: Interval,
    /// Why it is that wide.
    pub causes: Vec<Cause>,
    /// When the peak is.
    pub phase: Phase,
    /// Which rank it is on.
    pub rank: String,
    /// Every distinct rank.
    pub ranks: Vec<RankTotal>,
    /// The worst rank's ledger.
    pub ledger: Ledger,
    /// Host memory a node needs for offloaded states.
    pub host: Bytes,
    /// Parameters, total and trained.
    pub parameters: ParameterCount,
}

impl Estimate {
    /// A component's part of the peak.
    pub fn component(&self, component: Component) -> Bytes {
        self.ledger.component(component, self.phase)
    }
}

/// Works out what `run` needs.
///
/// # Errors
/// What is missing, or what the estimator does not model, with the reason.
pub fn estimate(run: &TrainingRun, architecture: &Architecture) -> Result<Estimate, Vec<Unknown>> {
    let _ = (run, architecture);
    Err(vec![Unknown { what: "estimate".into(), why: "not supported yet".into(), location: None }])
}
