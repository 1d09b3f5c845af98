//! One self-contained page: no request leaves it, and it reads the same without scripts, which
//! only sort the table.

use std::io::{self, Write};

use super::{Options, bar, pretty, window, words};
use crate::check::{FileReport, Report, Verdict};
use crate::finding::{Finding, Safety};
use crate::sanitize::{self, markup};
use crate::units::Bytes;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Columns of a shown line of a file.
const WIDTH: usize = 120;

pub(super) fn write(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>llmlint report</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>llmlint report</h1>"
    )?;
    for line in pretty::footer(report) {
        writeln!(out, "<p class=\"dim\">{}</p>", code(&line))?;
    }
    table(report, options, out)?;
    if report.files.iter().any(|file| !file.findings.is_empty()) {
        writeln!(out, "<h2>Findings</h2>")?;
    }
    for (index, file) in report.files.iter().enumerate().filter(|(_, file)| !file.findings.is_empty()) {
        writeln!(
            out,
            "<section id=\"file-{index}\">\n<h3 class=\"path\">{}</h3>",
            markup(&sanitize::path(&file.path))
        )?;
        for finding in &file.findings {
            article(file, finding, out)?;
        }
        writeln!(out, "</section>")?;
    }
    writeln!(
        out,
        "<p class=\"dim\">llmlint {}. 1 GiB is 2<sup>30</sup> bytes.</p>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>",
        markup(options.version)
    )
}

fn table(report: &Report, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let rows: Vec<(usize, &FileReport)> = report
        .files
        .iter()
        .enumerate()
        .filter(|(_, file)| file.run.is_some() || file.estimate.is_some())
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    let mut names: Vec<&str> = Vec::new();
    for (_, file) in &rows {
        for segment in file.estimate.iter().flat_map(bar::segments) {
            if !names.contains(&segment.name) {
                names.push(segment.name);
            }
        }
    }
    writeln!(out, "<h2>Configs</h2>\n<ul class=\"legend\">")?;
    for name in names {
        writeln!(out, "<li><i class=\"{name}\"></i>{name}</li>")?;
    }
    writeln!(out, "<li><i style=\"background:var(--fg);width:2px\"></i>budget</li>\n</ul>")?;
    let change = options.base.is_some();
    writeln!(
        out,
        "<div class=\"scroll\"><table>\n<thead><tr><th>Config</th><th>Framework</th><th>Model</th><th>Method</th>\
         <th>GPUs</th><th class=\"number\">Estimated peak</th><th class=\"number\">Budget</th><th>Parts of the peak</th>\
         <th>Verdict</th>{}</tr></thead>\n<tbody>",
        if change { "<th class=\"number\">Change</th>" } else { "" }
    )?;
    for (index, file) in rows {
        row(index, file, options, out)?;
    }
    writeln!(out, "</tbody>\n</table></div>")
}

