//! GitHub workflow commands. The runner shows at most ten annotations a level and step; beyond
//! that the tenth says how many more there are (limits: actions/toolkit, problem-matchers.md).

use std::io::{self, Write};

use super::{Options, Summary, findings, forge_path, place, words};
use crate::check::{FileReport, Report};
use crate::finding::{Finding, Severity};
use crate::sanitize::{self, github_data, github_property};

const SHOWN_A_LEVEL: usize = 10;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let summary = Summary::of(report);
    for (severity, command, count) in [
        (Severity::Error, "error", summary.errors),
        (Severity::Warning, "warning", summary.warnings),
        (Severity::Note, "notice", summary.notes),
    ] {
        let shown = if count > SHOWN_A_LEVEL { SHOWN_A_LEVEL - 1 } else { count };
        for (file, finding) in findings(report).filter(|(_, f)| f.severity == severity).take(shown) {
            annotation(file, finding, command, options, out)?;
        }
        if count > shown {
            let more = count - shown;
            writeln!(
                out,
                "::{command} title=llmlint::and {more} more {}{} that GitHub would not show here; see the job summary or the log",
                severity.as_str(),
                if more == 1 { "" } else { "s" },
            )?;
        }
    }
    Ok(())
}

fn annotation(
    file: &FileReport,
    finding: &Finding,
    command: &str,
    options: &Options<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let place = place(file, finding.primary.location);
    let path = forge_path(place.path, options);
    let path = sanitize::path(&path);
    write!(out, "::{command} file={},line={}", github_property(&path), place.start.line)?;
    // GitHub ignores columns of a range that spans lines.
    if place.start.line == place.end.line {
        write!(out, ",endLine={},col={}", place.end.line, place.start.column)?;
        if place.end.column > place.start.column {
            write!(out, ",endColumn={}", place.end.column)?;
        }
    } else {
        write!(out, ",endLine={}", place.end.line)?;
    }
    // The properties never reach the log, so the message repeats the place.
    let mut message = format!(
        "{path}:{}:{}: {}",
        place.start.line,
        place.start.column,
        words::clip(&sanitize::text(&finding.message), words::MESSAGE)
    );
    for note in &finding.notes {
        message.push('\n');
        message.push_str(&words::clip(&sanitize::text(note), words::MESSAGE));
    }
    for help in &finding.help {
        message.push_str("\nhelp: ");
        message.push_str(&words::clip(&sanitize::text(help), words::MESSAGE));
    }
    for fix in &finding.fixes {
        message.push_str("\nfix: ");
        message.push_str(&words::clip(&sanitize::text(&fix.title), words::MESSAGE));
    }
    writeln!(out, ",title={}::{}", github_property(finding.rule), github_data(&message))
}
