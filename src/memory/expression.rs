//! Sums of products of named symbols: how every formula is kept, evaluated and shown.

use std::fmt::Write as _;

macro_rules! symbols {
    ($($(#[doc = $doc:literal])+ $variant:ident => $name:literal),+ $(,)?) => {
        /// A quantity that formulas name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Symbol { $($(#[doc = $doc])+ $variant),+ }

        impl Symbol {
            /// All of them.
            pub const ALL: &[Symbol] = &[$(Symbol::$variant),+];

            /// The name in formulas.
            pub fn as_str(self) -> &'static str {
                match self { $(Symbol::$variant => $name),+ }
            }

            fn parse(name: &str) -> Option<Symbol> {
                match name { $($name => Some(Symbol::$variant),)+ _ => None }
            }
        }
    };
}

symbols! {
    /// Tokens of a micro-batch, `B·S`.
    Tokens => "N",
    /// Sequences of a micro-batch.
    Batch => "B",
    /// Tokens a sequence.
    Sequence => "S",
    /// `S + 1`: attention with a sink.
    SequencePlusOne => "S1",
    /// Decoder tokens of a micro-batch, for encoder-decoders.
    TargetTokens => "M",
    /// Decoder tokens a sequence.
    Target => "L",
    /// Hidden size.
    Hidden => "d",
    /// Width of the feed-forward network.
    FeedForward => "f",
    /// Width of one expert.
    Expert => "fe",
    /// Query heads.
    Heads => "h",
    /// Key and value heads.
    KvHeads => "kv",
    /// Width of one head.
    HeadWidth => "hd",
    /// Width of all query heads, `h·hd`.
    Query => "q",
    /// Width of all key heads, `kv·hd`.
    Key => "k",
    /// `q + 2k`.
    QueryKeyValue => "qkv",
    /// Vocabulary.
    Vocabulary => "V",
    /// Routed experts.
    Experts => "E",
    /// Experts a token goes to.
    TopK => "T",
    /// Latent attention: width of all queries, `h·(nope + rope)`.
    LatentQuery => "qh",
    /// Latent attention: width of all values.
    LatentValue => "vh",
    /// Latent attention: output of the key/value decompression, `h·(nope + v)`.
    LatentKeyValue => "nv",
    /// Latent attention: rank of the key/value compression.
    KvRank => "kvr",
    /// `kvr + rope`.
    KvRankRope => "kvrr",
    /// Latent attention: rank of the query compression.
    QueryRank => "qr",
    /// Gated delta nets: width of all keys.
    DeltaKeys => "kd",
    /// Gated delta nets: width of all values.
    DeltaValues => "vd",
    /// Gated delta nets: value heads.
    DeltaHeads => "hv",
    /// Gated delta nets: width of one key head.
    DeltaKeyWidth => "kw",
    /// State spaces: inner width.
    StateInner => "mi",
    /// State spaces: groups that share B and C.
    StateGroups => "mg",
    /// State spaces: values a head keeps of each of its channels.
    StateSize => "mn",
    /// State spaces: heads.
    StateHeads => "mh",
    /// State spaces: tokens of a chunk.
    StateChunk => "mc",
    /// State spaces: parts in which the kernel sums the gradients of a group.
    StateParts => "ms",
    /// State spaces: values of the chunks' states, a token: `mi·mn / mc`.
    StatePerToken => "mt",
    /// State spaces of the first kind: rank of the step sizes.
    StateRank => "mr",
    /// Width of the embedding that every layer has (Gemma 4).
    PerLayer => "hp",
    /// Rank of the adapters.
    Rank => "r",
    /// Bytes of PyTorch's buffer for the sum of an `N × f` tensor over the tokens: a bias's gradient.
    SumFeedForward => "rf",
    /// The same of `N × d`.
    SumHidden => "rd",
    /// The same of `N × (q + 2k)`.
    SumQueryKeyValue => "rqkv",
    /// The same of the decoder's `M × f`.
    SumTargetFeedForward => "rfm",
}

/// A value for every symbol.
#[derive(Clone, Debug, PartialEq)]
pub struct Symbols([f64; Symbol::ALL.len()]);

impl Default for Symbols {
    fn default() -> Symbols {
        Symbols([0.0; Symbol::ALL.len()])
    }
}

impl Symbols {
    /// Its value; zero when the model has no such dimension.
    pub fn get(&self, symbol: Symbol) -> f64 {
        let sum = |columns, rows| reduction_buffer(self.get(columns), self.get(rows));
        match symbol {
            Symbol::SumFeedForward => sum(Symbol::FeedForward, Symbol::Tokens),
            Symbol::SumHidden => sum(Symbol::Hidden, Symbol::Tokens),
            Symbol::SumQueryKeyValue => sum(Symbol::QueryKeyValue, Symbol::Tokens),
            Symbol::SumTargetFeedForward => sum(Symbol::FeedForward, Symbol::TargetTokens),
            _ => self.0[symbol as usize],
        }
    }

    /// Sets it.
    pub fn set(&mut self, symbol: Symbol, value: u64) {
        self.0[symbol as usize] = value as f64;
    }
}

/// Blocks that an A100 runs at once when a block has 128 threads: 108 multiprocessors of 2048.
const BLOCKS_AT_ONCE: f64 = 1728.0;

/// PyTorch's buffer while it sums `rows` rows of `columns` columns in several blocks
/// (`ATen/native/cuda/Reduce.cuh`, `setReduceConfig` and `global_memory_size`): 32 by 4 threads of 4
/// columns each, one fp32 value for every column, block and thread. Eight bytes an element, until
/// the card is full.
fn reduction_buffer(columns: f64, rows: f64) -> f64 {
    let values = (rows / 4.0).ceil();
    let across = (columns / 128.0).ceil();
    if values < 16.0 || !(1.0..=BLOCKS_AT_ONCE).contains(&across) {
        return 0.0;
    }
    let down = (BLOCKS_AT_ONCE / across).ceil().min((values / 16.0).ceil()).max((values / 256.0).ceil());
    if down > 1.0 { 4.0 * columns * 128.0 * down } else { 0.0 }
}

/// `coefficient · symbol · symbol …`
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Bytes, usually.
    pub coefficient: f64,
    /// The symbols multiplied; none for a constant.
    pub symbols: Vec<Symbol>,
}

