//! Referenced files that are not there.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds names of DeepSpeed, Accelerate and other files that lead to no readable file.
    ///
    /// ## Why
    ///
    /// Sharding and offloading decide most of a run's memory, and they stand in that file. Without
    /// it there is no estimate. Frameworks look from the working directory of the training
    /// process; llmlint looks there, in the repository root, in the file's own folder and the
    /// folders above it, and knows the files that Axolotl, LLaMA-Factory and ms-swift ship.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="configs/zero3_ours.json"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// deepspeed: configs/zero3_ours.json
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Correct the path, or add the file to the repository.
    ///
    /// ```json title="configs/zero3_ours.json"
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "gradient_accumulation_steps": "auto",
    ///   "zero_optimization": { "stage": 3 }
    /// }
    /// ```
    ReferenceNotFound, "reference-not-found", Warning, "a file that decides memory is not there"
}

impl ReferenceNotFound {
    /// Made while the run is lowered, where references are followed.
    fn run(_: &Checked<'_>, _: &mut Vec<Finding>) {}
}

/// The finding for `name`, which should be one of `whose` files.
pub(crate) fn finding(at: Location, whose: &str, name: &str) -> Finding {
    missing(at, whose, name).note("Without it there is no estimate: how the run is sharded is unknown.")
}

/// The same for a file whose name says what it holds, and is taken for it.
pub(crate) fn finding_by_name(at: Location, whose: &str, name: &str) -> Finding {
    missing(at, whose, name).note("The estimate takes the file for what its name says, with defaults.")
}

fn missing(at: Location, whose: &str, name: &str) -> Finding {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    Finding::new(
        ReferenceNotFound::NAME,
        Severity::Warning,
        at,
        format!("no {whose} file `{base}` in this repository"),
    )
    .at("sharding and offloading stand there")
    .help("correct the path, or add the file to the repository")
}
