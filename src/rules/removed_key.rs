//! Keys that the framework no longer has.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Safety, Severity};
use crate::framework::UnknownKeys;
use crate::framework::schema::MistakeKind;
use crate::source::Location;

declare_rule! {
    /// ## What it does
    ///
    /// Finds keys that the framework had once and has no longer. More than three of them are one
    /// finding: the file belongs to an older release.
    ///
    /// ## Why
    ///
    /// The framework refuses to start, or ignores the key: the file says something that is no
    /// longer so. Which release is meant is told by `[frameworks]` in `llmlint.toml` (newest
    /// otherwise), so an old file beside an old release is not reported.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark=">max_packed_sequence_len<"
    /// base_model: Qwen/Qwen3-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// max_packed_sequence_len: 4096
    /// micro_batch_size: 2
    /// learning_rate: 2.0e-5
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Use the new name:
    ///
    /// ```diff title="sft.yaml"
    /// -max_packed_sequence_len: 4096
    /// +sample_packing: true
    /// ```
    ///
    /// or declare the release that you use:
    ///
    /// ```toml title="llmlint.toml"
    /// [frameworks]
    /// axolotl = "0.3"
    /// ```
    RemovedKey, "removed-key", Warning, "the framework no longer has this key"
}

impl RemovedKey {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(framework) = file.framework else { return };
        // Old files of an old release are common; only a refusal is certain to hurt, and only
        // when the release is known.
        let declared = file.settings.frameworks.contains_key(framework.name());
        let severity = match framework.unknown_keys() {
            UnknownKeys::Refused if declared => Severity::Error,
            // Files of scripts over a library are written for the release their project pins.
            UnknownKeys::Lookalikes if !declared => Severity::Note,
            _ => Severity::Warning,
        };
        let mut found = Vec::new();
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
            let mut finding = super::offer_rename(file, mistake, finding, instead.as_deref(), *rename);
            if severity == Severity::Note {
                // The release that the project pins may not have the new name yet.
                finding.fixes.iter_mut().for_each(|fix| fix.safety = Safety::Unsafe);
            }
            found.push(finding);
        }
        if found.len() > A_FEW && !declared {
            findings.extend(one(found, framework.name(), oldest(file)));
        } else {
            findings.append(&mut found);
        }
    }
}

/// More removed keys than this are one matter: the file is an older release's.
const A_FEW: usize = 3;

/// The earliest release that had dropped one of the file's keys: the file is from before it.
fn oldest<'a>(file: &Checked<'a>) -> Option<&'a str> {
    let parts =
        |release: &str| release.split('.').map(|part| part.parse::<u32>().ok()).collect::<Option<Vec<u32>>>();
    file.mistakes
        .iter()
        .filter_map(|mistake| match &mistake.kind {
            MistakeKind::Removed { since, .. } => Some(since.as_str()).filter(|since| *since != "0"),
            _ => None,
        })
        .filter(|since| parts(since).is_some())
        .min_by_key(|since| parts(since))
}

/// All of them in one finding, at the first, with every rename on offer.
fn one(found: Vec<Finding>, name: &str, before: Option<&str>) -> Option<Finding> {
    let count = found.len();
    let mut rest = found.into_iter();
    let mut first = rest.next()?;
    let age =
        before.map_or_else(|| "an older release".to_owned(), |since| format!("a release before {since}"));
    first.message = format!("{count} keys are those of {age}; {name} no longer has them");
    let mut others = Vec::new();
    for finding in rest {
        let key = finding.message.split('`').nth(1).unwrap_or_default().to_owned();
        others.push(key);
        first.fixes.extend(finding.fixes);
    }
    first.help.push(format!("the others: {}", others.join(", ")));
    Some(first)
}
