//! JUnit XML: one suite a file, one case a finding. Errors fail; warnings and notes are passing
//! cases that say so, because most readers of JUnit know no third state. No attribute that the
//! schema of Jenkins' xUnit plugin (junit-10.xsd) does not have.

use std::io::{self, Write};

use super::{Options, Summary, place};
use crate::check::{FileReport, Report};
use crate::finding::{Finding, Severity};
use crate::sanitize::{self, markup};

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let summary = Summary::of(report);
    let cases: usize = report.files.iter().map(|file| file.findings.len().max(1)).sum();
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>")?;
    writeln!(
        out,
        "<testsuites name=\"llmlint {}\" tests=\"{cases}\" failures=\"{}\" errors=\"0\">",
        markup(options.version),
        summary.errors
    )?;
    for file in &report.files {
        suite(file, out)?;
    }
    writeln!(out, "</testsuites>")
}

fn suite(file: &FileReport, out: &mut dyn Write) -> io::Result<()> {
    let path = markup(&sanitize::path(&file.path));
    let failures = file.findings.iter().filter(|f| f.severity == Severity::Error).count();
    writeln!(
        out,
        "  <testsuite name=\"{path}\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" skipped=\"0\">",
        file.findings.len().max(1)
    )?;
    if file.findings.is_empty() {
        writeln!(out, "    <testcase name=\"no findings\" classname=\"{path}\"/>")?;
    }
    for finding in &file.findings {
        case(file, finding, &path, out)?;
    }
    writeln!(out, "  </testsuite>")
}

fn case(file: &FileReport, finding: &Finding, path: &str, out: &mut dyn Write) -> io::Result<()> {
    let place = place(file, finding.primary.location);
    let line = place.start.line;
    writeln!(
        out,
        "    <testcase name=\"{} at line {line}, column {}\" classname=\"{path}\">",
        finding.rule, place.start.column,
    )?;
    let message = markup(&sanitize::text(&finding.message));
    let mut body = format!(
        "{}:{line}:{}: {}[{}] {message}\n",
        markup(&sanitize::path(place.path)),
        place.start.column,
        finding.severity.as_str(),
        finding.rule
    );
    for note in &finding.notes {
        body.push_str(&format!("note: {}\n", markup(&sanitize::text(note))));
    }
    for help in &finding.help {
        body.push_str(&format!("help: {}\n", markup(&sanitize::text(help))));
    }
    if finding.severity == Severity::Error {
        writeln!(out, "      <failure type=\"{}\" message=\"{message}\">{body}</failure>", finding.rule)?;
    } else {
        writeln!(out, "      <system-out>{body}</system-out>")?;
    }
    writeln!(out, "    </testcase>")
}
