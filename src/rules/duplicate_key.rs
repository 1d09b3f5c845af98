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
    /// ## Why is this bad
    ///
    /// PyYAML and JSON loaders take the last one without a word, so that an edit of the first does
    /// nothing. OmegaConf (LLaMA-Factory, torchtune) and TOML refuse the file: an error there.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// gradient_checkpointing: true
    /// learning_rate: 1.0e-5
    /// gradient_checkpointing: false
    /// ```
    ///
    /// ## Fix
    ///
    /// Delete all but one.
    DuplicateKey, "duplicate-key", Warning, "a key stands twice in one mapping"
}

impl DuplicateKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        // Nobody asked about files that train nothing.
        if file.kind == Kind::Other {
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
