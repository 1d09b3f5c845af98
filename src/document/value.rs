//! The typed view of a tree: a cursor that knows its dialect.

use super::{Dialect, Document, Entry, Node, NodeId, NodeKind, Scalar, Style, interpolate, limits, pyyaml};
use crate::source::Span;

/// A node as its loader sees it. Copyable; aliases are followed.
#[derive(Clone, Copy, Debug)]
pub struct Value<'d> {
    document: &'d Document,
    id: NodeId,
    dialect: Dialect,
    key: Option<NodeId>,
    hops: u8,
}

/// Is this text a template's placeholder?
fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    (text.contains("${") && text.contains('}'))
        || (text.contains("{{") && text.contains("}}"))
        || (text.starts_with('<') && text.ends_with('>') && text.len() > 2)
}

/// One entry of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Field<'d> {
    /// The key's text.
    pub key: &'d str,
    /// Where the key stands.
    pub key_span: Span,
    /// The value.
    pub value: Value<'d>,
}

impl<'d> Value<'d> {
    pub(super) fn new(document: &'d Document, id: NodeId, dialect: Dialect) -> Value<'d> {
        Value { document, id, dialect, key: None, hops: 0 }.resolved()
    }

    fn at(self, id: NodeId, key: Option<NodeId>) -> Value<'d> {
        Value { id, key, ..self }.resolved()
    }

