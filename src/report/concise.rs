//! One line a finding: what editors' problem matchers and `grep` read.

use std::io::{self, Write};

use super::{findings, place, words};
use crate::check::Report;
use crate::sanitize;

pub(super) fn write(report: &Report, out: &mut dyn Write) -> io::Result<()> {
    for (file, finding) in findings(report) {
        let place = place(file, finding.primary.location);
        writeln!(
            out,
            "{}:{}:{}: {}[{}] {}",
            sanitize::path(place.path),
            place.start.line,
            place.start.column,
            finding.severity.as_str(),
            finding.rule,
            words::clip(&sanitize::text(&finding.message), words::MESSAGE),
        )?;
    }
    Ok(())
}
