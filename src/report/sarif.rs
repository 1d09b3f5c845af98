//! SARIF 2.1.0, with everything that GitHub code scanning asks for and shows.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Options, findings, fingerprint, forge_path, place, rule_url, source};
use crate::check::{FileReport, Report};
use crate::finding::{Edit, Finding, Severity};
use crate::rules;
use crate::sanitize;
use crate::source::Location;

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// GitHub takes 25,000 results a run.
const RESULTS: usize = 25_000;

/// Longest `fullDescription` that GitHub takes.
const DESCRIPTION: usize = 1024;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    super::json::write_value(&log(report, options), out)
}

fn log(report: &Report, options: &Options<'_>) -> Value {
    let mut severities: BTreeMap<&str, Severity> = BTreeMap::new();
    for (_, finding) in findings(report) {
        let severity = severities.entry(finding.rule).or_insert(finding.severity);
        *severity = (*severity).max(finding.severity);
    }
    let names: Vec<&str> = severities.keys().copied().collect();
    let rules: Vec<Value> = severities.iter().map(|(name, severity)| rule(name, *severity)).collect();
    let results: Vec<Value> = findings(report)
        .take(RESULTS)
        .map(|(file, finding)| {
            let index = names.binary_search(&finding.rule).unwrap_or_default();
            result(file, finding, index, options)
        })
        .collect();
    let mut driver = json!({
        "name": "llmlint",
        "semanticVersion": options.version,
        "rules": rules,
    });
    let home = env!("CARGO_PKG_REPOSITORY");
    if !home.is_empty()
        && let Some(driver) = driver.as_object_mut()
    {
        driver.insert("informationUri".into(), home.into());
    }
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    severity.as_str()
}

fn rule(name: &str, severity: Severity) -> Value {
    let info = rules::by_name(name).map(rules::Rule::info);
    let summary = info.map_or(name, |info| info.summary);
    // An empty string counts as missing, so a rule without a page is its summary.
    let page = info.map_or(summary, |info| info.page.trim());
    // A doc comment's lines start with a space.
    let page: Vec<&str> = page.lines().map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let page = sanitize::lines(&page.join("\n"));
    let severity = info.map_or(severity, |info| info.severity);
    let problem = match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "recommendation",
    };
    let mut rule = json!({
        "id": name,
        "name": camel(name),
        "shortDescription": { "text": sentence(summary) },
        "fullDescription": { "text": first_paragraph(&page, summary) },
        "help": { "text": page, "markdown": page },
        "defaultConfiguration": { "level": level(severity) },
        "properties": {
            "tags": ["llm", "training", "configuration"],
            "precision": "high",
            "problem.severity": problem,
        },
    });
    if let (Some(url), Some(rule)) = (rule_url(name), rule.as_object_mut()) {
        rule.insert("helpUri".into(), url.into());
    }
    rule
}

/// `over-budget` as `OverBudget`: SARIF asks for a name that reads as an identifier.
fn camel(name: &str) -> String {
    name.split('-')
        .map(|part| {
            let mut chars = part.chars();
            chars.next().map(|c| c.to_ascii_uppercase()).into_iter().chain(chars).collect::<String>()
        })
        .collect()
}

fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first: String = chars.next().map(|c| c.to_uppercase().collect()).unwrap_or_default();
    format!("{first}{}.", chars.as_str())
}

fn first_paragraph(page: &str, summary: &str) -> String {
    let text: Vec<&str> = page
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty() || line.starts_with('#'))
        .take_while(|line| !line.is_empty())
        .collect();
    let text = text.join(" ");
    let text = if text.is_empty() { sentence(summary) } else { text };
    text.chars().take(DESCRIPTION).collect()
}

fn result(file: &FileReport, finding: &Finding, index: usize, options: &Options<'_>) -> Value {
    // The first sentence is the alert's title.
    let mut message = sanitize::text(&finding.message).into_owned();
    if !message.ends_with(['.', '?', '!']) {
        message.push('.');
    }
    if !finding.primary.text.is_empty() {
        message.push_str(&format!(" Here: {}.", sanitize::text(&finding.primary.text)));
    }
    for (index, label) in finding.labels.iter().enumerate().filter(|(_, label)| !label.text.is_empty()) {
        // A link to a related location is `[text](id)`; brackets in the text need escaping.
        let text = sanitize::text(&label.text).replace('\\', "\\\\").replace('[', "\\[").replace(']', "\\]");
        message.push_str(&format!(" [{text}]({index})."));
    }
    for note in &finding.notes {
        message.push_str(&format!("\n{}.", sanitize::text(note).trim_end_matches('.')));
    }
    for help in finding.help.iter().chain(finding.fixes.iter().map(|fix| &fix.title)) {
        message.push_str(&format!("\nPossible change: {}.", sanitize::text(help).trim_end_matches('.')));
    }
    let related: Vec<Value> = finding
        .labels
        .iter()
        .enumerate()
        .map(|(id, label)| {
            let mut place = physical(file, label.location, options);
            if let Some(place) = place.as_object_mut() {
                place.insert("id".into(), id.into());
                let text = sanitize::text(&label.text);
                let text = if text.is_empty() { "see here".into() } else { text };
                place.insert("message".into(), json!({ "text": text }));
            }
            place
        })
        .collect();
    let fixes: Vec<Value> = finding
        .fixes
        .iter()
        .filter(|fix| !fix.edits.is_empty())
        .map(|fix| {
            let mut changes: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
            for edit in &fix.edits {
                changes.entry(edit.location.source.0).or_default().push(replacement(file, edit));
            }
            let changes: Vec<Value> = changes
                .into_iter()
                .map(|(id, replacements)| {
                    let path = file.sources.get(usize::from(id)).map_or(&file.path, |s| &s.path);
                    json!({ "artifactLocation": { "uri": uri(&forge_path(path, options)) }, "replacements": replacements })
                })
                .collect();
            json!({ "description": { "text": sanitize::text(&fix.title) }, "artifactChanges": changes })
        })
        .collect();
    let mut result = json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": level(finding.severity),
        "message": { "text": message },
        "locations": [physical(file, finding.primary.location, options)],
        // GitHub's own `primaryLocationLineHash` is computed by its upload action.
        "partialFingerprints": { "llmlint/v1": format!("{:016x}", fingerprint(file, finding)) },
    });
    if let Some(result) = result.as_object_mut() {
        if !related.is_empty() {
            result.insert("relatedLocations".into(), related.into());
        }
        if !fixes.is_empty() {
            result.insert("fixes".into(), fixes.into());
        }
    }
    result
}

fn physical(file: &FileReport, location: Location, options: &Options<'_>) -> Value {
    let place = place(file, location);
    json!({ "physicalLocation": {
        "artifactLocation": { "uri": uri(&forge_path(place.path, options)) },
        "region": {
            "startLine": place.start.line, "startColumn": place.start.column,
            "endLine": place.end.line, "endColumn": place.end.column,
        },
    } })
}

fn replacement(file: &FileReport, edit: &Edit) -> Value {
    let span = edit.location.span;
    let (start, end) = match source(file, edit.location) {
        Some(source) => (source.position(span.start), source.position(span.end)),
        None => return json!({ "deletedRegion": { "startLine": 1 } }),
    };
    json!({
        "deletedRegion": { "startLine": start.line, "startColumn": start.column,
                           "endLine": end.line, "endColumn": end.column },
        "insertedContent": { "text": edit.replacement },
    })
}

/// A path as a relative URI reference: everything but unreserved characters and slashes is
/// percent-encoded, so a hostile name is exact and harmless.
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}
