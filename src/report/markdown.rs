//! A table of every config and the findings, for a job's step summary or a comment.

use std::io::{self, Write};

use super::{Options, Summary, findings, place, pretty, rule_url, words};
use crate::check::{FileReport, Report, Verdict};
use crate::finding::Severity;
use crate::sanitize::{self, markdown};

/// GitHub drops a step summary above 1 MiB.
const BYTES: usize = 900_000;
/// Configs shown before the rest is folded.
const OPEN_ROWS: usize = 50;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let summary = Summary::of(report);
    let mut text = String::from("## llmlint\n\n");
    let footer: Vec<String> =
        pretty::footer(report).iter().map(|line| markdown(line).replace("\\`", "`")).collect();
    if let [counts, hints @ ..] = footer.as_slice() {
        text.push_str(&format!("{counts}\n\n"));
        if !hints.is_empty() {
            text.push_str(&format!("{}\n\n", hints.join("; ")));
        }
    }
    table(report, options, &mut text);
    if summary.findings() > 0 {
        text.push_str("### Findings\n\n");
    }
    for severity in [Severity::Error, Severity::Warning, Severity::Note] {
        for (file, finding) in findings(report).filter(|(_, f)| f.severity == severity) {
            let place = place(file, finding.primary.location);
            let mut item = format!(
                "- {} {} {}:{}:{}: {}\n",
                match severity {
                    Severity::Error => "❌",
                    Severity::Warning => "⚠️",
                    Severity::Note => "ℹ️",
                },
                rule(finding.rule),
                markdown(&sanitize::path(place.path)),
                place.start.line,
                place.start.column,
                markdown(&words::clip(&sanitize::text(&finding.message), words::MESSAGE)),
            );
            for line in &finding.notes {
                let line = words::clip(&sanitize::text(line), words::MESSAGE);
                item.push_str(&format!("  - {}\n", markdown(&line)));
            }
            for line in finding.help.iter().chain(finding.fixes.iter().map(|fix| &fix.title)) {
                let line = words::clip(&sanitize::text(line), words::MESSAGE);
                item.push_str(&format!("  - change: {}\n", markdown(&line)));
            }
            if text.len() + item.len() > BYTES {
                text.push_str("\nThe list is longer than a summary may be; the log has all of it.\n");
                return out.write_all(text.as_bytes());
            }
            text.push_str(&item);
        }
    }
    out.write_all(text.as_bytes())
}

/// The rule's name, linked to its page.
fn rule(name: &str) -> String {
    rule_url(name).map_or_else(|| format!("**{name}**"), |url| format!("**[{name}]({url})**"))
}

/// A figure that a narrow table must not break.
fn unbroken(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

fn table(report: &Report, options: &Options<'_>, text: &mut String) {
    let mut files: Vec<&FileReport> =
        report.files.iter().filter(|file| file.run.is_some() || file.estimate.is_some()).collect();
    if files.is_empty() {
        return;
    }
    // What needs looking at comes first; within a verdict the order of the paths stays.
    files.sort_by_key(|file| std::cmp::Reverse(file.verdict.gravity()));
    let folded = files.len() > OPEN_ROWS;
    if folded {
        text.push_str(&format!("<details><summary>{}</summary>\n\n", words::count(files.len(), "config")));
    }
    let changes = options.base.is_some();
    text.push_str("| config | model | method | GPUs | estimated peak | budget | verdict |");
    text.push_str(if changes { " change |\n" } else { "\n" });
    text.push_str("| --- | --- | --- | --- | ---: | ---: | --- |");
    text.push_str(if changes { " ---: |\n" } else { "\n" });
    for file in files {
        if text.len() > BYTES / 2 {
            text.push_str("\nThe table is longer than a summary may be.\n");
            break;
        }
        let run = file.run.as_ref();
        let peak = match (&file.estimate, &file.floor) {
            (Some(estimate), _) => {
                let range = unbroken(&estimate.device_interval.to_string());
                format!("{} ({range})", unbroken(&estimate.device.to_string()))
            }
            (None, Some(floor)) => unbroken(&format!("≥ {}", floor.total())),
            (None, None) => String::new(),
        };
        let cells = [
            markdown(&sanitize::path(&file.path)),
            markdown(&sanitize::text(&run.map(words::short_model).unwrap_or_default())),
            markdown(&run.map(words::method).unwrap_or_default()),
            unbroken(&markdown(&words::gpus(file))),
            peak,
            unbroken(&file.budget.as_ref().map(|budget| budget.memory.to_string()).unwrap_or_default()),
            unbroken(match file.verdict {
                Verdict::Exceeds => "❌ exceeds",
                Verdict::Tight => "⚠️ tight",
                Verdict::Fits => "✅ fits",
                Verdict::Unknown => words::verdict(file),
            }),
        ];
        text.push_str(&format!("| {} |", cells.join(" | ")));
        if changes {
            text.push_str(&format!(" {} |", unbroken(&words::change_from(options.base, file))));
        }
        text.push('\n');
    }
    text.push('\n');
    if folded {
        text.push_str("</details>\n\n");
    }
}
