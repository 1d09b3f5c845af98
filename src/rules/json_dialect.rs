//! JSON with comments or trailing commas.

use super::Checked;
use crate::declare_rule;
use crate::document::ProblemKind;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds comments and trailing commas in JSON configs.
    ///
    /// ## Why
    ///
    /// DeepSpeed's own launcher reads its file as HJSON, which allows both. The Hugging Face
    /// Trainer and Accelerate read the same file as strict JSON and stop on them.
    ///
    /// ## Example
    ///
    /// ```json title="ds_zero3.json" mark="><// shard everything"
    /// {
    ///   "zero_optimization": { "stage": 3 }, // shard everything
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto"
    /// }
    /// ```
    ///
    /// ```console
    /// $ llmlint ds_zero3.json
    /// ```
    ///
    /// ## The fix
    ///
    /// Delete them.
    ///
    /// ```diff title="ds_zero3.json"
    /// -  "zero_optimization": { "stage": 3 }, // shard everything
    /// +  "zero_optimization": { "stage": 3 },
    /// ```
    JsonDialect, "json-dialect", Warning, "JSON with comments or trailing commas"
}

impl JsonDialect {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        for problem in &file.document.problems {
            let what = match problem.kind {
                ProblemKind::JsonComment => "a comment",
                ProblemKind::JsonTrailingComma => "a trailing comma",
                _ => continue,
            };
            let (severity, who) = if framework.name() == "deepspeed" {
                (
                    Severity::Warning,
                    "DeepSpeed accepts it; the Hugging Face Trainer and Accelerate refuse the file".into(),
                )
            } else {
                (Severity::Error, format!("{} refuses the file", framework.name()))
            };
            findings.push(
                Finding::new(
                    Self::NAME,
                    severity,
                    Location::primary(problem.span),
                    format!("{what} in JSON"),
                )
                .at(who)
                .help("delete it"),
            );
        }
    }
}
