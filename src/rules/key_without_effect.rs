//! Keys that nobody reads in this combination.

use super::{Checked, axolotl_refuses};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::refusal::RefusalKind;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework knows and does nothing with, because of another key.
    ///
    /// ## Why
    ///
    /// The run starts and needs more memory, or trains otherwise, than the file says.
    ///
    /// ## Example
    ///
    /// ```yaml title="qlora.yaml" mark="load_in_4bit: >true<"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// adapter: lora
    /// load_in_4bit: true
    /// lora_r: 16
    /// lora_alpha: 32
    /// lora_target_linear: true
    /// sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-4
    /// ```
    ///
    /// ```console
    /// $ llmlint qlora.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Make the change that the message names, or delete the key.
    ///
    /// ```diff title="qlora.yaml"
    /// -adapter: lora
    /// +adapter: qlora
    /// ```
    KeyWithoutEffect, "key-without-effect", Warning, "a key that does nothing in this combination"
}

impl KeyWithoutEffect {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        axolotl_refuses::report(file, RefusalKind::NoEffect, Self::NAME, Severity::Warning, findings);
    }
}
