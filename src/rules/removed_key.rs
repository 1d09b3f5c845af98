//! Keys that the framework no longer has.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::framework::UnknownKeys;
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework had once and has no longer.
    ///
    /// ## Why
    ///
    /// The framework refuses to start, or ignores the key: the file says something that is no
    /// longer so. Which release is meant is told by `[frameworks]` in `llmlint.toml` (newest
    /// otherwise), so an old file beside an old release is not reported.
    ///
    /// ## Example
    ///
    /// ```yaml
    /// max_packed_sequence_len: 2048     # axolotl: sample_packing with sequence_len
    /// ```
    ///
    /// ## The fix
    ///
    /// Use the new name, or declare the release that you use:
    ///
    /// ```toml
    /// [frameworks]
    /// axolotl = "0.4"
    /// ```
    RemovedKey, "removed-key", Warning, "the framework no longer has this key"
}

impl RemovedKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        // Old files of an old release are common; only a refusal is certain to hurt, and only
        // when the release is known.
        let declared = file.settings.frameworks.contains_key(framework.name());
        let severity = if declared && framework.unknown_keys() == UnknownKeys::Refused {
            Severity::Error
        } else {
            Severity::Warning
        };
        for mistake in file.mistakes {
            let MistakeKind::Removed { since, instead, rename } = &mistake.kind else { continue };
            let name = framework.name();
            let mut finding = Finding::new(
                Self::NAME,
                severity,
                Location::primary(mistake.key_span),
                format!("{name} no longer has `{}`", mistake.dotted()),
            );
            finding = finding.at(if since == "0" {
                "removed long ago".to_owned()
            } else {
                let whose = if since.starts_with(|c: char| c.is_ascii_digit()) { name } else { "" };
                format!("removed in {whose} {since}").replace("  ", " ")
            });
            if !declared {
                finding = finding.note(format!(
                    "Checked against {}; `[frameworks] {name} = \"…\"` in llmlint.toml names another.",
                    framework.release()
                ));
            }
            findings.push(super::offer_rename(file, mistake, finding, instead.as_deref(), *rename));
        }
    }
}
