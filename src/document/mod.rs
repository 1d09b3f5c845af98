//! Text to a spanned tree. Scalars keep their raw text: what a scalar *is* depends on who loads
//! the file, so typing is a function of the [`Dialect`], not of the parser.
//!
//! One arena tree serves three views: [`Value`] (typed getters that return spans),
//! [`Value::to_json`] (for schema validation), and [`mod@pointer`] (JSON pointer to span).
//! Aliases and merge keys are expanded only in the views, under a budget.

mod index;
mod interpolate;
pub mod json;
pub mod pointer;
pub mod pyyaml;
mod refusals;
pub mod set;
pub mod toml;
mod value;
pub mod yaml;

use crate::source::{Source, Span};

pub use value::{Field, Value};

/// Limits on one file. `../shared` measurements: the largest real training config is 64 KiB.
pub mod limits {
    /// Largest file read, in bytes.
    pub const FILE_BYTES: usize = 1 << 20;
    /// Deepest nesting of collections, alias hops included.
    pub const DEPTH: usize = 64;
    /// Most nodes in a tree.
    pub const NODES: usize = 50_000;
    /// Most nodes a view may expand aliases and merges into.
    pub const EXPANDED_NODES: usize = 100_000;
}

/// The syntax a file is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Syntax {
    /// YAML.
    Yaml,
    /// TOML.
    Toml,
    /// JSON, read leniently: comments and trailing commas are kept as [`Problem`]s.
    Json,
}

impl Syntax {
    /// By file name ending; `None` for files we never read.
    pub fn of_path(path: &str) -> Option<Syntax> {
        let name = path.rsplit('/').next().unwrap_or(path);
        let ending = name.rsplit_once('.')?.1.to_ascii_lowercase();
        match ending.as_str() {
            "yaml" | "yml" => Some(Syntax::Yaml),
            "toml" => Some(Syntax::Toml),
            "json" | "hjson" | "jsonc" => Some(Syntax::Json),
            _ => None,
        }
    }
}

/// Who will load the file, and so what its scalars mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PyYAML's SafeLoader: YAML 1.1 with its own float rule (`1e-5` is a string).
    PyYaml,
    /// OmegaConf: PyYAML plus exponent floats, no dates, interpolations, duplicates refused.
    OmegaConf,
    /// jsonargparse (LitGPT): PyYAML plus exponent floats, no dates.
    JsonArgparse,
    /// YAML 1.2 core schema (ruamel, our own format).
    Core12,
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

impl Dialect {
    /// PyYAML and the loaders built on it.
    pub fn is_yaml_1_1(self) -> bool {
        matches!(self, Dialect::PyYaml | Dialect::OmegaConf | Dialect::JsonArgparse)
    }
}

/// What a scalar is to its loader.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// `null`, `~`, an empty value.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer that fits 64 bits.
    Int(i64),
    /// A float, or an integer too large for 64 bits.
    Float(f64),
    /// Text.
    Str(String),
    /// A date or time, as written.
    DateTime(String),
    /// An interpolation that could not be resolved (`${oc.env:X}`), as written.
    Interpolated(String),
}

/// How a scalar was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In single or double quotes (also every TOML and JSON string).
    Quoted,
    /// A YAML block scalar, `|` or `>`.
    Block,
}

/// Index of a node in its [`Document`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u32);

/// A mapping's key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key's node; a scalar in every file a framework can read.
    pub key: NodeId,
    /// The value's node.
    pub value: NodeId,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeKind {
    /// Raw text, unescaped but not typed.
    Scalar {
        /// The text after unquoting.
        text: Box<str>,
        /// How it was written.
        style: Style,
    },
    /// A list.
    Sequence(Vec<NodeId>),
    /// Keys and values in file order, duplicates kept.
    Mapping(Vec<Entry>),
    /// A YAML alias, pointing at the anchored node.
    Alias(NodeId),
}

/// One node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// The bytes it came from. A block collection covers its children; an absent value is empty
    /// and stands where the value would be written.
    pub span: Span,
    /// An explicit tag, as written.
    pub tag: Option<Box<str>>,
}

/// A comment, without its marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comment {
    /// The whole comment, marker included.
    pub span: Span,
    /// The text after the marker, trimmed.
    pub text: String,
}

/// What is wrong with a file's syntax, or with what its loader would make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Which kind.
    pub kind: ProblemKind,
    /// Where.
    pub span: Span,
    /// A second place, such as the first of two duplicate keys.
    pub related: Option<Span>,
    /// In words.
    pub message: String,
}

