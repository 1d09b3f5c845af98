//! Setting one key in a file's text, touching no other byte.

use serde_json::Value as Json;

use super::{Dialect, Style, Syntax, Value, pyyaml};
use crate::finding::Edit;
use crate::source::{Location, Source, Span};

/// The edit that gives the dotted `key` the `value`: replaces what is there, or adds a line at
/// the end of the deepest mapping that is there. A list is added to, so that it holds at least
/// the items of `value`; an edit that changes nothing is empty. `None` where that cannot be done
/// safely (block scalars, collections, flow mappings in YAML).
pub fn set_key(source: &Source, root: Value<'_>, key: &str, value: &Json) -> Option<Edit> {
    let syntax = root.document().syntax;
    let edit =
        |span: Span, replacement: String| Some(Edit { location: Location::primary(span), replacement });
    if let (Some(old), Json::Array(wanted)) = (root.path(key).filter(|old| !old.is_null()), value) {
        let (at, text) = append(source, old, wanted)?;
        return edit(Span::new(at, at), text);
    }
    if let Some(old) = root.path(key) {
        let text = scalar_text(syntax, root.dialect(), value)?;
        return match old.style()? {
            Style::Block => None,
            // An absent value has an empty span right where it would be written.
            _ if old.span().is_empty() => {
                let spaced = source.text[..old.span().start as usize].ends_with(' ');
                edit(old.span(), if spaced { text } else { format!(" {text}") })
            }
            _ => edit(old.span(), text),
        };
    }
    let parts: Vec<&str> = key.split('.').collect();
    let mut parent = root;
    let mut depth = 0;
    while let Some(next) = parts.get(depth).and_then(|part| parent.get(part)) {
        parent = next;
        depth += 1;
    }
    if !parent.is_mapping() {
        return None;
    }
    let missing = parts.get(depth..)?;
    match syntax {
        Syntax::Yaml => insert_yaml(source, parent, missing, value),
        Syntax::Json => insert_json(source, parent, missing, value),
        Syntax::Toml => insert_toml(source, root, parent, parts.get(..depth)?, missing, value),
    }
    .and_then(|(at, text)| edit(Span::new(at, at), text))
}

/// What is missing of `wanted`, written after the last item of a list.
fn append(source: &Source, list: Value<'_>, wanted: &[Json]) -> Option<(usize, String)> {
    let text = &source.text;
    let last = list.items().last()?;
    let missing: Vec<&Json> = wanted
        .iter()
        .filter(|item| !list.items().any(|there| there.to_json().as_ref() == Some(*item)))
        .collect();
    let mut out = String::new();
    if text.get(list.span().range())?.starts_with('[') {
        for item in missing {
            out.push_str(", ");
            out.push_str(&scalar_text(list.document().syntax, list.dialect(), item)?);
        }
        return Some((last.span().end as usize, out));
    }
    let start = last.span().start as usize;
    let indent = indent_of(text, start);
    let line_start = text[..start].rfind('\n').map_or(0, |n| n + 1);
    if list.document().syntax != Syntax::Yaml || text.get(line_start + indent.len()..start)?.trim() != "-" {
        return None;
    }
    for item in missing {
        out.push_str(line_break(text));
        out.push_str(indent);
        out.push_str("- ");
        out.push_str(&scalar_text(Syntax::Yaml, list.dialect(), item)?);
    }
    Some((end_of_line(text, last.span().end as usize), out))
}

/// A scalar as the file's syntax writes it, so that its loader reads it back as it was.
pub fn scalar_text(syntax: Syntax, dialect: Dialect, value: &Json) -> Option<String> {
    match (syntax, value) {
        (_, Json::Object(_) | Json::Array(_)) => None,
        (Syntax::Toml, Json::Null) => None,
        (Syntax::Yaml, Json::String(text)) => {
            let plain = pyyaml::resolve(text, Style::Plain, None, dialect);
            let simple = !text.is_empty()
                && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
                && !text.starts_with('-');
            let same = plain == super::Scalar::Str(text.clone());
            Some(if simple && same { text.clone() } else { Json::from(text.as_str()).to_string() })
        }
        (_, value) => Some(value.to_string()),
    }
}

fn end_of_line(text: &str, at: usize) -> usize {
    let rest = text.get(at..).unwrap_or("");
    at + rest.find('\n').map_or(rest.len(), |end| if rest[..end].ends_with('\r') { end - 1 } else { end })
}

fn line_break(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

fn indent_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |n| n + 1);
    let line = &text[start..at];
    &line[..line.len() - line.trim_start().len()]
}

fn insert_yaml(
    source: &Source,
    parent: Value<'_>,
    missing: &[&str],
    value: &Json,
) -> Option<(usize, String)> {
    let text = &source.text;
    let fields = parent.fields();
    let first = fields.first()?;
    // A flow mapping has its brace before the first key on the span's first byte.
    if text.get(parent.span().range())?.starts_with('{') {
        return None;
    }
    let last = fields.iter().max_by_key(|f| f.value.span().end.max(f.key_span.end))?;
    let start = first.key_span.start as usize;
    let indent = indent_of(text, start);
    // The key of a list item stands after its dash: its column is the indentation.
    let column = text[..start].rfind('\n').map_or(start, |n| start - n - 1);
    if indent.len() != column {
        return None;
    }
    let at = end_of_line(text, last.value.span().end.max(last.key_span.end) as usize);
    let newline = line_break(text);
    let mut out = String::new();
    for (depth, part) in missing.iter().enumerate() {
        out.push_str(newline);
        out.push_str(indent);
        out.push_str(&"  ".repeat(depth));
        out.push_str(part);
        out.push(':');
    }
    match value {
        Json::Array(items) => {
            for item in items {
                out.push_str(newline);
                out.push_str(indent);
                out.push_str(&"  ".repeat(missing.len()));
                out.push_str("- ");
                out.push_str(&scalar_text(Syntax::Yaml, parent.dialect(), item)?);
            }
        }
        scalar => {
            out.push(' ');
            out.push_str(&scalar_text(Syntax::Yaml, parent.dialect(), scalar)?);
        }
    }
    Some((at, out))
}