    /// Follows aliases; a chain that is too long ends at an alias node, which has no content.
    fn resolved(mut self) -> Value<'d> {
        while let NodeKind::Alias(target) = self.node().kind {
            if usize::from(self.hops) >= limits::DEPTH {
                break;
            }
            self.hops += 1;
            self.id = target;
        }
        self
    }

    fn node(&self) -> &'d Node {
        self.document.node(self.id)
    }

    /// The tree this value is in.
    pub fn document(&self) -> &'d Document {
        self.document
    }

    /// The node behind the value.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Who reads it.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// The value's bytes.
    pub fn span(&self) -> Span {
        self.node().span
    }

    /// The bytes of the key this value was reached by; its own span for list items and the root.
    pub fn key_span(&self) -> Span {
        self.key.map_or_else(|| self.span(), |key| self.document.node(key).span)
    }

    /// An explicit tag.
    pub fn tag(&self) -> Option<&'d str> {
        self.node().tag.as_deref()
    }

    /// The scalar's text after unquoting.
    pub fn text(&self) -> Option<&'d str> {
        match &self.node().kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    /// Where the value is really written: what a whole-value interpolation refers to, else the
    /// value's own bytes.
    pub fn origin_span(&self) -> Span {
        let mut id = self.id;
        for _ in 0..limits::DEPTH {
            let next = match &self.document.node(id).kind {
                NodeKind::Scalar { text, .. } if self.dialect == Dialect::OmegaConf => {
                    interpolate::target(self.document, id, text)
                }
                _ => None,
            };
            match next {
                Some(next) => id = next,
                None => break,
            }
        }
        self.document.node(id).span
    }

    /// True when the value is not known from the file: an interpolation that could not be
    /// resolved, or a template's placeholder (`${NAME}`, `{{ name }}`, `<your-model>`).
    pub fn is_open(&self) -> bool {
        match self.scalar() {
            Some(Scalar::Interpolated(_)) => true,
            Some(Scalar::Str(text)) => is_placeholder(&text),
            _ => false,
        }
    }

    /// How the scalar was written.
    pub fn style(&self) -> Option<Style> {
        match self.node().kind {
            NodeKind::Scalar { style, .. } => Some(style),
            _ => None,
        }
    }

    /// What the scalar is to its loader; `None` for collections.
    pub fn scalar(&self) -> Option<Scalar> {
        match &self.node().kind {
            NodeKind::Scalar { text, .. }
                if self.dialect == Dialect::OmegaConf && (text.contains("${") || &**text == "???") =>
            {
                Some(interpolate::resolve(self.document, self.id, text))
            }
            NodeKind::Scalar { text, style } => Some(pyyaml::resolve(text, *style, self.tag(), self.dialect)),
            _ => None,
        }
    }

    /// True for a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.node().kind, NodeKind::Mapping(_))
    }

    /// True for a list.
    pub fn is_sequence(&self) -> bool {
        matches!(self.node().kind, NodeKind::Sequence(_))
    }

    /// True for null, an empty value, and the words `None` and `none` that people write for it
    /// where the loader would keep them as text (callers decide whether that counts).
    pub fn is_null(&self) -> bool {
        matches!(self.scalar(), Some(Scalar::Null))
    }

    /// Text, when the loader makes text of it. A text with interpolations inside is not
    /// borrowed from the file: use [`Value::scalar`] for it.
    pub fn as_str(&self) -> Option<&'d str> {
        let text = self.text()?;
        match self.scalar()? {
            Scalar::Str(resolved) if resolved == text => Some(text),
            // A whole-value interpolation of text: borrowed from where it is written.
            Scalar::Str(resolved) => {
                let mut id = self.id;
                while let NodeKind::Scalar { text, .. } = &self.document.node(id).kind {
                    if **text == resolved {
                        return Some(text);
                    }
                    id = interpolate::target(self.document, id, text)?;
                }
                None
            }
            _ => None,
        }
    }

    /// A boolean, when the loader makes one of it.
    pub fn as_bool(&self) -> Option<bool> {
        match self.scalar() {
            Some(Scalar::Bool(b)) => Some(b),
            _ => None,
        }
    }

    /// An integer, when the loader makes one of it.
    pub fn as_int(&self) -> Option<i64> {
        match self.scalar() {
            Some(Scalar::Int(n)) => Some(n),
            _ => None,
        }
    }

    /// A number.
    pub fn as_float(&self) -> Option<f64> {
        match self.scalar() {
            Some(Scalar::Int(n)) => Some(n as f64),
            Some(Scalar::Float(x)) => Some(x),
            _ => None,
        }
    }

    /// A number, also from text that a casting loader (pydantic, argparse) would accept.
    pub fn to_float(&self) -> Option<f64> {
        self.as_float().or_else(|| self.as_str()?.trim().replace('_', "").parse().ok())
    }

    /// An integer, also from text or an integral float that a casting loader would accept.
    pub fn to_int(&self) -> Option<i64> {
        if let Some(n) = self.as_int() {
            return Some(n);
        }
        let x = self.to_float()?;
        (x.fract() == 0.0 && x.abs() < 9e15).then_some(x as i64)
    }

    /// A boolean, also from the words and numbers that pydantic and argparse accept.
    pub fn to_bool(&self) -> Option<bool> {
        if let Some(b) = self.as_bool() {
            return Some(b);
        }
        match self.scalar()? {
            Scalar::Int(0) => Some(false),
            Scalar::Int(1) => Some(true),
            Scalar::Str(text) => match text.to_ascii_lowercase().as_str() {
                "true" | "yes" | "on" | "1" | "t" | "y" => Some(true),
                "false" | "no" | "off" | "0" | "f" | "n" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    /// The list's items.
    pub fn items(&self) -> impl Iterator<Item = Value<'d>> + use<'d> {
        let this = *self;
        let ids: &'d [NodeId] = match &self.node().kind {
            NodeKind::Sequence(items) => items,
            _ => &[],
        };
        ids.iter().map(move |id| this.at(*id, None))
    }

    /// The mapping's entries in file order, duplicates and merge keys as written.
    fn raw_entries(&self) -> &'d [Entry] {
        match &self.node().kind {
            NodeKind::Mapping(entries) => entries,
            _ => &[],
        }
    }

    /// True when `entry` is a YAML merge key.
    fn is_merge(&self, entry: &Entry) -> bool {
        matches!(
            &self.document.node(entry.key).kind,
            NodeKind::Scalar { text, style: Style::Plain } if &**text == "<<"
        ) && !matches!(self.dialect, Dialect::Toml | Dialect::Json)
    }

    /// The mapping's entries: merge keys applied, the last of duplicate keys only, in order of
    /// first appearance. Collection keys are left out.
    pub fn fields(&self) -> Vec<Field<'d>> {
        let mut fields = indexmap::IndexMap::new();
        let mut budget = limits::EXPANDED_NODES;
        self.collect_fields(&mut fields, &mut budget, 0);
        fields.into_values().collect()
    }

    fn collect_fields(
        &self,
        fields: &mut indexmap::IndexMap<&'d str, Field<'d>>,
        budget: &mut usize,
        depth: usize,
    ) {
        // A merge costs too: a mapping that only merges may still be reached in many ways.
        if depth > limits::DEPTH || *budget == 0 {
            return;
        }
        *budget -= 1;
        // Merged keys first: what the mapping writes itself wins over what it merges in.
        for entry in self.raw_entries().iter().filter(|e| self.is_merge(e)) {
            let merged = self.at(entry.value, Some(entry.key));
            if merged.is_sequence() {
                // The first mapping of the list wins, so later ones go in first.
                for item in merged.items().collect::<Vec<_>>().into_iter().rev() {
                    item.collect_fields(fields, budget, depth + 1);
                }
            } else {
                merged.collect_fields(fields, budget, depth + 1);
            }
        }
        for entry in self.raw_entries().iter().filter(|e| !self.is_merge(e)) {
            if *budget == 0 {
                return;
            }
            *budget -= 1;
            let key = self.at(entry.key, None);
            if let Some(text) = key.text() {
                let value = self.at(entry.value, Some(entry.key));
                fields.insert(text, Field { key: text, key_span: self.document.node(entry.key).span, value });
            }
        }
    }

    /// A key's value: the last one written, else one merged in.
    pub fn get(&self, key: &str) -> Option<Value<'d>> {
        self.get_within(key, &mut { limits::EXPANDED_NODES }, 0)
    }

    fn get_within(&self, key: &str, budget: &mut usize, depth: usize) -> Option<Value<'d>> {
        if depth > limits::DEPTH || *budget == 0 {
            return None;
        }
        *budget -= 1;
        let written = match self.document.indexed(self.id, key) {
            Some(entry) => entry.filter(|e| !self.is_merge(e)),
            None => self
                .raw_entries()
                .iter()
                .rev()
                .find(|e| !self.is_merge(e) && self.at(e.key, None).text() == Some(key))
                .copied(),
        };
        if let Some(entry) = written {
            return Some(self.at(entry.value, Some(entry.key)));
        }
        self.raw_entries().iter().rev().filter(|e| self.is_merge(e)).find_map(|entry| {
            let merged = self.at(entry.value, Some(entry.key));
            if merged.is_sequence() {
                merged.items().find_map(|item| item.get_within(key, budget, depth + 1))
            } else {
                merged.get_within(key, budget, depth + 1)
            }
        })
    }

    /// `get` along a dotted path: `training.lora.rank`.
    pub fn path(&self, dotted: &str) -> Option<Value<'d>> {
        dotted.split('.').try_fold(*self, |value, key| value.get(key))
    }

    /// The value as JSON, for schema validation. Interpolations become their text, dates their
    /// text, NaN and infinities null (JSON has none). `None` beyond the expansion budget.
    pub fn to_json(&self) -> Option<serde_json::Value> {
        let mut budget = limits::EXPANDED_NODES;
        self.json_within(&mut budget, 0)
    }

    fn json_within(&self, budget: &mut usize, depth: usize) -> Option<serde_json::Value> {
        if depth > limits::DEPTH || *budget == 0 {
            return None;
        }
        *budget -= 1;
        if self.is_mapping() {
            let mut map = serde_json::Map::new();
            for field in self.fields() {
                map.insert(field.key.to_owned(), field.value.json_within(budget, depth + 1)?);
            }
            return Some(map.into());
        }
        if self.is_sequence() {
            return self
                .items()
                .map(|item| item.json_within(budget, depth + 1))
                .collect::<Option<Vec<_>>>()
                .map(Into::into);
        }
        Some(match self.scalar()? {
            Scalar::Null => serde_json::Value::Null,
            Scalar::Bool(b) => b.into(),
            Scalar::Int(n) => n.into(),
            // JSON has no infinities and no NaN; they stay numbers.
            Scalar::Float(x) => serde_json::Number::from_f64(if x.is_finite() { x } else { f64::MAX })
                .map_or(serde_json::Value::Null, Into::into),
            Scalar::Str(text) | Scalar::DateTime(text) | Scalar::Interpolated(text) => text.into(),
        })
    }
}
