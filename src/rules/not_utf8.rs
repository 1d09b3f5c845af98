//! Files that are not text.

use super::Checked;
use crate::declare_rule;
use crate::document::ProblemKind;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a file, given by name, that is not UTF-8 text.
    ///
    /// ## Why
    ///
    /// No framework reads other encodings, and nothing in the file was checked. Editors on
    /// Windows can save UTF-16; a binary file may have the wrong ending.
    ///
    /// ## Example
    ///
    /// Saved with `>` in Windows PowerShell, which writes UTF-16:
    ///
    /// ```yaml title="sft.yaml" encoding="utf-16" mark="><base_model"
    /// base_model: Qwen/Qwen3-8B
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Save the file as UTF-8.
    NotUtf8, "not-utf8", Error, "the file is not UTF-8 text"
}

impl NotUtf8 {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        for problem in file.document.problems.iter().filter(|p| p.kind == ProblemKind::NotUtf8) {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    Location::primary(problem.span),
                    problem.message.clone(),
                )
                .help("save the file as UTF-8"),
            );
        }
    }
}
