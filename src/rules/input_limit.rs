//! Files beyond what is read.

use super::Checked;
use crate::declare_rule;
use crate::document::ProblemKind;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds files that are larger, deeper or wider than llmlint reads: 1 MiB, 64 levels, 50,000
    /// values.
    ///
    /// ## Why
    ///
    /// Nothing in the file was checked. The limits keep a hostile file in a pull request from
    /// costing minutes or gigabytes; the largest real training config known has 64 KiB.
    ///
    /// ## Example
    ///
    /// ```yaml title="nested.yaml" mark="a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[><["
    /// a: [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
    /// ```
    ///
    /// ```console
    /// $ llmlint nested.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Leave the file out with `exclude` in `llmlint.toml` if it is no training config.
    InputLimit, "input-limit", Error, "the file is beyond what is read"
}

impl InputLimit {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        for problem in file.document.problems.iter().filter(|p| p.kind == ProblemKind::Limit) {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    Location::primary(problem.span),
                    problem.message.clone(),
                )
                .help("if it is no training config, leave it out with `exclude` in llmlint.toml"),
            );
        }
    }
}