/// The kinds of [`Problem`], each turned into findings by one rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The text does not parse.
    Syntax,
    /// A key stands twice in one mapping; the last one wins.
    DuplicateKey,
    /// More than one YAML document in the file.
    MultipleDocuments,
    /// Not UTF-8 text.
    NotUtf8,
    /// Larger, deeper or wider than [`limits`].
    Limit,
    /// A comment in JSON.
    JsonComment,
    /// A trailing comma in JSON.
    JsonTrailingComma,
    /// PyYAML refuses what the parser accepts (tabs, unknown tags, `=`).
    PyYamlRefuses,
}

/// The spanned tree of one file.
#[derive(Clone, Debug)]
pub struct Document {
    /// The syntax it was read as.
    pub syntax: Syntax,
    nodes: Vec<Node>,
    root: Option<NodeId>,
    /// In file order. Empty for JSON.
    pub comments: Vec<Comment>,
    /// In file order.
    pub problems: Vec<Problem>,
    index: index::Index,
}

impl Document {
    /// Reads a file's text. Never fails: what is wrong is in [`Document::problems`], and a file
    /// that does not parse has no root.
    pub fn parse(source: &Source, syntax: Syntax) -> Document {
        if source.text.len() > limits::FILE_BYTES {
            let mut document = Document::empty(syntax);
            document.problems.push(Problem {
                kind: ProblemKind::Limit,
                span: Span::new(0, 0),
                related: None,
                message: format!(
                    "the file has {} bytes; at most {} are read",
                    source.text.len(),
                    limits::FILE_BYTES
                ),
            });
            return document;
        }
        match syntax {
            Syntax::Yaml => yaml::parse(&source.text),
            Syntax::Toml => toml::parse(&source.text),
            Syntax::Json => json::parse(&source.text),
        }
    }

    /// A document without content.
    pub fn empty(syntax: Syntax) -> Document {
        Document {
            syntax,
            nodes: Vec::new(),
            root: None,
            comments: Vec::new(),
            problems: Vec::new(),
            index: index::Index::default(),
        }
    }

    /// The document of a file that is not UTF-8 text, with the offset of the first bad byte.
    pub fn not_utf8(syntax: Syntax, bytes: &[u8], offset: usize) -> Document {
        let mut document = Document::empty(syntax);
        let message = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            "UTF-16 text, as Windows PowerShell's `>` writes it, not UTF-8".to_owned()
        } else {
            format!("not UTF-8 text: the byte at offset {offset} is not valid")
        };
        document.problems.push(Problem {
            kind: ProblemKind::NotUtf8,
            span: Span::new(offset, offset),
            related: None,
            message,
        });
        document
    }

    /// Adds a node; readers build the tree with this.
    pub(crate) fn push(&mut self, node: Node) -> NodeId {
        self.nodes.push(node);
        NodeId(self.nodes.len() as u32 - 1)
    }

    /// Replaces a node that was pushed before its children were known.
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.0 as usize]
    }

    /// Names the root node.
    pub(crate) fn set_root(&mut self, id: NodeId) {
        self.root = Some(id);
    }

    /// A node by its index.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Every key with a scalar value, as written, wherever it stands. One pass over the nodes:
    /// aliases and merges are not followed, so a file that expands without end costs nothing.
    pub fn scalar_entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let text = |id: NodeId| match &self.node(id).kind {
            NodeKind::Scalar { text, .. } => Some(&**text),
            _ => None,
        };
        self.nodes
            .iter()
            .filter_map(|node| match &node.kind {
                NodeKind::Mapping(entries) => Some(entries),
                _ => None,
            })
            .flatten()
            .filter_map(move |entry| Some((text(entry.key)?, text(entry.value)?)))
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True for a file without any content.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The tree as `dialect` reads it; `None` when the file does not parse or is empty.
    pub fn root(&self, dialect: Dialect) -> Option<Value<'_>> {
        self.root.map(|id| Value::new(self, id, dialect))
    }

    /// True when the file could not be read into a tree at all.
    pub fn is_broken(&self) -> bool {
        self.problems
            .iter()
            .any(|p| matches!(p.kind, ProblemKind::Syntax | ProblemKind::NotUtf8 | ProblemKind::Limit))
    }
}

/// True for text that somebody fills in before it means anything: `${VAR}`, `{{ name }}`, `???`,
/// `<model>`, `$VAR`.
pub fn is_placeholder_text(text: &str) -> bool {
    let text = text.trim();
    text.contains("${")
        || text.contains("{{")
        || text == "???"
        || (text.starts_with('<') && text.ends_with('>') && text.len() > 2)
        || (text.starts_with('$') && text.len() > 1)
}
