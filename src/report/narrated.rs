//! Sentences without graphics: for screen readers, and for reading aloud.

use std::io::{self, Write};

use super::{Options, bar, findings, place, pretty, window, words};
use crate::check::Report;
use crate::finding::Safety;
use crate::sanitize;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let total = findings(report).count();
    for (index, (file, finding)) in findings(report).enumerate() {
        let place = place(file, finding.primary.location);
        writeln!(
            out,
            "Finding {} of {total}, {}, rule {}.\nIn {}, line {}, column {}.\n{}.",
            index + 1,
            finding.severity.as_str(),
            finding.rule,
            sanitize::path(place.path),
            place.start.line,
            place.start.column,
            words::clip(&sanitize::text(&finding.message), words::MESSAGE),
        )?;
        for block in window::blocks(file, finding, options.width) {
            for label in &block.labels {
                let line = block.text.lines().nth(label.start.line - 1 - block.first_line).unwrap_or("");
                let columns = if label.end_column > label.start.column {
                    format!("columns {} to {}", label.start.column, label.end_column)
                } else {
                    format!("column {}", label.start.column)
                };
                write!(out, "{}, line {}, {columns}: {}", block.name, label.start.line, line.trim())?;
                if label.text.is_empty() {
                    writeln!(out)?;
                } else {
                    writeln!(out, ": {}.", label.text)?;
                }
            }
        }
        if finding.rule == "over-budget"
            && let Some(estimate) = &file.estimate
        {
            let parts: Vec<String> =
                bar::segments(estimate).iter().map(|s| format!("{} {}", s.name, s.bytes)).collect();
            writeln!(out, "The peak is made of: {}.", parts.join(", "))?;
        }
        for note in &finding.notes {
            writeln!(out, "Note: {}.", sanitize::text(note).trim_end_matches('.'))?;
        }
        for help in &finding.help {
            writeln!(out, "Help: {}.", sanitize::text(help).trim_end_matches('.'))?;
        }
        for fix in &finding.fixes {
            let flag = if fix.safety == Safety::Safe { "--fix" } else { "--unsafe-fixes" };
            writeln!(out, "Fix, applied by {flag}: {}.", sanitize::text(&fix.title))?;
        }
        writeln!(out)?;
    }
    if !options.quiet {
        for file in &report.files {
            if let Some(estimate) = &file.estimate {
                write!(out, "{}: estimated peak {}", sanitize::path(&file.path), estimate.device)?;
                if let Some(budget) = &file.budget {
                    write!(out, ", budget {}", budget.memory)?;
                }
                writeln!(out, ", {}.", words::verdict(file))?;
            }
        }
        for line in pretty::footer(report) {
            writeln!(out, "{line}.")?;
        }
    }
    Ok(())
}
