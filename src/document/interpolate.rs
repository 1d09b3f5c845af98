//! OmegaConf's interpolations: `${a.b}`, `${.sibling}`, `${oc.select:key,default}` and the
//! arithmetic that configs use. What cannot be resolved stays [`Scalar::Interpolated`].

use std::cell::Cell;

use super::{Dialect, Document, NodeId, NodeKind, Scalar, Style, Value, pyyaml};

/// Longest chain of interpolations that refer to each other; also what ends a cycle.
const DEPTH: usize = 16;
/// Most references and resolvers behind one value. Real files have a dozen; without a bound,
/// forty lines of `a: ${b}${b}` double their work with each line.
const STEPS: u32 = 256;
/// Longest text that interpolations may grow to.
const TEXT: usize = 4096;

/// Resolves the scalar at `node`, whose text is `text`.
pub(super) fn resolve(document: &Document, node: NodeId, text: &str) -> Scalar {
    document.resolved(node, || {
        let steps = &Cell::new(STEPS);
        let resolved = Interpolation { document, node, steps }.expand(text, 0);
        resolved.unwrap_or_else(|| Scalar::Interpolated(text.to_owned()))
    })
}

/// The node that a whole-value interpolation finally refers to, so that a diagnostic can point
/// at where the value is written.
pub(super) fn target(document: &Document, node: NodeId, text: &str) -> Option<NodeId> {
    let inner = whole(text)?;
    (!inner.contains([':', '$']))
        .then(|| Interpolation { document, node, steps: &Cell::new(STEPS) }.node_at(inner))
        .flatten()
}

/// The inside of `${…}` when the text is exactly one interpolation.
fn whole(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("${")?;
    (closing(inner)? + 1 == inner.len()).then(|| &inner[..inner.len() - 1])
}

/// Where the brace that closes an interpolation stands, nested ones skipped.
fn closing(inner: &str) -> Option<usize> {
    let mut open = 1;
    let mut chars = inner.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '$' if chars.peek().is_some_and(|(_, next)| *next == '{') => {
                chars.next();
                open += 1;
            }
            '}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

struct Interpolation<'d> {
    document: &'d Document,
    node: NodeId,
    /// What is left of [`STEPS`].
    steps: &'d Cell<u32>,
}

