//! A run's memory as one stacked bar against its budget.

use anstyle::AnsiColor;

use super::style::Paint;
use super::words;
use crate::memory::{Component, Estimate};
use crate::units::{Bytes, GIB};

/// One part of the bar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What it is.
    pub name: &'static str,
    /// How much.
    pub bytes: Bytes,
}

/// Parts shown under their own name; the rest is summed up.
const NAMED: usize = 4;

/// The peak of the worst rank in at most five parts, in the order a person adds them up. They
/// sum to [`Estimate::device`].
pub fn segments(estimate: &Estimate) -> Vec<Segment> {
    let mut parts: Vec<(Component, Bytes)> = Component::ALL
        .iter()
        .filter(|c| **c != Component::Context)
        .map(|c| (*c, estimate.component(*c)))
        .filter(|(_, bytes)| bytes.0 > 0)
        .collect();
    parts.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    // What is too small to be seen in a terminal has no place of its own.
    parts.retain(|(_, bytes)| bytes.0 * 50 >= estimate.device.0);
    parts.truncate(NAMED);
    parts.sort_by_key(|(component, _)| *component);
    let mut segments: Vec<Segment> =
        parts.iter().map(|(c, bytes)| Segment { name: c.as_str(), bytes: *bytes }).collect();
    let rest = estimate.device - segments.iter().map(|s| s.bytes).sum();
    if rest.0 > 0 {
        segments.push(Segment { name: "other", bytes: rest });
    }
    segments
}

const COLORS: [AnsiColor; NAMED + 1] =
    [AnsiColor::Blue, AnsiColor::Cyan, AnsiColor::Green, AnsiColor::Magenta, AnsiColor::White];

/// The bar and its legend, each line at most `width` columns.
pub fn stacked(estimate: &Estimate, budget: Option<Bytes>, width: usize, color: bool) -> Vec<String> {
    let paint = Paint { color };
    let fills: [char; NAMED + 1] = ['█', '▓', '▒', '░', '╍'];
    let rule = '┃';
    let segments = segments(estimate);
    // The budget's line takes a column of its own.
    let cells = width.saturating_sub(1).clamp(20, 72);
    let scale = estimate.device.max(budget.unwrap_or_default()).0.max(1) as f64;
    let column = |bytes: Bytes| (bytes.0 as f64 / scale * cells as f64).round() as usize;
    let line = budget.map(|budget| column(budget).min(cells));

    let mut bar = String::new();
    let mut at = 0;
    let mut sum = Bytes::ZERO;
    for (segment, (fill, hue)) in segments.iter().zip(fills.iter().zip(COLORS)) {
        sum += segment.bytes;
        let end = column(sum).max(at);
        let before = line.map_or(end, |line| line.clamp(at, end));
        bar.push_str(&paint.color(hue, fill.to_string().repeat(before - at)));
        if line.is_some_and(|line| line >= at && line < end) {
            bar.push_str(&paint.bold(rule));
        }
        bar.push_str(&paint.color(hue, fill.to_string().repeat(end - before)));
        at = end;
    }
    if let Some(line) = line.filter(|line| *line >= at) {
        bar.push_str(&" ".repeat(line - at));
        bar.push_str(&paint.bold(rule));
    }
    let mut lines = vec![bar];
    if let (Some(budget), Some(line)) = (budget, line) {
        let words = format!("budget {budget}");
        let room = line.saturating_sub(words.chars().count() + 1);
        let text = if line > words.chars().count() {
            format!("{}{words} {rule}", " ".repeat(room))
        } else {
            format!("{}{rule} {words}", " ".repeat(line))
        };
        lines.push(text);
    }
    // Wrapped by what is seen, painted afterwards: a fill is one character either way.
    let legend: Vec<String> = segments
        .iter()
        .zip(fills)
        .map(|(segment, fill)| format!("{fill}\u{a0}{}\u{a0}{}", segment.name, amount(segment.bytes)))
        .collect();
    for row in words::wrap(&legend.join("  "), width) {
        let mut row = row.replace('\u{a0}', " ");
        if color {
            for (fill, hue) in fills.iter().zip(COLORS) {
                row = row.replace(*fill, &paint.color(hue, fill));
            }
        }
        lines.push(row.trim_start().to_owned());
    }
    lines
}

/// Always in GiB: amounts that stand side by side are compared.
fn amount(bytes: Bytes) -> String {
    format!("{:.1}\u{a0}GiB", bytes.0 as f64 / GIB)
}

/// A small meter for tables: how much of the budget the peak takes.
pub fn meter(peak: Bytes, budget: Bytes, cells: usize) -> String {
    let share = if budget.0 > 0 { peak.0 as f64 / budget.0 as f64 } else { 1.0 };
    let filled = ((share * cells as f64).round() as usize).min(cells);
    format!("{}{}", "█".repeat(filled), "░".repeat(cells - filled))
}
