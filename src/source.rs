//! One file's text, its line index, and byte spans into it.

use std::sync::Arc;

/// A half-open range of byte offsets into a [`Source`]'s text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The span of `start..end`.
    pub fn new(start: usize, end: usize) -> Span {
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Span { start: clamp(start), end: clamp(end.max(start)) }
    }

    /// As a range for slicing.
    pub fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }

    /// True when the span covers no byte (an absent value).
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The smallest span that covers both.
    pub fn cover(self, other: Span) -> Span {
        Span { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// A place as people write it: line and column from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Position {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Which of the files of one check a span belongs to: 0 is the checked file itself, the others
/// are files it refers to, in the order they were opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub u16);

/// A span in one of the files of a check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Which file.
    pub source: SourceId,
    /// Where in it.
    pub span: Span,
}

impl Location {
    /// A place in the checked file itself.
    pub fn primary(span: Span) -> Location {
        Location { source: SourceId(0), span }
    }
}

/// The text of one file.
#[derive(Debug)]
pub struct Source {
    /// The path as the user wrote it or as discovery found it, with forward slashes.
    /// Untrusted: it goes through [`crate::sanitize`] before it is shown.
    pub path: String,
    /// The whole text, as read. A byte order mark is kept, so that spans are file offsets.
    pub text: String,
    line_starts: Vec<u32>,
}

impl Source {
    /// Indexes the lines of `text`.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Arc<Source> {
        let text = text.into();
        let line_starts = std::iter::once(0)
            .chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i as u32 + 1))
            .collect();
        Arc::new(Source { path: path.into(), text, line_starts })
    }

    /// The text a span covers; empty when the span is out of bounds.
    pub fn slice(&self, span: Span) -> &str {
        self.text.get(span.range()).unwrap_or("")
    }

    /// The line number (from 0) that holds a byte offset.
    pub fn line_index(&self, offset: u32) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// The number of lines.
    pub fn line_count(&self) -> usize {
        self.line_starts.len()
    }

    /// The byte span of a line (from 0) without its line break.
    pub fn line_span(&self, line: usize) -> Span {
        let start = self.line_starts.get(line).copied().unwrap_or(self.text.len() as u32) as usize;
        let end = self.line_starts.get(line + 1).map_or(self.text.len(), |next| *next as usize);
        let body = self.text.get(start..end).unwrap_or("");
        Span::new(start, start + body.trim_end_matches(['\n', '\r']).len())
    }

    /// The line and column of a byte offset.
    pub fn position(&self, offset: u32) -> Position {
        let line = self.line_index(offset);
        let start = self.line_starts[line] as usize;
        let mut end = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = self.text.get(start..end).unwrap_or("");
        // A byte order mark is no column to a person.
        let column = before.chars().filter(|c| *c != '\u{feff}').count() + 1;
        Position { line: line + 1, column }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_skip_a_byte_order_mark() {
        let source = Source::new("a.yaml", "\u{feff}a: é\r\nb: 1\r\n");
        let b = source.text.find("b:").unwrap_or_default() as u32;
        assert_eq!(source.position(3), Position { line: 1, column: 1 });
        assert_eq!(source.position(b), Position { line: 2, column: 1 });
        assert_eq!(source.slice(source.line_span(0)), "\u{feff}a: é");
    }
}
