//! The lines of a file that a finding shows: a sanitised copy of a few lines, clipped in both
//! directions, with the labels moved along. `miette` sees this window and never the file: it
//! prints escapes raw, rescans the whole text for each finding, and panics when a label starts
//! beyond column 65,535.

use std::collections::BTreeMap;

use miette::{LabeledSpan, MietteError, MietteSpanContents, SourceCode, SourceSpan, SpanContents};

use super::words;
use crate::check::FileReport;
use crate::finding::Finding;
use crate::sanitize;
use crate::source::{Position, Source, SourceId};

/// Lines shown before and after a labelled one.
const CONTEXT: usize = 1;
/// Most blocks of lines for one finding.
const BLOCKS: usize = 6;

/// A label within a block.
#[derive(Debug)]
pub(super) struct BlockLabel {
    /// Byte offset into the block's text.
    offset: usize,
    length: usize,
    pub(super) text: String,
    /// The same beside the line.
    pub(super) shown: Beside,
    primary: bool,
    /// Where it stands in the file.
    pub(super) start: Position,
    /// Where it ends, on the same line.
    pub(super) end_column: usize,
}

/// How a label is shown beside the line it is on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Beside {
    /// Under its line, on as many lines as the terminal's width needs.
    Lines(String),
    /// Too far to the right for words: below the block.
    Below,
}

/// Fewer columns than that break words apart.
const NARROWEST: usize = 20;

impl Beside {
    fn of(text: &str, room: usize) -> Beside {
        if text.chars().count() <= room {
            Beside::Lines(text.to_owned())
        } else if room >= NARROWEST {
            Beside::Lines(words::wrap(text, room).join("\n"))
        } else {
            Beside::Below
        }
    }
}

/// Neighbouring lines of one file.
#[derive(Debug)]
pub(super) struct Block {
    /// The file, sanitised.
    pub(super) name: String,
    /// From 0.
    pub(super) first_line: usize,
    /// Whole lines, sanitised and clipped.
    pub(super) text: String,
    pub(super) labels: Vec<BlockLabel>,
}

struct Mark<'a> {
    /// Byte offsets into the line.
    start: usize,
    end: usize,
    text: &'a str,
    primary: bool,
}

/// The blocks of a finding, the checked file first.
pub(super) fn blocks(file: &FileReport, finding: &Finding, width: usize) -> Vec<Block> {
    let mut marks: BTreeMap<(SourceId, usize), Vec<Mark<'_>>> = BTreeMap::new();
    let labels = std::iter::once((&finding.primary, true)).chain(finding.labels.iter().map(|l| (l, false)));
    for (label, primary) in labels {
        let Some(source) = super::source(file, label.location) else { continue };
        let span = label.location.span;
        let line = source.line_index(span.start);
        let whole = source.line_span(line);
        let within = |offset: u32| (offset.clamp(whole.start, whole.end) - whole.start) as usize;
        let mark = Mark { start: within(span.start), end: within(span.end), text: &label.text, primary };
        marks.entry((label.location.source, line)).or_default().push(mark);
    }
    let mut groups: Vec<(SourceId, usize, usize)> = Vec::new();
    for (id, line) in marks.keys().copied() {
        let last = line + CONTEXT;
        match groups.last_mut() {
            // A single hidden line costs as much as showing it.
            Some(group) if group.0 == id && line.saturating_sub(CONTEXT) <= group.2 + 2 => group.2 = last,
            _ => groups.push((id, line.saturating_sub(CONTEXT), last)),
        }
    }
    let primary = marks.iter().find(|(_, marks)| marks.iter().any(|m| m.primary)).map(|(key, _)| *key);
    let holds_primary = |group: &(SourceId, usize, usize)| {
        primary.is_some_and(|(id, line)| id == group.0 && (group.1..=group.2).contains(&line))
    };
    if groups.len() > BLOCKS {
        let mut others = 1;
        groups.retain(|group| {
            others += usize::from(!holds_primary(group));
            holds_primary(group) || others <= BLOCKS
        });
    }
    groups
        .into_iter()
        .filter_map(|(id, first, last)| {
            let source = file.sources.get(usize::from(id.0))?;
            Some(block(source, id, first, last.min(source.line_count().saturating_sub(1)), &marks, width))
        })
        .collect()
}

