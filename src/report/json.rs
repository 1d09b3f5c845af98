//! The machine-readable answer. Its fields are a contract: changes only add.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use super::{Options, Summary, place, rule_url, words};
use crate::check::{FileReport, Report};
use crate::finding::{Edit, Finding, Label};
use crate::memory::{Component, Estimate};
use crate::run::TrainingRun;
use crate::sanitize;
use crate::source::Location;

/// The contract's version.
pub const SCHEMA_VERSION: u32 = 1;

/// `llmlint explain --format json`.
pub fn explain(report: &Report) -> Value {
    let files: Vec<Value> = report.files.iter().map(explained).collect();
    json!({ "schema_version": SCHEMA_VERSION, "files": files })
}

/// `llmlint check --format json`.
pub fn check(report: &Report, options: &Options<'_>) -> Value {
    let files: Vec<Value> = report
        .files
        .iter()
        .map(|file| {
            let mut object = head(file);
            object.insert("verdict".into(), file.verdict.as_str().into());
            object.insert("findings".into(), findings(file));
            Value::Object(object)
        })
        .collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "version": options.version,
        "files": files,
        "summary": Summary::of(report),
    })
}

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    write_value(&check(report, options), out)
}

/// One object a line: `{"type":"finding", "path":…, …}`, at the end `{"type":"summary", …}`.
pub(super) fn write_lines(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    for file in &report.files {
        let mut line = Map::new();
        line.insert("type".into(), "file".into());
        line.extend(head(file));
        line.insert("verdict".into(), file.verdict.as_str().into());
        write_line(&Value::Object(line), out)?;
        for finding in &file.findings {
            let mut line = Map::new();
            line.insert("type".into(), "finding".into());
            line.insert("path".into(), sanitize::path(&file.path).into());
            line.extend(finding_object(file, finding));
            write_line(&Value::Object(line), out)?;
        }
    }
    write_line(
        &json!({ "type": "summary", "schema_version": SCHEMA_VERSION, "version": options.version,
                 "summary": Summary::of(report) }),
        out,
    )
}

fn head(file: &FileReport) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("path".into(), sanitize::path(&file.path).into());
    object.insert("framework".into(), file.framework.into());
    object.insert("kind".into(), json!(file.kind));
    object
}

fn explained(file: &FileReport) -> Value {
    let mut object = head(file);
    let parameters = file.estimate.as_ref().map(|estimate| estimate.parameters);
    object.insert("parameters".into(), json!(parameters));
    object.insert("estimate".into(), file.estimate.as_ref().map(|e| estimate(e, file.run.as_ref())).into());
    object.insert(
        "floor".into(),
        json!(file.floor.map(|floor| json!({
            "bytes": floor.total(), "weights": floor.weights, "gradients": floor.gradients,
            "optimizer": floor.optimizer, "parameters": floor.parameters,
        }))),
    );
    object.insert(
        "unknown".into(),
        file.unknown
            .iter()
            .map(|unknown| {
                json!({ "what": sanitize::text(&unknown.what), "why": sanitize::text(&unknown.why),
                        "span": unknown.location.map(|location| span(file, location)) })
            })
            .collect::<Vec<_>>()
            .into(),
    );
    object.insert(
        "rule_of_thumb".into(),
        json!(file.rule_of_thumb.map(|thumb| json!({
            "bytes": thumb.total(), "weights": thumb.weights, "gradients": thumb.gradients,
            "optimizer": thumb.optimizer, "activations": thumb.activations, "overhead": thumb.overhead,
        }))),
    );
    object.insert(
        "budget".into(),
        json!(file.budget.as_ref().map(|budget| json!({
            "gpu": budget.gpu.map(|gpu| gpu.name), "gpus": budget.gpus, "device_bytes": budget.memory,
            "host_bytes": budget.host_memory, "declared_in": sanitize::text(&budget.declared_in),
        }))),
    );
    object.insert("verdict".into(), file.verdict.as_str().into());
    object.insert("findings".into(), findings(file));
    Value::Object(object)
}

