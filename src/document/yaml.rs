//! YAML text to a tree. The one file that knows the parser crate.
//!
//! The parser gives events with byte spans; this builds the arena from them with an explicit
//! stack, so that depth costs memory and never the call stack.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Options, Parser, ScalarStyle, Span as EventSpan, Tag};

use super::{
    Comment, Dialect, Document, Entry, Node, NodeId, NodeKind, Problem, ProblemKind, Scalar, Style, Syntax,
    limits, pyyaml, refusals,
};
use crate::source::Span;

/// Reads YAML text. Of several documents the first is the tree.
pub fn parse(text: &str) -> Document {
    let mut document = build(text, Syntax::Yaml);
    if !document.is_broken() {
        refusals::report(&mut document, text);
    }
    document
}

/// Reads text whose syntax YAML contains (JSON).
pub(super) fn build(text: &str, syntax: Syntax) -> Document {
    let mut builder =
        Builder { text, document: Document::empty(syntax), open: Vec::new(), anchors: HashMap::new() };
    builder.run();
    builder.document
}

fn options() -> Options {
    let mut options = Options::default();
    options.bom_inside_document_as_content = true;
    options.block_scalar_eof_without_line_feed = true;
    options.emit_unresolved_aliases = true;
    // The default of 96 refuses valid files with a long comment after a key.
    options.max_buffered_comment_events = usize::MAX;
    options.flow_nesting_limit = 200;
    options.block_nesting_limit = 200;
    options
}

/// A collection that is not closed yet.
struct Open {
    id: NodeId,
    start: usize,
    flow: bool,
    items: Vec<NodeId>,
    mapping: bool,
    anchor: usize,
}

struct Builder<'t> {
    text: &'t str,
    document: Document,
    open: Vec<Open>,
    anchors: HashMap<usize, NodeId>,
}

