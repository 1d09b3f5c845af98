//! JSON text to a tree, read leniently: comments and trailing commas are problems, not failures,
//! because DeepSpeed's own loader accepts them.

use super::{Document, NodeKind, Problem, ProblemKind, Style, Syntax, yaml};
use crate::source::Span;

/// Reads JSON text.
pub fn parse(text: &str) -> Document {
    let finite = finite(text);
    let strict = serde_json::from_str::<serde::de::IgnoredAny>(finite.trim_start_matches('\u{feff}'));
    let mut document = yaml::build(&without_comments(text), Syntax::Json);
    // JSON files hold one value: what YAML would read on after it is an error here.
    document.problems.retain(|p| p.kind != ProblemKind::MultipleDocuments);
    if strict.is_ok() && document.problems.iter().any(|p| p.kind == ProblemKind::Syntax) {
        // Characters that JSON allows raw and YAML does not (tokenizer vocabularies hold them).
        // No config does, so there is nothing to read and nothing wrong.
        return Document::empty(Syntax::Json);
    }
    if let Err(error) = strict {
        let lenient = !document.is_broken() && plausible(&document);
        let offset = offset_of(text, error.line(), error.column());
        let kind = if !lenient {
            ProblemKind::Syntax
        } else if comment_spans(text).next().is_some() {
            ProblemKind::JsonComment
        } else {
            ProblemKind::JsonTrailingComma
        };
        if !document.is_broken() {
            let span = Span::new(offset, offset);
            document.problems.push(Problem { kind, span, related: None, message: error.to_string() });
        }
    }
    document
}

/// Lenient text must still be JSON in all but comments and commas: every string quoted, every
/// plain scalar a JSON word or number.
fn plausible(document: &Document) -> bool {
    (0..document.len()).all(|index| match &document.node(super::NodeId(index as u32)).kind {
        NodeKind::Scalar { text, style: Style::Plain } => {
            super::pyyaml::python_number(text).is_some()
                || serde_json::from_str::<serde_json::Value>(text).is_ok_and(|v| !v.is_string())
        }
        NodeKind::Scalar { .. } => true,
        _ => true,
    })
}

fn offset_of(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let mut offset = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(offset) {
        offset -= 1;
    }
    offset
}

/// Puts a digit in the place of `NaN`, `Infinity` and `-Infinity`, which Python's json module reads
/// and writes, so that every other byte keeps its place.
fn finite(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains("NaN") && !text.contains("Infinity") {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(c) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|w| !in_string && rest.starts_with(w));
        let taken = match word {
            Some(word) => {
                out.push('0');
                out.extend(std::iter::repeat_n(' ', word.len() - 1));
                word.len()
            }
            None if in_string && c == '\\' => {
                let pair: String = rest.chars().take(2).collect();
                out.push_str(&pair);
                pair.len()
            }
            None => {
                in_string ^= c == '"';
                out.push(c);
                c.len_utf8()
            }
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    out.into()
}

/// Byte ranges of `//`, `#` and `/* */` comments outside strings.
fn comment_spans(text: &str) -> impl Iterator<Item = std::ops::Range<usize>> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        let mut in_string = false;
        while at < bytes.len() {
            match bytes[at] {
                b'\\' if in_string => at += 1,
                b'"' => in_string = !in_string,
                b'#' if !in_string => return Some(line_comment(bytes, &mut at)),
                b'/' if !in_string && bytes.get(at + 1) == Some(&b'/') => {
                    return Some(line_comment(bytes, &mut at));
                }
                b'/' if !in_string && bytes.get(at + 1) == Some(&b'*') => {
                    let start = at;
                    let rest = &text[at + 2..];
                    at = rest.find("*/").map_or(bytes.len(), |end| at + 2 + end + 2);
                    return Some(start..at);
                }
                _ => {}
            }
            at += 1;
        }
        None
    })
}

fn line_comment(bytes: &[u8], at: &mut usize) -> std::ops::Range<usize> {
    let start = *at;
    while *at < bytes.len() && bytes[*at] != b'\n' {
        *at += 1;
    }
    start..*at
}

/// Blanks comments out, so that every other byte keeps its place.
fn without_comments(text: &str) -> std::borrow::Cow<'_, str> {
    let spans: Vec<_> = comment_spans(text).collect();
    if spans.is_empty() {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for span in spans {
        out.push_str(&text[at..span.start]);
        out.extend(text[span.clone()].bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        at = span.end;
    }
    out.push_str(&text[at..]);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Dialect;

    #[test]
    fn comments_and_trailing_commas_are_problems_not_failures() {
        let document = parse("{\n  // stage\n  \"a\": 1,\n}");
        assert_eq!(document.problems.len(), 1);
        assert_eq!(document.root(Dialect::Json).and_then(|r| r.get("a")?.as_int()), Some(1));
        assert!(parse("{\"a\": }").is_broken());
        assert!(parse("{\"a\": \"// no comment\"}").problems.is_empty());
    }

    #[test]
    fn what_python_writes_for_numbers_that_are_none_is_read() {
        let document = parse("{\"a\": NaN, \"b\": [-Infinity, Infinity], \"c\": \"NaN\"}");
        assert!(document.problems.is_empty(), "{:?}", document.problems);
        let root = document.root(Dialect::Json).expect("parsed");
        assert!(root.get("a").and_then(|v| v.to_float()).is_some_and(f64::is_nan));
        assert_eq!(root.get("c").and_then(|v| v.as_str()), Some("NaN"));
        assert!(parse("{\"a\": Nan}").is_broken());
        // A comment beside one is still a comment.
        assert_eq!(parse("{\"a\": NaN} // b").problems.len(), 1);
    }
}
