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
    /// ## Why
    ///
    /// Each rank takes the same number of whole experts. The run stops at start-up, after the
    /// GPUs are rented.
    ///
    /// ## Example
    ///
    /// ```yaml title="run.yaml" mark="expert: >16<"
    /// llmlint: 1
    /// model: { id: mistralai/Mixtral-8x7B-v0.1 }
    /// training: { method: full, sequence_length: 4096, micro_batch_size: 1 }
    /// parallelism:
    ///   gpus: 16
    ///   data_parallel: fsdp
    ///   expert: 16
    /// ```
    ///
    /// ```console
    /// $ llmlint run.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Use a degree that divides the experts.
    ///
    /// ```diff title="run.yaml"
    /// -  expert: 16
    /// +  expert: 8
    /// ```
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
        let widest = (1..degree.min(moe.experts + 1)).rev().find(|d| moe.experts % d == 0).unwrap_or(1);
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