impl Builder<'_> {
    fn run(&mut self) {
        let mut parser = Parser::new_from_str_with_options(self.text, options());
        let mut documents = 0;
        while let Some(next) = parser.next_event() {
            let (event, span) = match next {
                Ok(pair) => pair,
                Err(error) => {
                    let at = error.marker().byte_offset().unwrap_or(0).min(self.text.len());
                    self.problem(ProblemKind::Syntax, Span::new(at, at), error.info());
                    return;
                }
            };
            if self.document.len() > limits::NODES {
                let at = self.offset(&span).0;
                let message =
                    format!("more than {} values; a training config has a few hundred", limits::NODES);
                self.problem(ProblemKind::Limit, Span::new(at, at), message);
                return;
            }
            if self.open.len() > limits::DEPTH {
                let at = self.offset(&span).0;
                let message = format!("nested deeper than {} levels", limits::DEPTH);
                self.problem(ProblemKind::Limit, Span::new(at, at), message);
                return;
            }
            if documents > 1 && !matches!(event, Event::Comment(..)) {
                continue;
            }
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents == 2 {
                        let (start, end) = self.offset(&span);
                        let message =
                            "a second document starts here; loaders that expect one refuse the file".into();
                        self.problem(ProblemKind::MultipleDocuments, Span::new(start, end), message);
                    }
                }
                Event::Comment(text, _) => {
                    let (start, end) = self.offset(&span);
                    self.document
                        .comments
                        .push(Comment { span: Span::new(start, end), text: text.trim().to_owned() });
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.scalar(&text, style, anchor, tag.as_deref(), &span);
                }
                Event::SequenceStart(style, anchor, tag) => {
                    self.start(
                        false,
                        style == granit_parser::StructureStyle::Flow,
                        anchor,
                        tag.as_deref(),
                        &span,
                    );
                }
                Event::MappingStart(style, anchor, tag) => {
                    self.start(
                        true,
                        style == granit_parser::StructureStyle::Flow,
                        anchor,
                        tag.as_deref(),
                        &span,
                    );
                }
                Event::SequenceEnd | Event::MappingEnd => self.end(&span),
                Event::Alias(target) => {
                    let (start, end) = self.offset(&span);
                    if let Some(node) = self.anchors.get(&target).copied() {
                        self.add(NodeKind::Alias(node), Span::new(start, end), None);
                    } else {
                        let message = "an alias inside the collection it names".into();
                        self.problem(ProblemKind::Syntax, Span::new(start, end), message);
                        self.null(Span::new(start, end));
                    }
                }
                Event::UnresolvedAlias(name) => {
                    let (start, end) = self.offset(&span);
                    self.problem(
                        ProblemKind::Syntax,
                        Span::new(start, end),
                        format!("no anchor `&{name}` before this alias"),
                    );
                    self.null(Span::new(start, end));
                }
                _ => {}
            }
        }
    }

    fn offset(&self, span: &EventSpan) -> (usize, usize) {
        let start = span.start.byte_offset().unwrap_or(0).min(self.text.len());
        let end = span.end.byte_offset().unwrap_or(start).min(self.text.len());
        (start, end.max(start))
    }

    fn problem(&mut self, kind: ProblemKind, span: Span, message: String) {
        self.document.problems.push(Problem { kind, span, related: None, message });
    }

    fn null(&mut self, span: Span) {
        self.add(NodeKind::Scalar { text: "~".into(), style: Style::Plain }, span, None);
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, anchor: usize, tag: Option<&Tag>, span: &EventSpan) {
        let (mut start, mut end) = self.offset(span);
        // The parser puts an absent value before the colon; people write it after.
        if start == end && self.text.get(start..).is_some_and(|rest| rest.starts_with(':')) {
            start += 1;
            end = start;
        }
        let style = match style {
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Style::Quoted,
            ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
        };
        let id = self.add(NodeKind::Scalar { text: text.into(), style }, Span::new(start, end), tag);
        if anchor > 0 {
            self.anchors.insert(anchor, id);
        }
    }

    fn start(&mut self, mapping: bool, flow: bool, anchor: usize, tag: Option<&Tag>, span: &EventSpan) {
        let (start, end) = self.offset(span);
        let kind = if mapping { NodeKind::Mapping(Vec::new()) } else { NodeKind::Sequence(Vec::new()) };
        let id = self.add(kind, Span::new(start, end), tag);
        self.open.push(Open { id, start, flow, items: Vec::new(), mapping, anchor });
    }

    fn end(&mut self, span: &EventSpan) {
        let Some(open) = self.open.pop() else { return };
        let (_, close) = self.offset(span);
        // A block collection ends at the next token; its own extent is that of its children.
        let end = if open.flow {
            close
        } else {
            open.items.last().map_or(open.start, |last| self.document.node(*last).span.end as usize)
        };
        let start = match open.items.first() {
            Some(first) if !open.flow => self.document.node(*first).span.start as usize,
            _ => open.start,
        };
        let kind = if open.mapping {
            let entries: Vec<Entry> =
                open.items.chunks_exact(2).map(|pair| Entry { key: pair[0], value: pair[1] }).collect();
            self.duplicates(&entries);
            NodeKind::Mapping(entries)
        } else {
            NodeKind::Sequence(open.items)
        };
        let node = self.document.node_mut(open.id);
        node.kind = kind;
        node.span = Span::new(start.min(end), end);
        if open.anchor > 0 {
            self.anchors.insert(open.anchor, open.id);
        }
    }

    /// Keys are one where PyYAML makes one value of them: `"a"` and `a`, `1_000` and `1000`, `yes`
    /// and `true`.
    fn duplicates(&mut self, entries: &[Entry]) {
        let mut seen: HashMap<KeyValue<'_>, Span> = HashMap::new();
        let mut reported = HashSet::new();
        let mut found = Vec::new();
        for entry in entries {
            let key = self.document.node(entry.key);
            if let NodeKind::Scalar { text, style } = &key.kind {
                if &**text == "<<" && *style == Style::Plain {
                    continue;
                }
                if let Some(first) = seen.insert(KeyValue::of(text, *style, key.tag.as_deref()), key.span)
                    && reported.insert(key.span)
                {
                    found.push(Problem {
                        kind: ProblemKind::DuplicateKey,
                        span: key.span,
                        related: Some(first),
                        message: format!("`{text}` stands twice in this mapping"),
                    });
                }
            }
        }
        self.document.problems.append(&mut found);
    }

    fn add(&mut self, kind: NodeKind, span: Span, tag: Option<&Tag>) -> NodeId {
        let tag = tag.map(|tag| tag.original().into());
        let id = self.document.push(Node { kind, span, tag });
        match self.open.last_mut() {
            Some(open) => open.items.push(id),
            None => self.document.set_root(id),
        }
        id
    }
}

