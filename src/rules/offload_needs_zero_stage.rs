//! DeepSpeed offloading below the stage that can do it.

use super::Checked;
use crate::declare_rule;
use crate::document::Value;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds `offload_param` below ZeRO stage 3, and `offload_optimizer` at stage 0.
    ///
    /// ## Why
    ///
    /// Weights are partitioned, and so can be kept on the host, only at stage 3. Below it
    /// DeepSpeed reads `offload_param` and does nothing: the memory that the file promises to
    /// save is still needed on the GPU.
    ///
    /// ## Example
    ///
    /// ```json title="ds_zero2.json" mark="\"cpu\""
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "zero_optimization": {
    ///     "stage": 2,
    ///     "offload_param": { "device": "cpu" }
    ///   }
    /// }
    /// ```
    ///
    /// ```console
    /// $ llmlint ds_zero2.json
    /// ```
    ///
    /// ## The fix
    ///
    /// Use stage 3, or delete the section.
    ///
    /// ```diff title="ds_zero2.json"
    /// -    "stage": 2,
    /// +    "stage": 3,
    /// ```
    OffloadNeedsZeroStage, "offload-needs-zero-stage", Warning, "offloading that the ZeRO stage does not do"
}

impl OffloadNeedsZeroStage {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(zero) = zero_section(file) else { return };
        let Some((stage, stage_at)) = stage(zero) else { return };
        let device = |section: &str, legacy: &str| {
            let device = zero.path(&format!("{section}.device"));
            let named = device.filter(|v| matches!(v.as_str(), Some("cpu" | "nvme")));
            named.or_else(|| zero.get(legacy).filter(|v| v.as_bool() == Some(true)))
        };
        let mut push = |value: Value<'_>, section: &str, needed: i64| {
            findings.push(
                Finding::new(
                    Self::NAME,
                    Severity::Warning,
                    Location::primary(value.span()),
                    format!("`{section}` has no effect at ZeRO stage {stage}"),
                )
                .at(format!("needs stage {needed}"))
                .label(Location::primary(stage_at.span()), "the stage")
                .help(format!("use stage {needed}, or delete `{section}`")),
            );
        };
        if let Some(value) = device("offload_param", "cpu_offload_param").filter(|_| stage < 3) {
            push(value, "offload_param", 3);
        }
        if let Some(value) = device("offload_optimizer", "cpu_offload").filter(|_| stage < 1) {
            push(value, "offload_optimizer", 1);
        }
    }
}

/// The `zero_optimization` section of a DeepSpeed file, or of one written into a run.
pub(super) fn zero_section<'a>(file: &Checked<'a>) -> Option<Value<'a>> {
    let root = file.root?;
    // GPT-NeoX's files have DeepSpeed's sections at the top, with dashes or without.
    let neox = file.framework.is_some_and(|f| f.name() == "gpt-neox");
    if neox {
        let named = root.get("zero_optimization").or_else(|| root.get("zero-optimization"));
        return named.filter(Value::is_mapping);
    }
    let own = file.framework.is_some_and(|f| f.name() == "deepspeed");
    let deepspeed = if own { Some(root) } else { root.get("deepspeed").filter(Value::is_mapping) };
    deepspeed?.get("zero_optimization").filter(Value::is_mapping)
}

/// The stage where it is written as a number.
pub(super) fn stage<'a>(zero: Value<'a>) -> Option<(i64, Value<'a>)> {
    let value = zero.get("stage")?;
    value.to_int().map(|stage| (stage, value))
}
