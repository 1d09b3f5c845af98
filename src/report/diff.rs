//! Two reports of the same configs: what a change means for memory and findings.

use std::collections::BTreeSet;
use std::io::{self, Write};

use super::ascii::human;
use super::style::Paint;
use super::{Options, words};
use crate::check::{FileReport, Report, Verdict};
use crate::finding::Severity;
use crate::sanitize;

/// One config on both sides.
pub struct Change<'r> {
    /// Its path.
    pub path: &'r str,
    /// Before; `None`: it is new.
    pub base: Option<&'r FileReport>,
    /// After; `None`: it is gone.
    pub head: Option<&'r FileReport>,
}

impl Change<'_> {
    fn peak(file: Option<&FileReport>) -> Option<crate::units::Bytes> {
        file?.estimate.as_ref().map(|e| e.device)
    }

    fn verdict(file: Option<&FileReport>) -> Verdict {
        file.map_or(Verdict::Unknown, |f| f.verdict)
    }

    /// What `here` says and `there` does not, by rule and message.
    fn only<'f>(
        here: Option<&'f FileReport>,
        there: Option<&FileReport>,
    ) -> Vec<&'f crate::finding::Finding> {
        let mut known: Vec<(&str, &str)> =
            there.into_iter().flat_map(|f| &f.findings).map(|f| (f.rule, f.message.as_str())).collect();
        here.into_iter()
            .flat_map(|f| &f.findings)
            .filter(|f| match known.iter().position(|k| *k == (f.rule, f.message.as_str())) {
                Some(at) => {
                    known.swap_remove(at);
                    false
                }
                None => true,
            })
            .collect()
    }

    /// Settings whose value differs: name, before, after.
    fn settings(&self) -> Vec<(&'static str, String, String)> {
        let of = |file: Option<&FileReport>| {
            file.and_then(|f| f.run.as_ref())
                .map(|r| r.settings().into_iter().map(|(n, v, _)| (n, v)).collect::<Vec<_>>())
        };
        let (Some(base), Some(head)) = (of(self.base), of(self.head)) else { return Vec::new() };
        head.into_iter()
            .filter_map(|(name, now)| {
                let before = base.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())?;
                (before != now).then_some((name, before, now))
            })
            .collect()
    }

    /// A worse verdict, or an error that was not there.
    pub fn is_worse(&self) -> bool {
        let rank = |v: Verdict| match v {
            Verdict::Fits | Verdict::Unknown => 0,
            Verdict::Tight => 1,
            Verdict::Exceeds => 2,
        };
        rank(Change::verdict(self.head)) > rank(Change::verdict(self.base))
            || Change::only(self.head, self.base).iter().any(|f| f.severity == Severity::Error)
    }

    fn is_nothing(&self) -> bool {
        Change::peak(self.base) == Change::peak(self.head)
            && self.base.is_some() == self.head.is_some()
            && Change::only(self.head, self.base).is_empty()
            && Change::only(self.base, self.head).is_empty()
    }
}

/// Every config that needs something else, or has other findings.
pub fn compare<'r>(base: &'r Report, head: &'r Report) -> Vec<Change<'r>> {
    let paths: BTreeSet<&str> = base.files.iter().chain(&head.files).map(|f| f.path.as_str()).collect();
    let find = |report: &'r Report, path: &str| report.files.iter().find(|f| f.path == path);
    paths
        .into_iter()
        .map(|path| Change { path, base: find(base, path), head: find(head, path) })
        .filter(|change| !change.is_nothing())
        .collect()
}

/// Writes the changes for people.
///
/// # Errors
/// Those of `out`.
pub fn write(changes: &[Change<'_>], options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let out: &mut dyn Write = &mut human(options, out);
    let page = Page { options, paint: Paint { color: options.color } };
    for change in changes {
        page.change(change, out)?;
    }
    if changes.is_empty() {
        page.hanging("", "no config changed in memory or findings", out)?;
    }
    Ok(())
}

struct Page<'a> {
    options: &'a Options<'a>,
    paint: Paint,
}

impl Page<'_> {
    fn hanging(&self, lead: &str, text: &str, out: &mut dyn Write) -> io::Result<()> {
        let indent = lead.chars().count();
        let lines = words::hang(text, self.options.width.saturating_sub(indent), 2);
        for (index, line) in lines.iter().enumerate() {
            if index == 0 {
                writeln!(out, "{lead}{line}")?;
            } else {
                writeln!(out, "{}{line}", " ".repeat(indent + 2))?;
            }
        }
        Ok(())
    }

    fn change(&self, change: &Change<'_>, out: &mut dyn Write) -> io::Result<()> {
        let path = sanitize::path(change.path);
        let peak = |file| Change::peak(file).map_or_else(|| "unknown".to_owned(), |b| b.to_string());
        let verdict = |file: Option<&FileReport>| file.map_or("unknown", words::verdict);
        let headline = match (change.base, change.head) {
            (None, head) => format!("{path}: new, peak {}, {}", peak(head), verdict(head)),
            (_, None) => format!("{path}: removed"),
            (base, head) => {
                let difference = match (Change::peak(base), Change::peak(head)) {
                    (Some(a), Some(b)) if a != b => format!(" ({})", words::change(a, b)),
                    _ => String::new(),
                };
                let verdicts = match (verdict(base), verdict(head)) {
                    (before, now) if before == now => now.to_owned(),
                    (before, now) => format!("{before} -> {now}"),
                };
                format!("{path}: peak {} -> {}{difference}, {verdicts}", peak(base), peak(head))
            }
        };
        let lines = words::hang(&headline, self.options.width, 2);
        for (index, line) in lines.iter().enumerate() {
            writeln!(out, "{}{}", if index == 0 { "" } else { "  " }, self.paint.bold(line))?;
        }
        for (name, before, now) in change.settings() {
            let text = format!("{name}: {} -> {}", sanitize::text(&before), sanitize::text(&now));
            self.hanging("    ", &text, out)?;
        }
        for (sign, findings) in
            [("+", Change::only(change.head, change.base)), ("-", Change::only(change.base, change.head))]
        {
            for finding in findings {
                let message = words::clip(&sanitize::text(&finding.message), words::MESSAGE);
                let text = format!("{}[{}] {message}", finding.severity.as_str(), finding.rule);
                self.hanging(&format!("  {sign} "), &text, out)?;
            }
        }
        Ok(())
    }
}

/// The changes for programs; docs/json.md describes it.
pub fn to_json(changes: &[Change<'_>]) -> serde_json::Value {
    let side = |file: Option<&FileReport>| {
        file.map(|f| {
            serde_json::json!({
                "device_bytes": f.estimate.as_ref().map(|e| e.device),
                "verdict": f.verdict,
            })
        })
    };
    let list = |findings: Vec<&crate::finding::Finding>| {
        findings
            .iter()
            .map(|f| serde_json::json!({ "rule": f.rule, "severity": f.severity, "message": f.message }))
            .collect::<Vec<_>>()
    };
    let files: Vec<_> = changes
        .iter()
        .map(|change| {
            serde_json::json!({
                "path": change.path,
                "base": side(change.base),
                "head": side(change.head),
                "settings": change.settings().into_iter()
                    .map(|(name, before, now)| serde_json::json!({ "setting": name, "base": before, "head": now }))
                    .collect::<Vec<_>>(),
                "new_findings": list(Change::only(change.head, change.base)),
                "fixed_findings": list(Change::only(change.base, change.head)),
            })
        })
        .collect();
    serde_json::json!({ "schema_version": 1, "files": files })
}