/// What a key is to Python: a dictionary holds `1`, `1.0` and `True` as one.
#[derive(PartialEq, Eq, Hash)]
enum KeyValue<'t> {
    Null,
    Whole(i64),
    /// The bits of a float that is no whole number.
    Float(u64),
    Text(&'t str),
    DateTime(&'t str),
}

impl KeyValue<'_> {
    fn of<'t>(text: &'t str, style: Style, tag: Option<&str>) -> KeyValue<'t> {
        // No word of more than five letters is anything but text.
        if text.len() > 5 && text.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return KeyValue::Text(text);
        }
        match pyyaml::resolve(text, style, tag, Dialect::PyYaml) {
            Scalar::Null => KeyValue::Null,
            Scalar::Bool(on) => KeyValue::Whole(i64::from(on)),
            Scalar::Int(n) => KeyValue::Whole(n),
            Scalar::Float(x) if x.fract() == 0.0 && x.abs() < 9e15 => KeyValue::Whole(x as i64),
            Scalar::Float(x) => KeyValue::Float(x.to_bits()),
            Scalar::DateTime(_) => KeyValue::DateTime(text),
            Scalar::Str(_) | Scalar::Interpolated(_) => KeyValue::Text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_have_their_bytes() {
        let text = "a: 1\nb:\n  c: [x, 'y z']\n  d:\n";
        let document = parse(text);
        let root = document.root(Dialect::PyYaml).expect("parses");
        let c = root.path("b.c").expect("there");
        assert_eq!(&text[c.span().range()], "[x, 'y z']");
        assert_eq!(&text[c.key_span().range()], "c");
        assert_eq!(c.items().map(|i| &text[i.span().range()]).collect::<Vec<_>>(), ["x", "'y z'"]);
        assert!(root.path("b.d").is_some_and(|d| d.is_null() && d.span().is_empty()));
    }

    #[test]
    fn a_duplicate_key_is_kept_and_the_last_wins() {
        let document = parse("a: 1\na: 2\n");
        assert_eq!(document.problems.len(), 1);
        assert_eq!(document.root(Dialect::PyYaml).and_then(|r| r.get("a")?.as_int()), Some(2));
    }

    #[test]
    fn keys_are_compared_as_python_compares_them() {
        let twice = |text: &str| {
            let document = parse(text);
            document.problems.iter().filter(|p| p.kind == ProblemKind::DuplicateKey).count()
        };
        for same in [
            "a: 1\n\"a\": 2\n",
            "1_000: 1\n1000: 2\n",
            "yes: 1\ntrue: 2\n",
            "1: 1\non: 2\n",
            "~: 1\nnull: 2\n",
        ] {
            assert_eq!(twice(same), 1, "{same}");
        }
        for other in ["1: 1\n\"1\": 2\n", "yes: 1\n\"yes\": 2\n", "010: 1\n10: 2\n", "a: 1\nA: 2\n"] {
            assert_eq!(twice(other), 0, "{other}");
        }
    }
}
