//! `stage3_*` keys at another ZeRO stage.

use super::Checked;
use super::offload_needs_zero_stage::{stage, zero_section};
use crate::declare_rule;
use crate::document::Field;
use crate::finding::{Finding, Severity};
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds `stage3_…` keys in a DeepSpeed file whose stage is not 3.
    ///
    /// ## Why
    ///
    /// They do nothing there. Often the stage was lowered and the keys stayed.
    ///
    /// ## Example
    ///
    /// ```json title="ds_zero2.json" mark="\"stage3_max_live_parameters\""
    /// {
    ///   "bf16": { "enabled": true },
    ///   "train_micro_batch_size_per_gpu": "auto",
    ///   "zero_optimization": {
    ///     "stage": 2,
    ///     "stage3_max_live_parameters": 1e9
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
    /// Delete the keys, or use stage 3.
    ///
    /// ```diff title="ds_zero2.json"
    /// -    "stage": 2,
    /// -    "stage3_max_live_parameters": 1e9
    /// +    "stage": 2
    /// ```
    Stage3KeysWithoutStage3, "stage3-keys-without-stage3", Note, "stage3_ keys at another ZeRO stage"
}

impl Stage3KeysWithoutStage3 {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(zero) = zero_section(file) else { return };
        let Some((number, stage_at)) = stage(zero).filter(|(number, _)| *number < 3) else { return };
        let fields = zero.fields();
        let keys: Vec<&Field<'_>> = fields.iter().filter(|f| f.key.starts_with("stage3_")).collect();
        let Some(first) = keys.first() else { return };
        let mut finding = Finding::new(
            Self::NAME,
            Severity::Note,
            Location::primary(first.key_span),
            format!("`{}` has no effect at ZeRO stage {number}", first.key),
        )
        .label(Location::primary(stage_at.span()), "the stage");
        for other in keys.iter().skip(1) {
            finding = finding.label(Location::primary(other.key_span), "nor has this");
        }
        findings.push(finding.help("delete the keys, or use stage 3"));
    }
}
