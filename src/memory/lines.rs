//! Writes ledger entries: a formula, the same with numbers, and the bytes, from one place.

use super::expression::{Sum, Symbols, group};
use super::ledger::{Component, Driver, Entry, Ledger, Phase, PhaseSet};
use crate::units::Bytes;

/// What a line is about.
pub(crate) struct Line<'a> {
    pub(crate) component: Component,
    pub(crate) name: String,
    pub(crate) live: PhaseSet,
    pub(crate) drivers: &'a [Driver],
    pub(crate) source: &'static str,
}

/// A line that counts in the phases `live`.
pub(crate) fn line<'a>(
    component: Component,
    name: &str,
    live: &[Phase],
    drivers: &'a [Driver],
    source: &'static str,
) -> Line<'a> {
    Line { component, name: name.to_owned(), live: PhaseSet::of(live), drivers, source }
}

/// Collects entries; lines of nothing are left out.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    entries: Vec<Entry>,
}

impl Lines {
    /// A line whose formula is a product of named numbers.
    pub(crate) fn product(&mut self, line: Line<'_>, factors: &[(&str, f64)]) {
        let bytes = factors.iter().map(|(_, value)| value).product::<f64>();
        let formula = factors.iter().map(|(name, _)| *name).collect::<Vec<_>>().join("·");
        let numbers = factors.iter().map(|(_, value)| plain(*value)).collect::<Vec<_>>().join("·");
        self.push(line, formula, numbers, bytes);
    }

    /// A line whose formula is a sum from the tables, `count` times over.
    pub(crate) fn sum(&mut self, line: Line<'_>, count: Option<(&str, f64)>, sum: &Sum, symbols: &Symbols) {
        let value = sum.value(symbols);
        let (symbolic, numeric) = (sum.symbolic(symbols), sum.numeric(symbols));
        match count {
            None => self.push(line, symbolic, numeric, value),
            Some((name, count)) => {
                let formula = format!("{name}·({symbolic})");
                let numbers = format!("{}·({numeric})", plain(count));
                self.push(line, formula, numbers, count * value);
            }
        }
    }

    /// A line with its formula in words.
    pub(crate) fn worded(&mut self, line: Line<'_>, formula: &str, bytes: f64) {
        let numbers = group(bytes.round() as i64);
        self.push(line, formula.to_owned(), numbers, bytes);
    }

    fn push(&mut self, line: Line<'_>, formula: String, numbers: String, bytes: f64) {
        if bytes == 0.0 {
            return;
        }
        self.entries.push(Entry {
            component: line.component,
            name: line.name,
            formula,
            numbers,
            bytes: Bytes::from_f64(bytes),
            live: line.live,
            drivers: line.drivers.to_vec(),
            source: line.source,
        });
    }

    /// The ledger, in the order a person adds it up.
    pub(crate) fn finish(mut self) -> Ledger {
        self.entries.sort_by_key(|entry| entry.component);
        Ledger { entries: self.entries }
    }
}

/// A factor in numbers: whole where it is whole.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 {
        group(value as i64)
    } else {
        let text = format!("{value:.6}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    }
}
