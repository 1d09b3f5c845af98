//! A key that stands twice in one mapping.

use super::Checked;
use crate::declare_rule;
use crate::document::{Dialect, ProblemKind};
use crate::finding::{Finding, Severity};
use crate::framework::Kind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that stand twice in one mapping.
    ///
    /// ## Why
    ///
    /// PyYAML and JSON loaders take the last one without a word, so that an edit of the first does
    /// nothing. OmegaConf (LLaMA-Factory, torchtune) and TOML refuse the file: an error there.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark=">gradient_checkpointing<: false"
    /// base_model: Qwen/Qwen3-8B
    /// gradient_checkpointing: true
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// gradient_checkpointing: false
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Delete all but one.
    ///
    /// ```diff title="sft.yaml"
    ///      type: chat_template
    /// -gradient_checkpointing: false
    /// ```
    DuplicateKey, "duplicate-key", Warning, "a key stands twice in one mapping"
}

impl DuplicateKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        // Nobody asked about files that train nothing, and of frameworks that are only recognised
        // it is not known who reads the key.
        if file.kind == Kind::Other || !framework.supported() {
            return;
        }
        let refuses = framework.dialect(file.document.syntax) == Dialect::OmegaConf;
        for problem in file.document.problems.iter().filter(|p| p.kind == ProblemKind::DuplicateKey) {
            let (severity, what) = if refuses {
                (Severity::Error, format!("{} refuses to load the file", framework.name()))
            } else {
                (Severity::Warning, "this one wins".into())
            };
            let mut finding =
                Finding::new(Self::NAME, severity, Location::primary(problem.span), problem.message.clone())
                    .at(what);
            if let Some(first) = problem.related {
                finding = finding.label(
                    Location::primary(first),
                    if refuses { "first here" } else { "this one is ignored" },
                );
            }
            findings.push(finding.help("delete all but one"));
        }
    }
}
