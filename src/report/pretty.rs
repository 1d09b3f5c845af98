//! For people at a terminal.

use std::collections::BTreeMap;
use std::io::{self, Write};

use miette::{GraphicalReportHandler, GraphicalTheme, ThemeCharacters, ThemeStyles};

use super::style::Paint;
use super::window::{self, Beside, Snippet};
use super::{Options, Summary, bar, place, rule_url, words};
use crate::check::{FileReport, Report, Verdict};
use crate::finding::{Finding, Fix, Safety, Severity};
use crate::framework;
use crate::sanitize;
use crate::source::SourceId;
use crate::units::Bytes;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let paint = Paint { color: options.color };
    let mut notes = Notes::of(report);
    for (file, finding) in super::findings(report) {
        if notes.shows(finding) {
            write_finding(file, finding, options, paint, out)?;
            writeln!(out)?;
        }
    }
    for (rule, left) in notes.left_out() {
        let tag = format!("note[{rule}]");
        let text = format!("{tag}: {left} more like these; `--format concise` lists them");
        tagged(&text, &tag, Severity::Note, options, None, out)?;
        writeln!(out)?;
    }
    if options.quiet {
        return Ok(());
    }
    let rows = table(report, options, paint);
    for row in &rows {
        writeln!(out, "{row}")?;
    }
    if !rows.is_empty() {
        writeln!(out)?;
    }
    for line in footer(report) {
        for line in words::wrap(&line, options.width) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(())
}

/// Notes of one rule that are shown in full when there are many.
const NOTES_SHOWN: usize = 3;
/// Up to here all of them are.
const NOTES_FEW: usize = 10;

/// The same note on hundreds of files would bury the errors between them.
struct Notes {
    /// Per rule: how many there are, and how many were seen.
    rules: BTreeMap<&'static str, (usize, usize)>,
}

impl Notes {
    fn of(report: &Report) -> Notes {
        let mut rules = BTreeMap::new();
        for (_, finding) in super::findings(report).filter(|(_, f)| f.severity == Severity::Note) {
            rules.entry(finding.rule).or_insert((0, 0)).0 += 1;
        }
        Notes { rules }
    }

    fn shows(&mut self, finding: &Finding) -> bool {
        match self.rules.get_mut(finding.rule).filter(|_| finding.severity == Severity::Note) {
            Some((all, seen)) => {
                *seen += 1;
                *all <= NOTES_FEW || *seen <= NOTES_SHOWN
            }
            None => true,
        }
    }

    fn left_out(&self) -> impl Iterator<Item = (&'static str, usize)> {
        self.rules
            .iter()
            .filter(|(_, (all, _))| *all > NOTES_FEW)
            .map(|(rule, (all, _))| (*rule, all - NOTES_SHOWN))
    }
}

fn write_finding(
    file: &FileReport,
    finding: &Finding,
    options: &Options<'_>,
    paint: Paint,
    out: &mut dyn Write,
) -> io::Result<()> {
    headline(finding, options, out)?;
    let severity = match finding.severity {
        Severity::Error => miette::Severity::Error,
        Severity::Warning => miette::Severity::Warning,
        Severity::Note => miette::Severity::Advice,
    };
    let blocks = window::blocks(file, finding, options.width);
    if blocks.is_empty() {
        let place = place(file, finding.primary.location);
        writeln!(out, "  --> {}", sanitize::path(place.path))?;
    }
    let renderer = renderer(options);
    for block in blocks {
        let below: Vec<String> = block
            .labels
            .iter()
            .filter(|label| label.shown == Beside::Below)
            .map(|label| format!("line {}: {}", label.start.line, label.text))
            .collect();
        let mut text = String::new();
        renderer.render_report(&mut text, &Snippet(block, severity)).map_err(io::Error::other)?;
        // The first line is miette's for the message, which the headline has said.
        for line in text.lines().skip(1) {
            writeln!(out, "{}", line.trim_end())?;
        }
        for label in below {
            hanging("  ", &label, options, out)?;
        }
    }
    if finding.rule == "over-budget"
        && let Some(estimate) = &file.estimate
    {
        let budget = file.budget.as_ref().map(|budget| budget.memory);
        for line in bar::stacked(estimate, budget, options.width.saturating_sub(4), options.color) {
            writeln!(out, "    {line}")?;
        }
    }
    for note in &finding.notes {
        paragraph("note", note, options, paint, out)?;
    }
    for help in &finding.help {
        paragraph("help", help, options, paint, out)?;
    }
    for fix in &finding.fixes {
        write_fix(file, fix, options, paint, out)?;
    }
    Ok(())
}

