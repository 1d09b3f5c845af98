//! Puts the stages together: one file in, one [`FileReport`] out.

use std::sync::Arc;
use std::time::Duration;

use crate::catalog::Architecture;
use crate::finding::Finding;
use crate::framework::Kind;
use crate::memory::{Estimate, rule_of_thumb::RuleOfThumb};
use crate::run::{TrainingRun, Unknown};
use crate::settings::Budget;
use crate::source::Source;

/// Does the run fit?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval's upper end is under the budget.
    Fits,
    /// The interval straddles the budget.
    Tight,
    /// The interval's lower end is over the budget.
    Exceeds,
    /// There is no estimate, or no budget to compare it with.
    Unknown,
}

impl Verdict {
    /// The word of the JSON contract.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Fits => "fits",
            Verdict::Tight => "tight",
            Verdict::Exceeds => "exceeds",
            Verdict::Unknown => "unknown",
        }
    }
}

/// What is known about one checked file.
#[derive(Clone, Debug)]
pub struct FileReport {
    /// The path as given or found, forward slashes. Untrusted.
    pub path: String,
    /// The file and the files it refers to; `Location::source` indexes it.
    pub sources: Vec<Arc<Source>>,
    /// Whose file it is.
    pub framework: Option<&'static str>,
    /// What kind of file.
    pub kind: Kind,
    /// The run.
    pub run: Option<TrainingRun>,
    /// Its model's shape.
    pub architecture: Option<Architecture>,
    /// What it needs.
    pub estimate: Option<Estimate>,
    /// The seed guide's first approximation.
    pub rule_of_thumb: Option<RuleOfThumb>,
    /// Why there is no estimate.
    pub unknown: Vec<Unknown>,
    /// What it may use.
    pub budget: Option<Budget>,
    /// Whether it fits.
    pub verdict: Verdict,
    /// What the rules said, after levels and suppressions, by position.
    pub findings: Vec<Finding>,
    /// How many findings a comment or a baseline silenced.
    pub suppressed: usize,
}

/// The whole run of the tool.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Recognised files, and files given by name, sorted by path.
    pub files: Vec<FileReport>,
    /// Files looked at and passed over as not ours.
    pub skipped: usize,
    /// Wall time.
    pub elapsed: Duration,
}
