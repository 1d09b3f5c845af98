//! Referenced files outside the repository, which are never read.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds references that lead outside the repository: absolute paths, `..` and symbolic
    /// links.
    ///
    /// ## Why
    ///
    /// llmlint reads nothing outside the repository, so it cannot know how such a run is sharded;
    /// and a config that names a path of one machine runs on that machine only.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="/home/me/ds_zero3.json"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// deepspeed: /home/me/ds_zero3.json
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Put the file into the repository and name it by a relative path.
    ///
    /// ```diff title="sft.yaml"
    /// -deepspeed: /home/me/ds_zero3.json
    /// +deepspeed: ds_zero3.json
    /// ```
    ///
    /// ```json title="ds_zero3.json"
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "gradient_accumulation_steps": "auto",
    ///   "zero_optimization": { "stage": 3 }
    /// }
    /// ```
    ReferenceOutsideRepository, "reference-outside-repository", Warning, "a reference leads outside the repository"
}

impl ReferenceOutsideRepository {
    /// Made while the run is lowered, where references are followed.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}

/// The finding for a reference to one of `whose` files.
pub(crate) fn finding(at: Location, whose: &str) -> Finding {
    Finding::new(
        ReferenceOutsideRepository::NAME,
        Severity::Warning,
        at,
        format!("the {whose} file lies outside the repository and is not read"),
    )
    .at("how the run is sharded stands there")
    .help("put the file into the repository and name it by a relative path")
}