fn headline(finding: &Finding, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let tag = format!("{}[{}]", finding.severity.as_str(), finding.rule);
    let message = words::clip(&sanitize::text(&finding.message), words::MESSAGE);
    let url = rule_url(finding.rule).filter(|_| options.links);
    tagged(&format!("{tag}: {message}"), &tag, finding.severity, options, url.as_deref(), out)
}

/// Text that begins with a tag, with a hanging indent.
fn tagged(
    text: &str,
    tag: &str,
    severity: Severity,
    options: &Options<'_>,
    url: Option<&str>,
    out: &mut dyn Write,
) -> io::Result<()> {
    let paint = Paint { color: options.color };
    for (index, line) in words::hang(text, options.width, 2).iter().enumerate() {
        match line.strip_prefix(tag).filter(|_| index == 0) {
            Some(rest) => {
                let shown = paint.severity(severity, tag);
                let shown = match url {
                    Some(url) => format!("\u{1b}]8;;{url}\u{1b}\\{shown}\u{1b}]8;;\u{1b}\\"),
                    None => shown,
                };
                writeln!(out, "{shown}{}", paint.bold(rest))?;
            }
            None => writeln!(out, "{}{}", if index == 0 { "" } else { "  " }, paint.bold(line))?,
        }
    }
    Ok(())
}

/// Text behind a lead, with a hanging indent of the lead's width.
fn hanging(lead: &str, text: &str, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let indent = lead.chars().count();
    for (index, line) in words::wrap(text, options.width.saturating_sub(indent)).iter().enumerate() {
        if index == 0 {
            writeln!(out, "{lead}{line}")?;
        } else {
            writeln!(out, "{}{line}", " ".repeat(indent))?;
        }
    }
    Ok(())
}

fn paragraph(
    tag: &str,
    text: &str,
    options: &Options<'_>,
    paint: Paint,
    out: &mut dyn Write,
) -> io::Result<()> {
    let text = words::clip(&sanitize::text(text), words::MESSAGE);
    let lines = words::wrap(&text, options.width.saturating_sub(tag.len() + 4));
    for (index, line) in lines.iter().enumerate() {
        if index == 0 {
            writeln!(out, "  {}: {line}", paint.bold(tag))?;
        } else {
            writeln!(out, "  {}{line}", " ".repeat(tag.len() + 2))?;
        }
    }
    Ok(())
}

/// Lines a fix may show.
const DIFF_LINES: usize = 6;

/// The title, the flag that applies it, and the changed lines.
fn write_fix(
    file: &FileReport,
    fix: &Fix,
    options: &Options<'_>,
    paint: Paint,
    out: &mut dyn Write,
) -> io::Result<()> {
    let how = match fix.safety {
        Safety::Safe => "`--fix`",
        Safety::Unsafe => "changes training: `--unsafe-fixes`",
    };
    paragraph("fix", &format!("{} ({how})", fix.title), options, paint, out)?;
    for (old, new) in changed_lines(file, fix).into_iter().take(DIFF_LINES) {
        let room = options.width.saturating_sub(9).max(20);
        let clip = |text: &str| text.chars().take(room).collect::<String>();
        let new: Vec<_> =
            new.split('\n').filter(|line| !line.trim().is_empty()).map(sanitize::text).collect();
        // Where lines are only added, the line beside them stays.
        let stays = |line: &str| line == old && new.len() > 1;
        if !old.trim().is_empty() && !new.iter().any(|line| stays(line)) {
            writeln!(out, "       {}", paint.severity(Severity::Error, format!("- {}", clip(&old))))?;
        }
        for line in new.iter().filter(|line| !stays(line)).take(DIFF_LINES) {
            writeln!(out, "       {}", paint.color(anstyle::AnsiColor::Green, format!("+ {}", clip(line))))?;
        }
    }
    Ok(())
}

