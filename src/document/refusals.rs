//! What PyYAML's SafeLoader refuses although the parser accepts it: tabs between tokens,
//! unprintable characters, tags it has no constructor for, `=`, and keys it cannot hash.

use super::{Document, NodeId, NodeKind, Problem, ProblemKind, Style};
use crate::source::Span;

/// The tags of `yaml/constructor.py`, `SafeConstructor`.
const KNOWN_TAGS: [&str; 13] = [
    "!!null",
    "!!bool",
    "!!int",
    "!!float",
    "!!binary",
    "!!timestamp",
    "!!omap",
    "!!pairs",
    "!!set",
    "!!str",
    "!!seq",
    "!!map",
    "!",
];

/// Most refusals kept of one file.
const MOST: usize = 100;

/// Adds a [`ProblemKind::PyYamlRefuses`] for each place.
pub(super) fn report(document: &mut Document, text: &str) {
    let mut found: Vec<(Span, String)> = Vec::new();
    characters(document, text, &mut found);
    for node in &document.nodes {
        if let Some(tag) = node.tag.as_deref().filter(|tag| !KNOWN_TAGS.contains(tag)) {
            found.push((
                node.span,
                format!("PyYAML's safe loader knows no tag `{}`", tag.chars().take(60).collect::<String>()),
            ));
        }
        match &node.kind {
            NodeKind::Scalar { text, style: Style::Plain } if &**text == "=" && node.tag.is_none() => {
                found.push((node.span, "PyYAML cannot read a bare `=`; quote it".into()));
            }
            NodeKind::Mapping(entries) => {
                for entry in entries {
                    keys(document, entry.key, entry.value, &mut found);
                }
            }
            _ => {}
        }
    }
    found.sort_by_key(|(span, _)| *span);
    let problems = found.into_iter().take(MOST);
    document.problems.extend(problems.map(|(span, message)| Problem {
        kind: ProblemKind::PyYamlRefuses,
        span,
        related: None,
        message,
    }));
}

fn keys(document: &Document, key: NodeId, value: NodeId, found: &mut Vec<(Span, String)>) {
    let node = document.node(key);
    match &followed(document, key).kind {
        NodeKind::Mapping(_) => {
            found.push((node.span, "a mapping cannot be a key; quote text that starts with `{`".into()));
        }
        NodeKind::Sequence(_) => {
            found.push((node.span, "a list cannot be a key; quote text that starts with `[`".into()));
        }
        NodeKind::Scalar { text, style: Style::Plain } if &**text == "<<" => {
            let merged = followed(document, value);
            let mergeable = match &merged.kind {
                NodeKind::Mapping(_) => true,
                NodeKind::Sequence(items) => {
                    items.iter().all(|id| matches!(followed(document, *id).kind, NodeKind::Mapping(_)))
                }
                _ => false,
            };
            if !mergeable {
                found.push((node.span, "`<<` merges mappings, and this is none".into()));
            }
        }
        _ => {}
    }
}

fn followed(document: &Document, id: NodeId) -> &super::Node {
    match document.node(id).kind {
        NodeKind::Alias(target) => document.node(target),
        _ => document.node(id),
    }
}

/// Tabs that separate tokens, and characters outside PyYAML's `NON_PRINTABLE` set.
fn characters(document: &Document, text: &str, found: &mut Vec<(Span, String)>) {
    let suspicious = |c: char| {
        c == '\t'
            || (c.is_control() && !matches!(c, '\n' | '\r' | '\u{85}'))
            || matches!(c, '\u{fffe}' | '\u{ffff}')
    };
    if !text.contains(suspicious) {
        return;
    }
    let mut quiet: Vec<Span> = document.comments.iter().map(|c| c.span).collect();
    quiet.extend(document.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Scalar { style: Style::Quoted | Style::Block, .. } => Some(node.span),
        _ => None,
    }));
    quiet.sort_unstable();
    let mut tab = false;
    for (at, c) in text.match_indices(suspicious) {
        let span = Span::new(at, at + c.len());
        if c == "\t" {
            // One report a file: a file with one tab usually has hundreds.
            let inside = quiet.partition_point(|q| q.start <= span.start);
            if tab || inside.checked_sub(1).is_some_and(|i| span.start < quiet[i].end) {
                continue;
            }
            tab = true;
            found.push((span, "PyYAML does not accept a tab between keys and values; use spaces".into()));
        } else {
            let code = c.chars().next().map_or(0, u32::from);
            found.push((span, format!("PyYAML refuses the unprintable character U+{code:04X}")));
            if found.len() >= MOST {
                return;
            }
        }
    }
}
