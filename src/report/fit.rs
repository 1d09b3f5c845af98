//! The table of `fit`: what to change, what the run then needs, and the lines it changes.

use std::io::{self, Write};

use super::ascii::human;
use super::style::Paint;
use super::{Options, words};
use crate::check::{FileReport, Verdict};
use crate::finding::{Edit, Safety, Severity};
use crate::fit::Suggestion;
use crate::sanitize;
use crate::source::Source;

/// Columns from which the changes have a column of their own.
const WIDE: usize = 80;

/// Writes the run as it is, the rows, and what to do with them. `chosen`: the row that was
/// written into the file.
///
/// # Errors
/// Those of `out`.
pub fn write(
    file: &FileReport,
    rows: &[Suggestion],
    chosen: Option<&Suggestion>,
    options: &Options<'_>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let out: &mut dyn Write = &mut human(options, out);
    let page = Page { options, paint: Paint { color: options.color } };
    let path = sanitize::path(&file.path);
    if let (Some(estimate), Some(budget)) = (&file.estimate, &file.budget) {
        let interval = estimate.device_interval;
        let headline = format!(
            "{path}: peak of {} ({interval}), budget {}: {}",
            estimate.device,
            budget.describe(),
            words::verdict(file),
        );
        page.paragraph(&headline, 2, out)?;
    }
    if file.verdict == Verdict::Fits {
        return page.paragraph("nothing to change", 0, out);
    }
    if rows.is_empty() {
        return page.paragraph("no change that can be made in this file lowers the peak", 0, out);
    }
    if let Some(chosen) = chosen {
        page.paragraph(&format!("wrote {path}: {}: {}", chosen.title(), chosen.estimate.device), 2, out)?;
        return page.edits(chosen, file, 2, out);
    }
    writeln!(out)?;
    page.rows(rows, file, out)?;
    page.advice(rows, out)
}

struct Page<'a> {
    options: &'a Options<'a>,
    paint: Paint,
}

