//! More than one YAML document in a file.

use super::Checked;
use crate::declare_rule;
use crate::document::ProblemKind;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a second YAML document (after `---`) in a training config.
    ///
    /// ## Why
    ///
    /// Every framework loads one document: PyYAML's `safe_load` stops with "expected a single
    /// document". What stands after the marker was not checked here.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="---"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// ---
    /// num_epochs: 3
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Delete the marker, or split the file.
    ///
    /// ```diff title="sft.yaml"
    ///  learning_rate: 2.0e-5
    /// ----
    ///  num_epochs: 3
    /// ```
    MultipleDocuments, "multiple-documents", Error, "the file holds more than one YAML document"
}

impl MultipleDocuments {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        for problem in file.document.problems.iter().filter(|p| p.kind == ProblemKind::MultipleDocuments) {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    Location::primary(problem.span),
                    "a second YAML document starts here",
                )
                .at(format!("{} loads one document and refuses the file", framework.name()))
                .help("delete the `---`, or split the file"),
            );
        }
    }
}
