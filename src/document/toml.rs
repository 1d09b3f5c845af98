//! TOML text to a tree.

use toml::de::{DeTable, DeValue};

use super::{Comment, Document, Entry, Node, NodeId, NodeKind, Problem, ProblemKind, Style, Syntax, limits};
use crate::source::Span;

/// Most syntax errors kept of one file: junk can give hundreds of thousands.
const ERRORS: usize = 20;

/// Reads TOML text; a file with errors still has a tree of what could be read.
pub fn parse(text: &str) -> Document {
    let (table, errors) = DeTable::parse_recoverable(text);
    let mut document = Document::empty(Syntax::Toml);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or_default();
            Problem {
                kind: ProblemKind::Syntax,
                span: Span::new(span.start, span.end),
                related: None,
                message: error.message().to_owned(),
            }
        })
        .collect();
    problems.sort_by_key(|p| p.span);
    problems.truncate(ERRORS);
    document.problems = problems;
    let span = table.span();
    let root = mapping(&mut document, table.get_ref(), Span::new(span.start, span.end), 0);
    document.set_root(root);
    document.comments = comments(text);
    document
}

fn mapping(document: &mut Document, table: &DeTable<'_>, span: Span, depth: usize) -> NodeId {
    let id = document.push(Node { kind: NodeKind::Mapping(Vec::new()), span, tag: None });
    if depth > limits::DEPTH || document.len() > limits::NODES {
        return id;
    }
    let mut entries = Vec::with_capacity(table.len());
    let mut cover = span;
    for (key, item) in table {
        let key_span = Span::new(key.span().start, key.span().end);
        let text = key.get_ref().as_ref().into();
        let key = document.push(Node {
            kind: NodeKind::Scalar { text, style: Style::Quoted },
            span: key_span,
            tag: None,
        });
        let value_span = Span::new(item.span().start, item.span().end);
        let value = value(document, item.get_ref(), value_span, depth + 1);
        cover = cover.cover(key_span).cover(document.node(value).span);
        entries.push(Entry { key, value });
    }
    let node = document.node_mut(id);
    node.kind = NodeKind::Mapping(entries);
    node.span = cover;
    id
}

fn value(document: &mut Document, value: &DeValue<'_>, span: Span, depth: usize) -> NodeId {
    let scalar = |text: &str, style| NodeKind::Scalar { text: text.into(), style };
    let kind = match value {
        DeValue::Table(table) => return mapping(document, table, span, depth),
        DeValue::Array(items) => {
            let id = document.push(Node { kind: NodeKind::Sequence(Vec::new()), span, tag: None });
            if depth <= limits::DEPTH && document.len() <= limits::NODES {
                let ids = items
                    .iter()
                    .map(|item| {
                        let span = Span::new(item.span().start, item.span().end);
                        self::value(document, item.get_ref(), span, depth + 1)
                    })
                    .collect();
                document.node_mut(id).kind = NodeKind::Sequence(ids);
            }
            return id;
        }
        DeValue::String(text) => scalar(text, Style::Quoted),
        DeValue::Integer(number) => {
            let digits = number.as_str().replace('_', "");
            let decimal = i64::from_str_radix(&digits, number.radix()).map_or(digits, |n| n.to_string());
            scalar(&decimal, Style::Plain)
        }
        DeValue::Float(number) => scalar(number.as_str(), Style::Plain),
        DeValue::Boolean(value) => scalar(if *value { "true" } else { "false" }, Style::Plain),
        DeValue::Datetime(date) => scalar(&date.to_string(), Style::Plain),
    };
    document.push(Node { kind, span, tag: None })
}

/// Comments by a scan that knows TOML's four kinds of string.
fn comments(text: &str) -> Vec<Comment> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => {
                let triple = bytes[at..].starts_with(&[quote; 3]);
                at += if triple { 3 } else { 1 };
                while at < bytes.len() {
                    if bytes[at] == b'\\' && quote == b'"' {
                        at += 1;
                    } else if triple && bytes[at..].starts_with(&[quote; 3]) {
                        at += 2;
                        break;
                    } else if !triple && (bytes[at] == quote || bytes[at] == b'\n') {
                        break;
                    }
                    at += 1;
                }
            }
            b'#' => {
                let start = at;
                while at < bytes.len() && bytes[at] != b'\n' {
                    at += 1;
                }
                let line = text.get(start..at).unwrap_or("");
                let body = line.trim_end();
                found.push(Comment {
                    span: Span::new(start, start + body.len()),
                    text: body.trim_start_matches('#').trim().to_owned(),
                });
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Dialect;

    #[test]
    fn tables_keys_and_comments_have_their_bytes() {
        let text = "# top\n[training]\nlr = 3e-4 # not a \"string\"\nmodel.flavor = '8B'\n";
        let document = parse(text);
        let root = document.root(Dialect::Toml).expect("parses");
        let lr = root.path("training.lr").expect("there");
        assert_eq!(&text[lr.span().range()], "3e-4");
        assert_eq!(lr.as_float(), Some(3e-4));
        assert_eq!(root.path("training.model.flavor").and_then(|v| v.as_str()), Some("8B"));
        assert_eq!(document.comments.len(), 2);
        assert!(parse("a = \nb = 1\n").is_broken());
    }
}