fn estimate(estimate: &Estimate, run: Option<&TrainingRun>) -> Value {
    let components: Map<String, Value> =
        Component::ALL.iter().map(|c| (c.as_str().to_owned(), json!(estimate.component(*c)))).collect();
    let phases: Map<String, Value> = crate::memory::Phase::ALL
        .iter()
        .map(|phase| (phase.as_str().to_owned(), json!(estimate.ledger.total(*phase))))
        .collect();
    let assumptions: Vec<Value> = run
        .map(words::assumptions)
        .unwrap_or_default()
        .iter()
        .map(|a| {
            json!({ "setting": a.setting, "value": sanitize::text(&a.value),
                    "origin": sanitize::text(&a.origin) })
        })
        .collect();
    let entries: Vec<Value> = estimate
        .ledger
        .entries
        .iter()
        .map(|entry| {
            json!({
                "component": entry.component.as_str(), "name": sanitize::text(&entry.name),
                "formula": sanitize::text(&entry.formula), "numbers": sanitize::text(&entry.numbers),
                "bytes": entry.bytes, "source": entry.source,
                "phases": crate::memory::Phase::ALL.iter().filter(|p| entry.live.contains(**p))
                    .map(|p| p.as_str()).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "allocated_bytes": estimate.allocated,
        "reserved_bytes": estimate.reserved,
        "device_bytes": estimate.device,
        "allocated_interval_bytes": [estimate.allocated_interval.low, estimate.allocated_interval.high],
        "reserved_interval_bytes": [estimate.reserved_interval.low, estimate.reserved_interval.high],
        "device_interval_bytes": [estimate.device_interval.low, estimate.device_interval.high],
        "phase": estimate.phase.as_str(),
        "rank": sanitize::text(&estimate.rank),
        "components": components,
        "phases": phases,
        "host_bytes": estimate.host,
        "host_loading_bytes": estimate.host_loading,
        "ranks": estimate.ranks.iter().map(|rank| json!({
            "rank": sanitize::text(&rank.rank), "allocated_bytes": rank.allocated, "phase": rank.phase.as_str(),
        })).collect::<Vec<_>>(),
        "causes": estimate.causes.iter().map(|cause| json!({
            "what": sanitize::text(&cause.what), "below_bytes": cause.below, "above_bytes": cause.above,
        })).collect::<Vec<_>>(),
        "ledger": entries,
        "assumptions": assumptions,
    })
}

fn findings(file: &FileReport) -> Value {
    file.findings.iter().map(|f| Value::Object(finding_object(file, f))).collect::<Vec<_>>().into()
}

fn finding_object(file: &FileReport, finding: &Finding) -> Map<String, Value> {
    let texts = |list: &[String]| list.iter().map(|text| sanitize::text(text).into()).collect::<Vec<Value>>();
    let mut object = Map::new();
    object.insert("rule".into(), finding.rule.into());
    object.insert("severity".into(), finding.severity.as_str().into());
    object.insert("message".into(), sanitize::text(&finding.message).into());
    object.insert("span".into(), span(file, finding.primary.location));
    object.insert("label".into(), sanitize::text(&finding.primary.text).into());
    object.insert("labels".into(), finding.labels.iter().map(|l| label(file, l)).collect::<Vec<_>>().into());
    object.insert("notes".into(), texts(&finding.notes).into());
    object.insert("help".into(), texts(&finding.help).into());
    let fixes: Vec<Value> = finding
        .fixes
        .iter()
        .map(|fix| {
            json!({ "title": sanitize::text(&fix.title), "safety": fix.safety,
                    "edits": fix.edits.iter().map(|e| edit(file, e)).collect::<Vec<_>>() })
        })
        .collect();
    object.insert("fixes".into(), fixes.into());
    object.insert("url".into(), rule_url(finding.rule).into());
    object
}

fn label(file: &FileReport, label: &Label) -> Value {
    json!({ "text": sanitize::text(&label.text), "span": span(file, label.location) })
}

/// An edit is applied by programs, so its text is exact; [`write_value`] escapes what is hostile.
fn edit(file: &FileReport, edit: &Edit) -> Value {
    json!({ "span": span(file, edit.location), "replacement": edit.replacement })
}

fn span(file: &FileReport, location: Location) -> Value {
    let place = place(file, location);
    let mut object = Map::new();
    // Only a span in another file needs to say which.
    if location.source.0 != 0 {
        object.insert("path".into(), sanitize::path(place.path).into());
    }
    object.insert("start".into(), location.span.start.into());
    object.insert("end".into(), location.span.end.into());
    object.insert("line".into(), place.start.line.into());
    object.insert("column".into(), place.start.column.into());
    object.insert("end_line".into(), place.end.line.into());
    object.insert("end_column".into(), place.end.column.into());
    Value::Object(object)
}

/// Writes a document, indented, with every hostile character as a `\u` escape.
///
/// # Errors
/// Those of `out`.
pub fn write_value(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(io::Error::other)?;
    text.push('\n');
    out.write_all(inert(&text).as_bytes())
}

fn write_line(value: &Value, out: &mut dyn Write) -> io::Result<()> {
    let mut text = serde_json::to_string(value).map_err(io::Error::other)?;
    text.push('\n');
    out.write_all(inert(&text).as_bytes())
}

/// Serialised JSON in which no string can move a cursor or be a workflow command. Outside of
/// strings JSON is plain ASCII without `::` and `##`, so escaping them everywhere is exact.
fn inert(json: &str) -> String {
    let mut safe = String::with_capacity(json.len() + 16);
    let mut before = ' ';
    for c in json.chars() {
        match c {
            '\n' => safe.push('\n'),
            ':' if before == ':' => safe.push_str("\\u003a"),
            '#' if before == '#' => safe.push_str("\\u0023"),
            c if sanitize::is_hostile(c) => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    safe.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => safe.push(c),
        }
        before = c;
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_strings_survive_exactly_and_inert() {
        let raw = "::error::\u{202e}##[x]\u{1b}\u{9b}\u{e0041}\\::\":::\n";
        let mut out = Vec::new();
        write_value(&json!({ raw: raw }), &mut out).expect("a vector takes all");
        let text = String::from_utf8(out).expect("UTF-8");
        assert!(!text.contains("::") && !text.contains("##"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || !sanitize::is_hostile(c)), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), json!({ raw: raw }));
    }
}