/// Each line of the checked file that edits touch, before and after. Several edits of one line
/// are applied together; edits over several lines show their first line.
fn changed_lines(file: &FileReport, fix: &Fix) -> Vec<(String, String)> {
    let mut lines: BTreeMap<(SourceId, usize), Vec<&crate::finding::Edit>> = BTreeMap::new();
    for edit in &fix.edits {
        if let Some(source) = super::source(file, edit.location) {
            lines
                .entry((edit.location.source, source.line_index(edit.location.span.start)))
                .or_default()
                .push(edit);
        }
    }
    let mut changed = Vec::new();
    for ((id, line), mut edits) in lines {
        let Some(source) = file.sources.get(usize::from(id.0)) else { continue };
        let span = source.line_span(line);
        let old = source.slice(span);
        let mut new = old.to_owned();
        edits.sort_by_key(|edit| std::cmp::Reverse(edit.location.span));
        for edit in edits {
            let start = (edit.location.span.start.saturating_sub(span.start)) as usize;
            let end = (edit.location.span.end.min(span.end).saturating_sub(span.start)) as usize;
            if start <= end && new.get(start..end).is_some() {
                // An edit up to the next line brings its own line break, which is no change here.
                let to_next_line = edit.location.span.end > span.end;
                let text = edit.replacement.as_str();
                new.replace_range(start..end, if to_next_line { text.trim_end_matches('\n') } else { text });
            }
        }
        changed.push((sanitize::text(old).into_owned(), new));
    }
    changed
}

fn renderer(options: &Options<'_>) -> GraphicalReportHandler {
    let theme = GraphicalTheme {
        characters: ThemeCharacters::unicode(),
        styles: if options.color { ThemeStyles::ansi() } else { ThemeStyles::none() },
    };
    GraphicalReportHandler::new_themed(theme)
        .with_width(options.width)
        .with_links(false)
        .with_context_lines(1)
        .without_cause_chain()
        .without_syntax_highlighting()
}

/// Rows shown at most; beyond that only those that do not fit.
const TABLE_ROWS: usize = 60;

/// One row a config that has an estimate.
fn table(report: &Report, options: &Options<'_>, paint: Paint) -> Vec<String> {
    let mut files: Vec<&FileReport> = report.files.iter().filter(|f| f.estimate.is_some()).collect();
    let all = files.len();
    if all > TABLE_ROWS {
        files.retain(|file| matches!(file.verdict, Verdict::Exceeds | Verdict::Tight));
        files.truncate(TABLE_ROWS);
    }
    let mut rows: Vec<Vec<String>> = files.iter().map(|file| row(file)).collect();
    let shorten_paths = |rows: &mut Vec<Vec<String>>, least: usize| {
        let over = total_width(rows).saturating_sub(options.width);
        let widest = column_widths(rows).first().copied().unwrap_or(0);
        let room = widest.saturating_sub(over).max(least);
        for path in rows.iter_mut().filter_map(|row| row.first_mut()) {
            *path = shorten(path, room);
        }
    };
    shorten_paths(&mut rows, 36);
    // The least telling columns go first when the terminal is narrow.
    for drop in [5, 3, 2, 1] {
        if total_width(&rows) <= options.width {
            break;
        }
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(drop)) {
            cell.clear();
        }
    }
    if total_width(&rows) > options.width {
        for cell in rows.iter_mut().filter_map(|row| row.get_mut(4)) {
            *cell = cell.replace(" GiB of ", "/");
        }
    }
    shorten_paths(&mut rows, 16);
    let widths = column_widths(&rows);
    let mut lines: Vec<String> = rows
        .iter()
        .zip(&files)
        .map(|(row, file)| {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate().filter(|(_, (_, w))| **w > 0) {
                if index > 0 {
                    line.push_str("  ");
                }
                let last = index + 1 == widths.len();
                let padding = if last { 0 } else { width.saturating_sub(cell.chars().count()) };
                let padding = " ".repeat(padding);
                // Amounts are compared digit by digit.
                let padded = if index == 4 { format!("{padding}{cell}") } else { format!("{cell}{padding}") };
                line.push_str(&match (index, file.verdict) {
                    (6, Verdict::Exceeds) => paint.severity(Severity::Error, padded),
                    (6, Verdict::Tight) => paint.severity(Severity::Warning, padded),
                    (6, Verdict::Fits) => paint.color(anstyle::AnsiColor::Green, padded),
                    _ => padded,
                });
            }
            line.trim_end().to_owned()
        })
        .collect();
    if files.len() < all {
        lines.push(format!("and {} more", words::count(all - files.len(), "config")));
    }
    lines
}