impl Interpolation<'_> {
    fn expand(&self, text: &str, depth: usize) -> Option<Scalar> {
        if depth > DEPTH || text == "???" {
            return None;
        }
        self.steps.set(self.steps.get().checked_sub(1)?);
        if let Some(inner) = whole(text) {
            return self.evaluate(inner, depth);
        }
        let mut out = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            let inner = &rest[start + 2..];
            let end = closing(inner)?;
            out.push_str(&as_text(&self.evaluate(&inner[..end], depth)?)?);
            rest = &inner[end + 1..];
            if out.len() > TEXT {
                return None;
            }
        }
        out.push_str(rest);
        Some(Scalar::Str(out))
    }

    fn evaluate(&self, inner: &str, depth: usize) -> Option<Scalar> {
        match inner.split_once(':') {
            Some((name, arguments)) if !name.contains("${") => self.call(name.trim(), arguments, depth),
            _ => self.reference(inner, depth),
        }
    }

    /// The value another key has.
    fn reference(&self, path: &str, depth: usize) -> Option<Scalar> {
        let path = match self.expand(path, depth + 1)? {
            Scalar::Str(path) => path,
            _ => return None,
        };
        let id = self.node_at(&path)?;
        match &self.document.node(id).kind {
            NodeKind::Scalar { text, .. } if text.contains("${") || &**text == "???" => {
                Interpolation { document: self.document, node: id, steps: self.steps }.expand(text, depth + 1)
            }
            NodeKind::Scalar { text, style } => Some(pyyaml::resolve(text, *style, None, Dialect::OmegaConf)),
            _ => None,
        }
    }

    /// Leading dots climb from the node's own mapping; otherwise the path starts at the root. A
    /// file may carry another whole file (MosaicML's `parameters:`), which is then what is searched.
    fn node_at(&self, path: &str) -> Option<NodeId> {
        let name = path.trim_start_matches('.');
        let dots = path.len() - name.len();
        if dots > 0 {
            let mut start = self.node;
            for _ in 0..dots {
                start = self.document.parent(start)?;
            }
            return self.below(start, name);
        }
        let root = self.document.root(Dialect::OmegaConf)?;
        self.below(root.id(), name).or_else(|| {
            let carried = root.get("parameters").filter(Value::is_mapping)?;
            self.below(carried.id(), name)
        })
    }

    /// The node at a dotted path below another.
    fn below(&self, start: NodeId, name: &str) -> Option<NodeId> {
        let mut value = Value::new(self.document, start, Dialect::OmegaConf);
        for part in name.replace('[', ".").replace(']', "").split('.').filter(|part| !part.is_empty()) {
            value = match part.parse::<usize>() {
                Ok(index) if value.is_sequence() => value.items().nth(index)?,
                _ => value.get(part)?,
            };
        }
        Some(value.id())
    }

    fn call(&self, name: &str, arguments: &str, depth: usize) -> Option<Scalar> {
        let arguments = split(arguments);
        let numbers = || -> Option<Vec<f64>> {
            arguments.iter().map(|a| self.value(a, depth).and_then(|v| as_number(&v))).collect()
        };
        let pair = || numbers().filter(|n| n.len() == 2).map(|n| (n[0], n[1]));
        match name {
            "oc.env" => self.value(arguments.get(1)?, depth),
            "oc.select" => {
                let found = self.reference(arguments.first()?, depth + 1);
                found.or_else(|| self.value(arguments.get(1)?, depth))
            }
            "mul" | "multiply" => numbers().map(|n| number(n.iter().product())),
            "sum" | "add" => numbers().map(|n| number(n.iter().sum())),
            "div" | "divide" => pair().filter(|(_, b)| *b != 0.0).map(|(a, b)| number(a / b)),
            "divide_ceil" | "ceil_divide" => {
                pair().filter(|(_, b)| *b != 0.0).map(|(a, b)| number((a / b).ceil()))
            }
            "divide_floor" | "floor_divide" => {
                pair().filter(|(_, b)| *b != 0.0).map(|(a, b)| number((a / b).floor()))
            }
            "eval" => {
                let text =
                    as_text(&self.expand(arguments.join(",").trim().trim_matches(['\'', '"']), depth + 1)?)?;
                Arithmetic { text: text.as_bytes(), at: 0 }.whole().map(number)
            }
            _ => None,
        }
    }

    /// An argument: an interpolation, or a plain scalar.
    fn value(&self, text: &str, depth: usize) -> Option<Scalar> {
        let text = text.trim();
        if text.contains("${") {
            return self.expand(text, depth + 1);
        }
        let unquoted = text.trim_matches(['\'', '"']);
        let style = if unquoted.len() == text.len() { Style::Plain } else { Style::Quoted };
        Some(pyyaml::resolve(unquoted, style, None, Dialect::OmegaConf))
    }
}

