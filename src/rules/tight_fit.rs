//! Runs that may or may not fit.

use super::{Checked, drivers};
use crate::check::Verdict;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Reports runs whose budget lies within the interval of the estimate.
    ///
    /// ## Why
    ///
    /// An estimate is not a measurement: the allocator fragments, libraries take memory of their
    /// own, batches vary. The interval holds about nine measured runs in ten. When it straddles
    /// the budget, the run may end out of memory, perhaps after hours.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// llmlint: 1
    /// model: { architecture: llama, num_hidden_layers: 8, hidden_size: 2048, intermediate_size: 5632, num_attention_heads: 16, vocab_size: 32000 }
    /// training: { micro_batch_size: 8, sequence_length: 2048 }
    /// budget: { memory: 23GiB, gpus: 1 }
    /// ```
    ///
    /// ## The fix
    ///
    /// Take one of the changes listed, try the run for a few steps with the longest batch first,
    /// or accept it with `# llmlint: ignore[tight-fit]` once it has run.
    TightFit, "tight-fit", Warning, "the run may need more GPU memory than it may use"
}

impl TightFit {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Verdict::Tight, Some(run), Some(estimate), Some(budget)) =
            (file.verdict, file.run, file.estimate, file.budget)
        else {
            return;
        };
        let room = drivers::room(budget);
        let message = if estimate.device > budget.memory {
            format!(
                "peak {} is over the {room}, but may be as low as {}",
                estimate.device, estimate.device_interval.low
            )
        } else {
            format!(
                "peak {} is within the {room}, but may reach {}",
                estimate.device, estimate.device_interval.high
            )
        };
        let finding = Finding::new(Self::NAME, Severity::Warning, Location::default(), message);
        let finding = drivers::point(finding, estimate, run);
        let finding = drivers::notes(finding, estimate, run);
        findings.push(drivers::suggest(finding, file, run, budget));
    }
}
