//! GitLab's Code Quality report: an array of issues.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Options, findings, fingerprint, forge_path, place};
use crate::check::Report;
use crate::finding::Severity;
use crate::sanitize;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    // GitLab drops issues with a fingerprint that it has seen.
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let issues: Vec<Value> = findings(report)
        .map(|(file, finding)| {
            let place = place(file, finding.primary.location);
            let hash = fingerprint(file, finding);
            let times = seen.entry(hash).or_default();
            *times += 1;
            json!({
                "type": "issue",
                "check_name": finding.rule,
                "description": sanitize::text(&finding.message),
                "content": { "body": body(finding) },
                "categories": ["Bug Risk"],
                "severity": match finding.severity {
                    Severity::Error => "major",
                    Severity::Warning => "minor",
                    Severity::Note => "info",
                },
                "fingerprint": format!("{hash:016x}{times:04x}"),
                "location": {
                    "path": sanitize::path(&forge_path(place.path, options)),
                    "lines": { "begin": place.start.line, "end": place.end.line },
                },
            })
        })
        .collect();
    super::json::write_value(&Value::Array(issues), out)
}

fn body(finding: &crate::finding::Finding) -> String {
    let lines: Vec<_> = finding.notes.iter().chain(&finding.help).map(|line| sanitize::text(line)).collect();
    lines.join("\n")
}
