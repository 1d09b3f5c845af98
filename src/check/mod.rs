//! Puts the stages together: files in, one [`FileReport`] each out.

mod answer;
mod broken;
mod budget;
mod file;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use self::file::{Outcome, check_file};
pub use self::file::{Rewrite, check_bytes};
use crate::catalog::Architecture;
use crate::catalog::models::Lookup;
use crate::discover::Found;
use crate::finding::{Finding, Severity};
use crate::framework::Kind;
use crate::memory::rule_of_thumb::RuleOfThumb;
use crate::memory::{Estimate, Floor};
use crate::run::{TrainingRun, Unknown};
use crate::settings::{Budget, BudgetTable, SettingsTree};
use crate::source::Source;

/// Does the run fit?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The interval's upper end is under the budget.
    Fits,
    /// The interval straddles the budget.
    Tight,
    /// The interval's lower end is over the budget; without an estimate, the floor is.
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

    /// How much it needs looking at: exceeds, tight, unknown, fits.
    pub fn gravity(self) -> u8 {
        match self {
            Verdict::Exceeds => 3,
            Verdict::Tight => 2,
            Verdict::Unknown => 1,
            Verdict::Fits => 0,
        }
    }

    /// Compares an estimate with a budget.
    pub fn of(estimate: Option<&Estimate>, budget: Option<&Budget>) -> Verdict {
        let (Some(estimate), Some(budget)) = (estimate, budget) else { return Verdict::Unknown };
        if estimate.device_interval.low > budget.memory {
            Verdict::Exceeds
        } else if estimate.device_interval.high <= budget.memory {
            Verdict::Fits
        } else {
            Verdict::Tight
        }
    }

    /// Without an estimate: the least that is certain may be too much already.
    pub fn of_floor(floor: Option<&Floor>, budget: Option<&Budget>) -> Verdict {
        match (floor, budget) {
            (Some(floor), Some(budget)) if floor.total() > budget.memory => Verdict::Exceeds,
            _ => Verdict::Unknown,
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
    /// What it needs at the least, where there is no estimate and its states are known.
    pub floor: Option<Floor>,
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
    /// Recognised files, and files given by name that are broken, sorted by path.
    pub files: Vec<FileReport>,
    /// Files looked at and passed over as not ours, with their paths when given by name.
    pub skipped: usize,
    /// Files given by name that nobody recognises.
    pub not_recognised: Vec<String>,
    /// Wall time.
    pub elapsed: Duration,
}

impl Report {
    /// The worst severity among all findings.
    pub fn worst(&self) -> Option<Severity> {
        self.files.iter().flat_map(|f| &f.findings).map(|f| f.severity).max()
    }
}

/// Everything a check needs beside the file.
#[derive(Debug, Default)]
pub struct Context {
    /// Where relative paths are relative to.
    pub working_directory: PathBuf,
    /// `llmlint.toml` files.
    pub settings: SettingsTree,
    /// `--gpu`, `--gpus`, `--budget`: they win over everything a file or `llmlint.toml` says.
    pub command_line: BudgetTable,
    /// Where models are looked up.
    pub lookup: Lookup,
    /// `--select`: only these rules; empty: all.
    pub select: Vec<String>,
    /// `--ignore`: not these.
    pub ignore: Vec<String>,
}

/// Most findings kept in all.
const FINDINGS_A_RUN: usize = 1000;

/// A file given by name that could not be read: the tool could not do its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The path as given.
    pub path: String,
    /// The system's reason.
    pub why: String,
}

/// Checks files in parallel. The result is the same whatever the number of threads.
///
/// # Errors
/// A file given by name cannot be read.
pub fn check_files(files: &[Found], context: &Context) -> Result<Report, Vec<Unreadable>> {
    check_files_watched(files, context, &|| {})
}

/// The same, with a word after each file, from whatever thread it was checked on.
///
/// # Errors
/// A file given by name cannot be read.
pub fn check_files_watched(
    files: &[Found],
    context: &Context,
    done: &(dyn Fn() + Sync),
) -> Result<Report, Vec<Unreadable>> {
    let start = Instant::now();
    let check = |file: &Found| {
        let outcome = check_file(file, context);
        done();
        outcome
    };
    let outcomes: Vec<Outcome> = files.par_iter().map(check).collect();
    let mut report = Report::default();
    let mut unreadable = Vec::new();
    for (file, outcome) in files.iter().zip(outcomes) {
        match outcome {
            Outcome::Checked(checked) => report.files.push(*checked),
            Outcome::NotOurs => {
                report.skipped += 1;
                if file.explicit {
                    report.not_recognised.push(file.shown.clone());
                }
            }
            Outcome::Unreadable(why) if file.explicit => {
                unreadable.push(Unreadable { path: file.shown.clone(), why });
            }
            Outcome::Unreadable(_) => report.skipped += 1,
        }
    }
    if !unreadable.is_empty() {
        return Err(unreadable);
    }
    report.files.sort_by(|a, b| a.path.cmp(&b.path));
    keep_worst(&mut report.files, FINDINGS_A_RUN);
    report.elapsed = start.elapsed();
    Ok(report)
}

/// Keeps at most `most` findings: the worst, and of equal ones the first.
fn keep_worst(files: &mut [FileReport], most: usize) {
    let mut left = most;
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        for file in files.iter_mut() {
            file.findings.retain(|finding| {
                let kept = finding.severity != severity || left > 0;
                left -= usize::from(kept && finding.severity == severity);
                kept
            });
        }
    }
}

impl FileReport {
    /// A report that says nothing yet.
    pub fn empty(source: &Arc<Source>) -> FileReport {
        FileReport {
            path: source.path.clone(),
            sources: vec![Arc::clone(source)],
            framework: None,
            kind: Kind::Other,
            run: None,
            architecture: None,
            estimate: None,
            rule_of_thumb: None,
            floor: None,
            unknown: Vec::new(),
            budget: None,
            verdict: Verdict::Unknown,
            findings: Vec::new(),
            suppressed: 0,
        }
    }
}