fn insert_json(
    source: &Source,
    parent: Value<'_>,
    missing: &[&str],
    value: &Json,
) -> Option<(usize, String)> {
    let fields = parent.fields();
    let (first, last) = (fields.first()?, fields.iter().max_by_key(|f| f.value.span().end)?);
    let nested =
        missing.iter().skip(1).rev().fold(value.clone(), |inner, part| serde_json::json!({ *part: inner }));
    let newline = line_break(&source.text);
    let indent = indent_of(&source.text, first.key_span.start as usize);
    let key = Json::from(*missing.first()?);
    Some((last.value.span().end as usize, format!(",{newline}{indent}{key}: {nested}")))
}

fn insert_toml(
    source: &Source,
    root: Value<'_>,
    parent: Value<'_>,
    present: &[&str],
    missing: &[&str],
    value: &Json,
) -> Option<(usize, String)> {
    let text = &source.text;
    let newline = line_break(text);
    let written = scalar_text(Syntax::Toml, root.dialect(), value)?;
    let (last_key, tables) = missing.split_last()?;
    if !tables.is_empty() || (present.is_empty() && parent.fields().iter().all(|f| f.value.is_mapping())) {
        if tables.is_empty() {
            // A top-level key goes before the first table.
            return Some((0, format!("{last_key} = {written}{newline}")));
        }
        let path: Vec<&str> = present.iter().chain(tables).copied().collect();
        let gap = if text.is_empty() || text.ends_with('\n') { "" } else { newline };
        let block = format!("{gap}{newline}[{}]{newline}{last_key} = {written}{newline}", path.join("."));
        return Some((text.len(), block));
    }
    let last =
        parent.fields().into_iter().filter(|f| !f.value.is_mapping()).max_by_key(|f| f.value.span().end)?;
    let indent = indent_of(text, last.key_span.start as usize);
    let at = end_of_line(text, last.value.span().end as usize);
    Some((at, format!("{newline}{indent}{last_key} = {written}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::Document;

    fn after(path: &str, text: &str, dialect: Dialect, key: &str, value: impl Into<Json>) -> Option<String> {
        let source = Source::new(path, text);
        let document = Document::parse(&source, Syntax::of_path(path)?);
        let edit = set_key(&source, document.root(dialect)?, key, &value.into())?;
        let mut out = text.to_owned();
        out.replace_range(edit.location.span.range(), &edit.replacement);
        Some(out)
    }

    #[test]
    fn a_value_is_replaced_and_its_comment_kept() {
        let now = after("a.yaml", "a: 8 # why\nb: 1\n", Dialect::PyYaml, "a", 2);
        assert_eq!(now.as_deref(), Some("a: 2 # why\nb: 1\n"));
        assert_eq!(
            after("a.yaml", "a:\nb: 1\n", Dialect::PyYaml, "a", true).as_deref(),
            Some("a: true\nb: 1\n")
        );
    }

    #[test]
    fn a_list_is_added_to() {
        let add = |text: &str| after("a.yaml", text, Dialect::PyYaml, "p", Json::from(vec!["a.B", "c"]));
        assert_eq!(add("p:\n  - a.B # why\nx: 1\n").as_deref(), Some("p:\n  - a.B # why\n  - c\nx: 1\n"));
        assert_eq!(add("p: [z]\n").as_deref(), Some("p: [z, a.B, c]\n"));
        assert_eq!(add("x: 1\n").as_deref(), Some("x: 1\np:\n  - a.B\n  - c\n"));
        assert_eq!(add("p: [c, a.B]\n").as_deref(), Some("p: [c, a.B]\n"), "nothing is missing");
        assert_eq!(add("p: {c: 1}\n"), None);
    }

    #[test]
    fn a_new_key_goes_to_the_end_of_its_mapping() {
        let yaml = after("a.yaml", "a: 1\nt:\n  x: 1 # c\nb: 2\n", Dialect::PyYaml, "t.y", "no");
        assert_eq!(yaml.as_deref(), Some("a: 1\nt:\n  x: 1 # c\n  y: \"no\"\nb: 2\n"));
        let toml = after("a.toml", "[t]\nx = 1\n\n[u]\ny = 2\n", Dialect::Toml, "t.z", 3);
        assert_eq!(toml.as_deref(), Some("[t]\nx = 1\nz = 3\n\n[u]\ny = 2\n"));
        let table = after("a.toml", "[t]\nx = 1\n", Dialect::Toml, "v.z", 3);
        assert_eq!(table.as_deref(), Some("[t]\nx = 1\n\n[v]\nz = 3\n"));
        let json = after("a.json", "{\n  \"a\": 1\n}\n", Dialect::Json, "b.c", 3);
        assert_eq!(json.as_deref(), Some("{\n  \"a\": 1,\n  \"b\": {\"c\":3}\n}\n"));
    }
}