impl Term {
    fn value(&self, symbols: &Symbols) -> f64 {
        self.symbols.iter().fold(self.coefficient, |product, s| product * symbols.get(*s))
    }
}

/// A sum of terms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sum(pub Vec<Term>);

impl Sum {
    /// Reads `16*N*d + -8*N`.
    pub(crate) fn parse(text: &str) -> Option<Sum> {
        text.split(" + ").filter(|part| !part.is_empty()).map(parse_term).collect::<Option<Vec<_>>>().map(Sum)
    }

    /// One term.
    pub fn term(coefficient: f64, symbols: &[Symbol]) -> Sum {
        Sum(vec![Term { coefficient, symbols: symbols.to_vec() }])
    }

    /// The sum of both, like terms put together.
    pub fn plus(mut self, other: &Sum) -> Sum {
        for term in &other.0 {
            match self.0.iter_mut().find(|mine| mine.symbols == term.symbols) {
                Some(mine) => mine.coefficient += term.coefficient,
                None => self.0.push(term.clone()),
            }
        }
        self.0.retain(|term| term.coefficient != 0.0);
        self
    }

    /// Every term times `factor`.
    pub fn times(mut self, factor: f64) -> Sum {
        self.0.iter_mut().for_each(|term| term.coefficient *= factor);
        self.0.retain(|term| term.coefficient != 0.0);
        self
    }

    /// Without the terms that `drop` names.
    pub fn without(mut self, drop: impl Fn(&[Symbol]) -> bool) -> Sum {
        self.0.retain(|term| !drop(&term.symbols));
        self
    }

    /// Evaluated.
    pub fn value(&self, symbols: &Symbols) -> f64 {
        self.0.iter().map(|term| term.value(symbols)).sum()
    }

    /// True when there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The terms in order of size, those below a thousandth of the sum gathered in `…`.
    fn shown(&self, symbols: &Symbols) -> (Vec<&Term>, bool) {
        let mut terms: Vec<(f64, &Term)> =
            self.0.iter().map(|t| (t.value(symbols).abs(), t)).filter(|(v, _)| *v > 0.0).collect();
        terms.sort_by(|a, b| b.0.total_cmp(&a.0));
        let all: f64 = terms.iter().map(|(v, _)| v).sum();
        let kept: Vec<&Term> = terms.iter().filter(|(v, _)| v * 1000.0 >= all).map(|(_, t)| *t).collect();
        let dropped = kept.len() < terms.len();
        (kept, dropped)
    }

    /// In symbols: `16·N·d + 8·N·f`.
    pub fn symbolic(&self, symbols: &Symbols) -> String {
        self.write(symbols, |symbol| symbol.as_str().to_owned())
    }

    /// With this run's numbers: `16·8,192·4,096 + 8·8,192·14,336`.
    pub fn numeric(&self, symbols: &Symbols) -> String {
        self.write(symbols, |symbol| group(symbols.get(symbol) as i64))
    }

    fn write(&self, symbols: &Symbols, name: impl Fn(Symbol) -> String) -> String {
        let (terms, dropped) = self.shown(symbols);
        let mut out = String::new();
        for term in terms {
            let sign = match (out.is_empty(), term.coefficient < 0.0) {
                (true, true) => "−",
                (true, false) => "",
                (false, true) => " − ",
                (false, false) => " + ",
            };
            out.push_str(sign);
            let _ = write!(out, "{}", number(term.coefficient.abs()));
            for symbol in &term.symbols {
                out.push('·');
                out.push_str(&name(*symbol));
            }
        }
        if dropped {
            out.push_str(" + …");
        }
        if out.is_empty() { "0".into() } else { out }
    }
}

fn parse_term(text: &str) -> Option<Term> {
    let mut parts = text.trim().split('*');
    let coefficient = parts.next()?.parse().ok()?;
    let symbols = parts.map(Symbol::parse).collect::<Option<Vec<_>>>()?;
    Some(Term { coefficient, symbols })
}

/// A coefficient: whole numbers without a point, others to a ten-thousandth.
fn number(value: f64) -> String {
    let rounded = (value * 1e4).round() / 1e4;
    if rounded.fract() == 0.0 { group(rounded as i64) } else { format!("{rounded}") }
}

/// A whole number with thousands separated: `8,030,261,248`.
pub fn group(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    if value < 0 {
        out.push('−');
    }
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_a_person_would_write() {
        let mut symbols = Symbols::default();
        symbols.set(Symbol::Tokens, 8192);
        symbols.set(Symbol::Hidden, 4096);
        symbols.set(Symbol::FeedForward, 14336);
        let sum = Sum::parse("8*N + 16*N*d + 8*N*f").unwrap_or_default();
        assert_eq!(sum.symbolic(&symbols), "8·N·f + 16·N·d + …", "the per-token bytes do not matter");
        assert_eq!(sum.numeric(&symbols), "8·8,192·14,336 + 16·8,192·4,096 + …");
        assert_eq!(sum.value(&symbols), 8192.0 * (8.0 + 16.0 * 4096.0 + 8.0 * 14336.0));
    }
}