fn block(
    source: &Source,
    id: SourceId,
    first: usize,
    last: usize,
    marks: &BTreeMap<(SourceId, usize), Vec<Mark<'_>>>,
    width: usize,
) -> Block {
    let gutter = (last + 1).to_string().len() + 4;
    let room = width.saturating_sub(gutter).clamp(20, 400);
    let mut block = Block {
        name: sanitize::path(&source.path).into_owned(),
        first_line: first,
        text: String::new(),
        labels: Vec::new(),
    };
    for line in first..=last {
        let span = source.line_span(line);
        let text = source.slice(span);
        let here = marks.get(&(id, line)).map_or(&[][..], Vec::as_slice);
        let window = Clip::of(text, here.iter().map(|m| m.start).min(), room);
        let base = block.text.len();
        let shown = window.render(text);
        for mark in here {
            let (start, end) = (window.map(text, mark.start, &shown), window.map(text, mark.end, &shown));
            let position = source.position(span.start + mark.start as u32);
            let columns = text.get(mark.start..mark.end).unwrap_or("").chars().count();
            let text = words::clip(&sanitize::text(mark.text), words::LABEL);
            // miette hangs the text from the middle of the underline, behind `╰── `.
            let middle = |from: usize, to: usize| {
                let columns = |end: usize| shown.get(..end).map_or(0, |part| part.chars().count());
                (columns(from) + columns(to.max(from))) / 2
            };
            let beside = width.saturating_sub(gutter + middle(start, end) + 4);
            block.labels.push(BlockLabel {
                offset: base + start,
                length: end.max(start) - start,
                shown: Beside::of(&text, beside),
                text,
                primary: mark.primary,
                start: position,
                end_column: position.column + columns.saturating_sub(1),
            });
        }
        block.text.push_str(&shown);
        block.text.push('\n');
    }
    block
}

/// Which characters of a line are shown.
struct Clip {
    from: usize,
    to: usize,
    cut_after: bool,
}

/// What stands for the part that is not shown.
const CUT: char = '…';

impl Clip {
    /// At most `room` characters, so that the first label is among them.
    fn of(text: &str, first_label: Option<usize>, room: usize) -> Clip {
        let length = text.chars().take(room + 1).count();
        if length <= room {
            return Clip { from: 0, to: length, cut_after: false };
        }
        let label = first_label.map_or(0, |at| text.get(..at).unwrap_or("").chars().count());
        let lead = room / 3;
        let from = if label + lead < room { 0 } else { label - lead };
        let to = from + room - 2;
        Clip { from, to, cut_after: text.chars().nth(to).is_some() }
    }

    fn render(&self, text: &str) -> String {
        let part: String = text
            .chars()
            .skip(self.from)
            .take(self.to - self.from)
            // A tab keeps its width; a byte order mark is not part of the text.
            .filter(|c| *c != '\u{feff}')
            .collect();
        let mut shown = String::new();
        if self.from > 0 {
            shown.push(CUT);
        }
        shown.push_str(&sanitize::text(&part));
        if self.cut_after {
            shown.push(CUT);
        }
        shown
    }

    /// A byte offset of the line as one of the shown text.
    fn map(&self, text: &str, offset: usize, shown: &str) -> usize {
        let before = text.get(..offset).unwrap_or("");
        let column = before.chars().count().clamp(self.from, self.to);
        let hidden = before.chars().skip(self.from).filter(|c| *c == '\u{feff}').count();
        let column = column - self.from - hidden.min(column - self.from) + usize::from(self.from > 0);
        shown.char_indices().nth(column).map_or(shown.len(), |(at, _)| at)
    }
}

impl SourceCode for Block {
    fn read_span<'a>(
        &'a self,
        span: &SourceSpan,
        before: usize,
        after: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        // Without context miette asks where a label is, for the header; otherwise for the lines.
        let label = self.labels.iter().find(|l| before + after == 0 && l.offset == span.offset());
        let (line, column) = label.map_or((self.first_line, 0), |l| (l.start.line - 1, l.start.column - 1));
        let lines = self.text.matches('\n').count();
        let whole = SourceSpan::from((0, self.text.len()));
        Ok(Box::new(MietteSpanContents::new_named(
            self.name.clone(),
            self.text.as_bytes(),
            whole,
            line,
            column,
            lines,
        )))
    }
}

/// One block with its labels, in the form miette renders.
#[derive(Debug)]
pub(super) struct Snippet(pub(super) Block, pub(super) miette::Severity);

impl std::fmt::Display for Snippet {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        Ok(())
    }
}

impl std::error::Error for Snippet {}

impl miette::Diagnostic for Snippet {
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.1)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.0)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.0.labels.iter().map(|label| {
            let text = match &label.shown {
                Beside::Lines(text) if !text.is_empty() => Some(text.clone()),
                _ => None,
            };
            if label.primary {
                LabeledSpan::new_primary_with_span(text, (label.offset, label.length))
            } else {
                LabeledSpan::new(text, label.offset, label.length)
            }
        })))
    }
}
