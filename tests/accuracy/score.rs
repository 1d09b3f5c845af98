//! Errors by source and stratum, in the words the documentation uses.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// One scored row.
#[derive(Clone, Debug)]
pub(crate) struct Scored {
    pub(crate) id: String,
    /// What it is summed under: `traced: base`, `litgpt`, …
    pub(crate) source: String,
    /// `full, checkpointed`, …
    pub(crate) stratum: String,
    /// `one length`, or `lengths vary`.
    pub(crate) batches: &'static str,
    pub(crate) truth: f64,
    pub(crate) estimate: f64,
    /// The interval of the row's own kind of figure.
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Scored {
    /// Signed relative error.
    pub(crate) fn error(&self) -> f64 {
        self.estimate / self.truth - 1.0
    }
}

/// What a group of rows comes to. Shares and errors in percent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) median: f64,
    pub(crate) p90: f64,
    pub(crate) p95: f64,
    pub(crate) worst: f64,
    pub(crate) bias: f64,
    /// Share of rows estimated more than 5 % too low.
    pub(crate) under: f64,
    /// Share of rows inside the interval.
    pub(crate) covered: f64,
    /// The interval's median width, as a share of the estimate.
    pub(crate) width: f64,
    /// Share of rows within 3 %.
    pub(crate) within3: f64,
}

pub(crate) fn summarise<'a>(rows: impl IntoIterator<Item = &'a Scored>) -> Summary {
    let rows: Vec<&Scored> = rows.into_iter().collect();
    let count = rows.len();
    if count == 0 {
        return Summary::default();
    }
    let mut errors: Vec<f64> = rows.iter().map(|r| r.error().abs() * 100.0).collect();
    errors.sort_by(f64::total_cmp);
    let mut widths: Vec<f64> = rows.iter().map(|r| (r.high - r.low) / r.estimate.max(1.0) * 100.0).collect();
    widths.sort_by(f64::total_cmp);
    let at = |share: f64| errors[((share * count as f64) as usize).min(count - 1)];
    let share = |which: &dyn Fn(&Scored) -> bool| {
        rows.iter().filter(|r| which(r)).count() as f64 / count as f64 * 100.0
    };
    Summary {
        count,
        median: at(0.5),
        p90: at(0.9),
        p95: at(0.95),
        worst: errors[count - 1],
        bias: rows.iter().map(|r| r.error() * 100.0).sum::<f64>() / count as f64,
        under: share(&|r| r.error() < -0.05),
        covered: share(&|r| r.low <= r.truth && r.truth <= r.high),
        width: widths[count / 2],
        within3: share(&|r| r.error().abs() <= 0.03),
    }
}

/// Groups in order of their names.
pub(crate) fn by(rows: &[Scored], key: impl Fn(&Scored) -> String) -> BTreeMap<String, Vec<&Scored>> {
    let mut groups: BTreeMap<String, Vec<&Scored>> = BTreeMap::new();
    for row in rows {
        groups.entry(key(row)).or_default().push(row);
    }
    groups
}

/// A Markdown table, one line a group.
pub(crate) fn table<'a>(groups: impl IntoIterator<Item = (String, Vec<&'a Scored>)>) -> String {
    let mut out = String::from(
        "| rows | count | median error | 90th percentile | worst | bias | over 5 % too low | within 3 % | inside the interval | its median width |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, rows) in groups {
        let s = summarise(rows);
        let _ = writeln!(
            out,
            "| {name} | {} | {:.2} % | {:.2} % | {:.1} % | {:+.2} % | {:.0} % | {:.0} % | {:.0} % | {:.0} % |",
            s.count, s.median, s.p90, s.worst, s.bias, s.under, s.within3, s.covered, s.width
        );
    }
    out
}