/// Splits arguments at commas outside nested interpolations and quotes.
fn split(arguments: &str) -> Vec<&str> {
    let (mut parts, mut start, mut open, mut quote) = (Vec::new(), 0, 0_u32, None);
    for (at, c) in arguments.char_indices() {
        match (c, quote) {
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(q)) if c == q => quote = None,
            ('{' | '(' | '[', None) => open += 1,
            ('}' | ')' | ']', None) => open = open.saturating_sub(1),
            (',', None) if open == 0 => {
                parts.push(&arguments[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&arguments[start..]);
    parts
}

fn as_number(scalar: &Scalar) -> Option<f64> {
    match scalar {
        Scalar::Int(n) => Some(*n as f64),
        Scalar::Float(x) => Some(*x),
        _ => None,
    }
}

fn number(x: f64) -> Scalar {
    if x.fract() == 0.0 && x.abs() < 9e15 { Scalar::Int(x as i64) } else { Scalar::Float(x) }
}

fn as_text(scalar: &Scalar) -> Option<String> {
    match scalar {
        Scalar::Str(text) | Scalar::DateTime(text) => Some(text.clone()),
        Scalar::Int(n) => Some(n.to_string()),
        Scalar::Float(x) => Some(x.to_string()),
        Scalar::Bool(true) => Some("True".into()),
        Scalar::Bool(false) => Some("False".into()),
        Scalar::Null => Some("None".into()),
        Scalar::Interpolated(_) => None,
    }
}

/// `+ - * / // ( )` over numbers, as `${eval:'…'}` resolvers compute them.
struct Arithmetic<'t> {
    text: &'t [u8],
    at: usize,
}

impl Arithmetic<'_> {
    fn whole(mut self) -> Option<f64> {
        let value = self.sum(0)?;
        self.space();
        (self.at == self.text.len() && value.is_finite()).then_some(value)
    }

    fn space(&mut self) {
        while self.text.get(self.at) == Some(&b' ') {
            self.at += 1;
        }
    }

    fn eat(&mut self, token: &[u8]) -> bool {
        self.space();
        let found = self.text[self.at..].starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn sum(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.product(depth)?;
        loop {
            if self.eat(b"+") {
                value += self.product(depth)?;
            } else if self.eat(b"-") {
                value -= self.product(depth)?;
            } else {
                return Some(value);
            }
        }
    }

    fn product(&mut self, depth: usize) -> Option<f64> {
        let mut value = self.atom(depth)?;
        loop {
            if self.eat(b"//") {
                value = (value / self.atom(depth)?).floor();
            } else if self.eat(b"*") {
                value *= self.atom(depth)?;
            } else if self.eat(b"/") {
                value /= self.atom(depth)?;
            } else {
                return Some(value);
            }
        }
    }

    fn atom(&mut self, depth: usize) -> Option<f64> {
        if depth > DEPTH {
            return None;
        }
        if self.eat(b"(") {
            let value = self.sum(depth + 1)?;
            return self.eat(b")").then_some(value);
        }
        if self.eat(b"-") {
            return self.atom(depth + 1).map(|x| -x);
        }
        self.space();
        let start = self.at;
        while self.text.get(self.at).is_some_and(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E')) {
            self.at += 1;
        }
        std::str::from_utf8(&self.text[start..self.at]).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::yaml;

    fn scalar(text: &str, path: &str) -> Option<Scalar> {
        yaml::parse(text).root(Dialect::OmegaConf)?.path(path)?.scalar()
    }

    #[test]
    fn references_absolute_relative_and_nested() {
        let text = "variables:\n  len: 2048\nmax: ${variables.len}\nname: run-${max}\nd:\n  a: 1\n  b: ${.a}\n  c: ${..max}\nk: len\nn: ${variables.${k}}\n";
        assert_eq!(scalar(text, "max"), Some(Scalar::Int(2048)));
        assert_eq!(scalar(text, "name"), Some(Scalar::Str("run-2048".into())));
        assert_eq!(scalar(text, "d.b"), Some(Scalar::Int(1)));
        assert_eq!(scalar(text, "d.c"), Some(Scalar::Int(2048)));
        assert_eq!(scalar(text, "n"), Some(Scalar::Int(2048)));
    }

    #[test]
    fn resolvers_compute_and_the_unknown_stays_open() {
        let text = "a: 8\nm: ${mul:${a}, 2}\nc: ${divide_ceil:9,2}\ne: ${eval:'(${a} + 1) // 2'}\nd: ${oc.select:no.such,7}\nv: ${oc.env:HOME}\nw: ${oc.env:HOME,4}\nx: ${x}\ny: ???\nz: ${secret:1}\n";
        assert_eq!(scalar(text, "m"), Some(Scalar::Int(16)));
        assert_eq!(scalar(text, "c"), Some(Scalar::Int(5)));
        assert_eq!(scalar(text, "e"), Some(Scalar::Int(4)));
        assert_eq!(scalar(text, "d"), Some(Scalar::Int(7)));
        assert_eq!(scalar(text, "w"), Some(Scalar::Int(4)));
        for open in ["v", "x", "y", "z"] {
            assert!(matches!(scalar(text, open), Some(Scalar::Interpolated(_))), "{open}");
        }
    }

    #[test]
    fn values_that_double_their_work_stay_open() {
        let doubling: String =
            (0..40).map(|n| format!("k{n}: ${{k{}}}${{k{}}}\n", n + 1, n + 1)).collect::<String>()
                + "k40: x\n";
        assert!(matches!(scalar(&doubling, "k0"), Some(Scalar::Interpolated(_))));
        assert_eq!(scalar(&doubling, "k37"), Some(Scalar::Str("xxxxxxxx".into())));
        let chain: String =
            (0..9000).map(|n| format!("w{n}: ${{.w{}}}\n", n + 1)).collect::<String>() + "w9000: 1\n";
        let document = yaml::parse(&chain);
        let root = document.root(Dialect::OmegaConf).expect("there");
        assert!(root.get("w0").expect("there").is_open());
        assert!(!root.get("w8990").expect("there").is_open());
    }
}