fn row(file: &FileReport) -> Vec<String> {
    let clean = |text: String| sanitize::text(&text).into_owned();
    let peak = file.estimate.as_ref().map_or(Bytes::ZERO, |estimate| estimate.device);
    let (amount, meter) = match &file.budget {
        Some(budget) => (format!("{peak} of {}", budget.memory), bar::meter(peak, budget.memory, 10)),
        None => (peak.to_string(), String::new()),
    };
    let run = file.run.as_ref();
    let gpus = words::gpus(file);
    vec![
        sanitize::path(&file.path).into_owned(),
        clean(run.map(words::short_model).unwrap_or_default()),
        run.map(words::method).unwrap_or_default(),
        gpus,
        amount,
        meter,
        words::verdict(file).to_owned(),
    ]
}

fn column_widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    (0..columns)
        .map(|c| rows.iter().filter_map(|row| row.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect()
}

fn total_width(rows: &[Vec<String>]) -> usize {
    let widths = column_widths(rows);
    let shown = widths.iter().filter(|w| **w > 0).count();
    widths.iter().sum::<usize>() + 2 * shown.saturating_sub(1)
}

/// Keeps both ends of a path.
fn shorten(path: &str, room: usize) -> String {
    let length = path.chars().count();
    if length <= room {
        return path.to_owned();
    }
    let head = room / 3;
    let tail = room - head - 1;
    let start: String = path.chars().take(head).collect();
    let end: String = path.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// The frameworks whose files were recognised and not read, so that nobody wonders.
fn unsupported(report: &Report) -> Option<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    for name in report.files.iter().filter_map(|file| file.framework) {
        if framework::by_name(name).is_some_and(|framework| !framework.supported()) {
            *counts.entry(name).or_default() += 1;
        }
    }
    let list: Vec<String> = counts
        .iter()
        .map(|(name, count)| if *count > 1 { format!("{name} ({count})") } else { (*name).to_owned() })
        .collect();
    (!list.is_empty()).then(|| format!("Recognised, and not supported yet: {}", list.join(", ")))
}

/// What was looked at and what came out, in one or two lines.
pub(super) fn footer(report: &Report) -> Vec<String> {
    let summary = Summary::of(report);
    let mut verdicts = Vec::new();
    for (count, words) in [
        (summary.exceeds, "over budget"),
        (summary.tight, "tight"),
        (summary.fits, "within budget"),
        (summary.no_budget, "without a budget"),
        (summary.unknown - summary.no_budget, "without an estimate"),
    ] {
        if count > 0 {
            verdicts.push(format!("{count} {words}"));
        }
    }
    let mut found = Vec::new();
    for (count, word) in [(summary.errors, "error"), (summary.warnings, "warning"), (summary.notes, "note")] {
        if count > 0 {
            found.push(words::count(count, word));
        }
    }
    let mut first = match summary.runs {
        0 => "No training config found".to_owned(),
        runs if verdicts.is_empty() => words::count(runs, "config"),
        runs => format!("{}: {}", words::count(runs, "config"), verdicts.join(", ")),
    };
    first.push_str("; ");
    first.push_str(&if found.is_empty() { "no findings".to_owned() } else { found.join(", ") });
    if summary.suppressed > 0 {
        first.push_str(&format!(" ({} suppressed)", summary.suppressed));
    }
    let millis = report.elapsed.as_millis();
    let time = if millis < 10_000 { format!("{millis} ms") } else { format!("{} s", millis / 1000) };
    first.push_str(&format!(" ({}, {time})", words::count(summary.files, "file")));
    let mut lines = vec![first];
    lines.extend(unsupported(report));
    if summary.findings() > 0 {
        lines.push("`llmlint rules NAME` explains a rule".to_owned());
    }
    match (summary.fixable, summary.unsafe_fixable) {
        (0, 0) => {}
        (0, n) => lines.push(format!("{n} fixable with `--unsafe-fixes`, which changes training")),
        (n, 0) => lines.push(format!("{n} fixable with `--fix`")),
        (n, m) => lines.push(format!(
            "{n} fixable with `--fix`, {m} more with `--unsafe-fixes`, which changes training"
        )),
    }
    lines
}