impl Page<'_> {
    /// Text with a hanging indent.
    fn paragraph(&self, text: &str, indent: usize, out: &mut dyn Write) -> io::Result<()> {
        for (index, line) in words::hang(text, self.options.width, indent).iter().enumerate() {
            writeln!(out, "{}{line}", " ".repeat(if index == 0 { 0 } else { indent }))?;
        }
        Ok(())
    }

    fn rows(&self, rows: &[Suggestion], file: &FileReport, out: &mut dyn Write) -> io::Result<()> {
        let cells: Vec<[String; 5]> = rows
            .iter()
            .enumerate()
            .map(|(index, row)| {
                [
                    (index + 1).to_string(),
                    row.estimate.device.to_string(),
                    row.estimate.device_interval.to_string(),
                    row.verdict.as_str().to_owned(),
                    if row.safety() == Safety::Safe { "same" } else { "changes" }.to_owned(),
                ]
            })
            .collect();
        let header = ["row", "peak", "between", "verdict", "training"].map(str::to_owned);
        let width = |column: usize| {
            let all = cells.iter().chain([&header]).filter_map(|row| row.get(column));
            all.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: [usize; 5] = std::array::from_fn(width);
        let wide = self.options.width >= WIDE;
        // On a narrow terminal the interval goes: `explain` has it.
        let shown = |column: usize| column != 2 || self.options.width >= 60;
        let line = |cells: &[String; 5], verdict: Option<Verdict>| {
            let mut line = String::new();
            for (column, (cell, width)) in cells.iter().zip(widths).enumerate().filter(|(c, _)| shown(*c)) {
                let gap = " ".repeat(width - cell.chars().count());
                let cell = match (column, verdict) {
                    (3, Some(Verdict::Exceeds)) => self.paint.severity(Severity::Error, cell),
                    (3, Some(Verdict::Tight)) => self.paint.severity(Severity::Warning, cell),
                    (3, Some(Verdict::Fits)) => self.paint.color(anstyle::AnsiColor::Green, cell),
                    _ => cell.clone(),
                };
                // Numbers are compared digit by digit.
                line.push_str(&if column < 2 { format!("{gap}{cell}  ") } else { format!("{cell}{gap}  ") });
            }
            line
        };
        let indent = if wide { widths.iter().sum::<usize>() + 2 * widths.len() } else { widths[0] + 2 };
        let head = line(&header, None);
        writeln!(out, "{}", if wide { format!("{head}change") } else { head.trim_end().to_owned() })?;
        for (cells, row) in cells.iter().zip(rows) {
            let figures = line(cells, Some(row.verdict));
            let title = words::wrap(&row.title(), self.options.width.saturating_sub(indent));
            if !wide {
                writeln!(out, "{}", figures.trim_end())?;
            }
            for (index, text) in title.iter().enumerate() {
                if wide && index == 0 {
                    writeln!(out, "{figures}{}", self.paint.bold(text))?;
                } else {
                    writeln!(out, "{}{}", " ".repeat(indent), self.paint.bold(text))?;
                }
            }
            self.edits(row, file, indent, out)?;
        }
        Ok(())
    }

    /// The lines as they will be, with their numbers; then what is left to do by hand.
    fn edits(
        &self,
        row: &Suggestion,
        file: &FileReport,
        indent: usize,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let pad = " ".repeat(indent);
        let room = self.options.width.saturating_sub(indent);
        match (&row.edits, file.sources.first()) {
            (Some(edits), Some(source)) => {
                let mut edits: Vec<&Edit> = edits.iter().collect();
                edits.sort_by_key(|edit| edit.location.span);
                for line in edits.into_iter().flat_map(|edit| changed(edit, source)) {
                    writeln!(out, "{pad}{}", words::clip(&line, room.saturating_sub(3)))?;
                }
            }
            _ => {
                for line in words::hang("cannot be written into this file automatically", room, 0) {
                    writeln!(out, "{pad}{line}")?;
                }
            }
        }
        for instruction in &row.by_hand {
            for (index, line) in words::hang(&format!("by hand: {instruction}"), room, 2).iter().enumerate() {
                writeln!(out, "{pad}{}{line}", if index == 0 { "" } else { "  " })?;
            }
        }
        Ok(())
    }

    fn advice(&self, rows: &[Suggestion], out: &mut dyn Write) -> io::Result<()> {
        writeln!(out)?;
        let fits = |row: &Suggestion| row.verdict == Verdict::Fits;
        let number = |wanted: &dyn Fn(&Suggestion) -> bool| rows.iter().position(wanted).map(|at| at + 1);
        let any = number(&fits);
        let same = number(&|row| fits(row) && row.safety() == Safety::Safe);
        let written = |row: usize| rows.get(row - 1).is_some_and(Suggestion::is_writable);
        let first = match (same, any) {
            (Some(same), _) => {
                format!("row {same} is the cheapest that fits and trains the same model on the same batches")
            }
            (None, Some(any)) => {
                format!("row {any} is the cheapest that fits; none fits without changing training")
            }
            (None, None) => "no row fits: the last comes nearest".to_owned(),
        };
        self.paragraph(&first, 2, out)?;
        match same.or(any) {
            Some(row) if written(row) => self.paragraph(&format!("add `--apply {row}` to write it"), 2, out),
            _ => Ok(()),
        }
    }
}

/// `  10  micro_batch_size: 1` for a changed line, `+ 24  adapter: qlora` for a new one.
fn changed(edit: &Edit, source: &Source) -> Vec<String> {
    let span = edit.location.span;
    let line = source.line_index(span.start);
    let whole = source.line_span(line);
    if span.is_empty() && edit.replacement.contains('\n') {
        // New lines stand behind the line they are added to, or before it at the start of a file.
        let first = if span.start == whole.start && span.start == 0 { line + 1 } else { line + 2 };
        let new = edit.replacement.lines().filter(|line| !line.trim().is_empty());
        return new
            .enumerate()
            .map(|(n, line)| format!("{:>4} + {}", first + n, sanitize::text(line)))
            .collect();
    }
    let start = (span.start - whole.start) as usize;
    let mut now = source.slice(whole).to_owned();
    let end = start + span.range().len();
    if now.get(start..end).is_some() {
        now.replace_range(start..end, &edit.replacement);
    }
    vec![format!("{:>4} ~ {}", line + 1, sanitize::text(now.trim_end()))]
}