fn row(index: usize, file: &FileReport, options: &Options<'_>, out: &mut dyn Write) -> io::Result<()> {
    let run = file.run.as_ref();
    let path = markup(&sanitize::path(&file.path));
    let link = if file.findings.is_empty() { path } else { format!("<a href=\"#file-{index}\">{path}</a>") };
    let text = |text: String| markup(&sanitize::text(&text));
    let peak = file.estimate.as_ref().map_or(Bytes::ZERO, |estimate| estimate.device);
    let budget = file.budget.as_ref().map(|budget| budget.memory);
    write!(
        out,
        "<tr><td class=\"path\">{link}</td><td data-name=\"framework\">{}</td><td data-name=\"model\">{}</td>\
         <td data-name=\"method\">{}</td><td class=\"short\" data-name=\"GPUs\">{}</td>",
        file.framework.unwrap_or_default(),
        text(run.map(words::short_model).unwrap_or_default()),
        text(run.map(words::method).unwrap_or_default()),
        text(words::gpus(file)),
    )?;
    write!(out, "<td class=\"number\" data-name=\"estimated peak\" data-key=\"{}\">", peak.0)?;
    if let Some(estimate) = &file.estimate {
        let range = estimate.device_interval;
        write!(out, "{peak} <span class=\"dim\">({range})</span>")?;
    } else if let Some(floor) = &file.floor {
        write!(out, "≥ {}", floor.total())?;
    }
    write!(
        out,
        "</td><td class=\"number\" data-name=\"budget\" data-key=\"{}\">",
        budget.map_or(0, |b| b.0)
    )?;
    if let Some(budget) = budget {
        write!(out, "{budget}")?;
    }
    write!(out, "</td><td class=\"bar\" data-key=\"{}\">", peak.0)?;
    if let Some(estimate) = &file.estimate {
        let scale = peak.max(budget.unwrap_or_default()).0.max(1) as f64;
        let segments = bar::segments(estimate);
        let words: Vec<String> = segments.iter().map(|s| format!("{} {}", s.name, s.bytes)).collect();
        write!(out, "<div class=\"stack\" role=\"img\" aria-label=\"{}\">", words.join(", "))?;
        for segment in &segments {
            write!(
                out,
                "<span class=\"{0}\" style=\"width:{1:.2}%\" title=\"{0}: {2}\"></span>",
                segment.name,
                segment.bytes.0 as f64 / scale * 100.0,
                segment.bytes
            )?;
        }
        if let Some(budget) = budget {
            let at = (budget.0 as f64 / scale * 100.0).min(99.5);
            write!(out, "<b style=\"left:{at:.2}%\" title=\"budget: {budget}\"></b>")?;
        }
        write!(out, "</div>")?;
    }
    let rank = match file.verdict {
        Verdict::Exceeds => 0,
        Verdict::Tight => 1,
        Verdict::Unknown => 2,
        Verdict::Fits => 3,
    };
    write!(
        out,
        "</td><td class=\"short\" data-name=\"verdict\" data-key=\"{rank}\"><span class=\"{}\">{}</span></td>",
        file.verdict.as_str(),
        words::verdict(file)
    )?;
    if let Some(base) = options.base {
        let change = words::change_from(Some(base), file);
        write!(out, "<td class=\"number\" data-name=\"change\">{change}</td>")?;
    }
    writeln!(out, "</tr>")
}

/// Sanitised text with what stands in backticks as code. An odd backtick is one.
fn code(text: &str) -> String {
    let parts: Vec<&str> = text.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return markup(text);
    }
    parts
        .iter()
        .enumerate()
        .map(|(index, part)| {
            let part = markup(part);
            if index % 2 == 1 { format!("<code>{part}</code>") } else { part }
        })
        .collect()
}

fn article(file: &FileReport, finding: &Finding, out: &mut dyn Write) -> io::Result<()> {
    let text = |text: &str| code(&words::clip(&sanitize::text(text), words::MESSAGE));
    let severity = finding.severity.as_str();
    writeln!(
        out,
        "<article>\n<p><span class=\"{severity}\">{severity}</span> <code>{}</code> {}</p>",
        finding.rule,
        text(&finding.message)
    )?;
    for block in window::blocks(file, finding, WIDTH) {
        if block.name != sanitize::path(&file.path) {
            writeln!(out, "<p class=\"dim path\">{}</p>", markup(&block.name))?;
        }
        write!(out, "<pre>")?;
        let last = block.first_line + block.text.lines().count();
        let gutter = last.to_string().len();
        for (offset, line) in block.text.lines().enumerate() {
            let number = block.first_line + offset + 1;
            writeln!(out, "<span class=\"label\">{number:>gutter$} │</span> {}", markup(line))?;
            for label in block.labels.iter().filter(|label| label.start.line == number) {
                let words = if label.text.is_empty() { "here" } else { &label.text };
                writeln!(
                    out,
                    "<span class=\"label\">{:>gutter$} ·</span> <span class=\"{}\">column {}: {}</span>",
                    "",
                    severity,
                    label.start.column,
                    markup(words)
                )?;
            }
        }
        writeln!(out, "</pre>")?;
    }
    let fixes: Vec<String> = finding
        .fixes
        .iter()
        .map(|fix| {
            let flag = if fix.safety == Safety::Safe { "--fix" } else { "--unsafe-fixes" };
            format!("{} <code>{flag}</code>", text(&fix.title))
        })
        .collect();
    let help = finding.help.iter().map(|line| text(line)).chain(fixes);
    let items: Vec<String> = finding
        .notes
        .iter()
        .map(|line| text(line))
        .chain(help.map(|line| format!("<b>Change:</b> {line}")))
        .collect();
    if !items.is_empty() {
        writeln!(out, "<ul>")?;
        for item in items {
            writeln!(out, "<li>{item}</li>")?;
        }
        writeln!(out, "</ul>")?;
    }
    writeln!(out, "</article>")
}
