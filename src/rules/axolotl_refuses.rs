//! Combinations of keys that Axolotl refuses.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::refusal::RefusalKind;
use crate::framework::schema::at_least;

declare_rule! {
    /// ## What it does
    ///
    /// Carries out Axolotl's checks across keys: quantised weights without an adapter, QLoRA
    /// without `load_in_4bit`, 8-bit optimizers under FSDP or tensor parallelism, packing with
    /// preference training, evaluation without data, streaming without `max_steps`, offloading
    /// without checkpointing, Muon under DeepSpeed, dataset types that are gone.
    ///
    /// ## Why
    ///
    /// Axolotl stops at start: after the GPUs were rented and the image was pulled.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="adamw_bnb_8bit"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 1
    /// learning_rate: 2.0e-5
    /// optimizer: adamw_bnb_8bit
    /// bf16: true
    /// fsdp_version: 2
    /// fsdp_config:
    ///   auto_wrap_policy: TRANSFORMER_BASED_WRAP
    ///   transformer_layer_cls_to_wrap: Qwen3DecoderLayer
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Make the change that the message names.
    ///
    /// ```diff title="sft.yaml"
    /// -optimizer: adamw_bnb_8bit
    /// +optimizer: adamw_torch_8bit
    /// ```
    AxolotlRefuses, "axolotl-refuses", Error, "Axolotl stops on these settings"
}

impl AxolotlRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        report(file, RefusalKind::Refused, Self::NAME, Severity::Error, findings);
    }
}

/// Findings for one kind of refusal.
pub(super) fn report(
    file: &Checked<'_>,
    kind: RefusalKind,
    rule: &'static str,
    severity: Severity,
    findings: &mut Vec<Finding>,
) {
    let (Some(framework), Some(root)) = (file.framework, file.root) else { return };
    if file.document.is_broken() {
        return;
    }
    let version = file.settings.frameworks.get(framework.name()).map(String::as_str);
    for refusal in framework.refusals(root, version).into_iter().filter(|r| r.kind == kind) {
        let declared_before = |since: &str| version.is_some_and(|declared| !at_least(declared, since));
        if refusal.since.is_some_and(declared_before) {
            continue;
        }
        // Old files beside an old release are common: only a declared release makes it certain.
        let sure = refusal.since.is_none() || version.is_some();
        let severity = if sure { severity } else { Severity::Warning };
        let mut finding = Finding::new(rule, severity, refusal.at, refusal.message).help(refusal.help);
        if let Some(since) = refusal.since {
            finding = finding.at(format!("since {} {since}", framework.name()));
        }
        if kind != RefusalKind::NoEffect {
            finding = finding.note(format!("{} checks this and stops.", framework.name()));
        }
        for place in refusal.with {
            finding = finding.label(place, "together with this");
        }
        findings.push(finding);
    }
}
