//! Experts that expert parallelism cannot share out.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};

declare_rule! {
    /// ## What it does
    ///
    /// Finds an expert-parallel degree that does not divide the model's experts, or one set for a
    /// model without experts.
    ///
    /// ## Why is this bad
    ///
    /// Each rank takes the same number of whole experts. The run stops at start-up, after the
    /// GPUs are rented.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// model: { id: mistralai/Mixtral-8x7B-v0.1 }   # 8 experts
    /// parallelism: { gpus: 16, expert: 16 }
    /// ```
    ///
    /// ## Fix
    ///
    /// Use a degree that divides the experts.
    ExpertsNotDivisible, "experts-not-divisible", Error, "expert parallelism cannot share out the experts"
}

impl ExpertsNotDivisible {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(architecture)) = (file.run, file.architecture) else { return };
        let degree = run.parallelism.expert.value;
        if degree < 2 {
            return;
        }
        let location = place(&[&run.parallelism.expert.origin, &run.model.origin]);
        let Some(moe) = &architecture.moe else {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    location,
                    format!(
                        "expert parallelism over {degree} ranks, and `{}` has no experts",
                        run.model.value
                    ),
                )
                .help("set the expert-parallel degree to 1"),
            );
            return;
        };
        if moe.experts % degree == 0 {
            return;
        }
        let widest = (1..degree).rev().find(|d| moe.experts % d == 0).unwrap_or(1);
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                location,
                format!("expert parallelism over {degree} ranks cannot share out {} experts", moe.experts),
            )
            .help(format!("{widest} is the largest smaller degree that does")),
        );
    }
}
