//! The batches that make the allocator grow, where every batch is padded to its own longest row.
//!
//! Only a batch longer than all before it matters: PyTorch's own allocator, played over recorded
//! steps, reserves the same to a few MiB for those alone as for a thousand drawn batches. How many
//! there are, and how far apart, is chance; so several orders are drawn, always the same ones.

use crate::run::lengths::{Order, Overlong, SequenceLengths};
use crate::run::{Batching, TrainingRun};

/// Orders that are drawn: enough for their middle, and for the range of nearly all.
const DRAWS: u64 = 15;
/// Rows where nobody says how many: what a small fine-tuning set has.
const ROWS: u64 = 1000;
/// Rows that are drawn at most; longer ones come ever more rarely.
const MOST_ROWS: u64 = 8192;

/// Lengths of the batches that make the allocator grow, as parts of the longest, where nobody says
/// how long the rows are: the expected maximum of 1, 2, 4, 8 and 16 even draws, then the longest
/// itself. PyTorch's own allocator, run over two hundred lengths drawn from a lognormal law (standard
/// deviation 0.8 of the mean) that is cut where it keeps 10 % to 95 % of the samples, reserves on
/// average what it reserves over these six.
const UNDECLARED: [(f64, u64); 6] = [(0.5, 0), (0.67, 1), (0.8, 3), (0.89, 7), (0.94, 15), (1.0, 200)];

/// A batch that the allocator is played through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Batch {
    /// Tokens a row, as a part of the longest batch's.
    pub(crate) length: f64,
    /// The optimizer steps after it.
    pub(crate) ends_step: bool,
}

/// What a run's batches come to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Draws {
    /// Tokens of the longest batch to expect, as a part of the limit.
    pub(crate) longest: f64,
    /// For each drawn order the batches that are longer than all before them, each step's last one marked.
    pub(crate) records: Vec<Vec<Batch>>,
}

impl Draws {
    /// The same length in every step.
    fn fixed(run: &TrainingRun) -> Draws {
        Draws { longest: 1.0, records: vec![steps(&[(1.0, 0)], run)] }
    }

    /// The batches of a run.
    pub(crate) fn of(run: &TrainingRun) -> Draws {
        if run.batching.value != Batching::Padded {
            return Draws::fixed(run);
        }
        match &run.sequence_lengths.value {
            None => Draws { longest: 1.0, records: vec![steps(&UNDECLARED, run)] },
            Some(law) => Draws::from_law(law, run),
        }
    }

    fn from_law(declared: &SequenceLengths, run: &TrainingRun) -> Draws {
        let limit = run.sequence_length.value as f64;
        if declared.full.is_some_and(|share| share >= 1.0) || limit <= 0.0 {
            return Draws::fixed(run);
        }
        if declared.order == Some(Order::LongestFirst) && declared.mean.is_none() {
            let longest = declared.longest.map_or(limit, |longest| limit.min(longest as f64)) / limit;
            return Draws { longest, ..Draws::fixed(run) };
        }
        let law = Law::of(declared, limit, declared.overlong.unwrap_or(run.overlong));
        let gpus = run.parallelism.gpus.as_ref().map_or(1, |g| g.value).max(1);
        let rows = (declared.rows.unwrap_or(ROWS) / gpus).clamp(1, MOST_ROWS);
        let batch = run.micro_batch_size.value.max(1);
        let mut orders: Vec<Vec<(f64, u64)>> =
            (1..=DRAWS).map(|seed| records(&law, rows, batch, seed)).filter(|r| !r.is_empty()).collect();
        let mut longest: Vec<f64> = orders.iter().filter_map(|r| r.last().map(|l| l.0)).collect();
        longest.sort_by(f64::total_cmp);
        let Some(&median) = longest.get(longest.len() / 2) else { return Draws::fixed(run) };
        if declared.order == Some(Order::LongestFirst) {
            orders = vec![vec![(median, 0)]];
        }
        for (length, _) in orders.iter_mut().flatten() {
            *length /= median;
        }
        Draws { longest: median / limit, records: orders.iter().map(|order| steps(order, run)).collect() }
    }
}

/// Records, each with the number of the batch that it is, as steps of the optimizer: what comes
/// between two of them is shorter and changes nothing, except that gradients are there from a
/// step's second micro-batch on, and states from the second step on.
fn steps(records: &[(f64, u64)], run: &TrainingRun) -> Vec<Batch> {
    let accumulation = run.gradient_accumulation_steps.value.max(1);
    let mut batches: Vec<Batch> = Vec::new();
    let mut last: Option<(f64, u64)> = None;
    for &(length, number) in records {
        let step = number / accumulation;
        match (last, batches.last_mut()) {
            (Some((_, before)), Some(batch)) if before != step => batch.ends_step = true,
            _ => {}
        }
        let begins = last.is_none_or(|(_, before)| before != step);
        if begins && number % accumulation > 0 {
            // A shorter one before it has left its gradients.
            let shorter = last.map_or(0.5 * length, |(length, _)| length);
            batches.push(Batch { length: shorter, ends_step: false });
        }
        batches.push(Batch { length, ends_step: false });
        last = Some((length, step));
    }
    // The longest once more, with everything there that a run has after its first step.
    if let (Some((length, _)), Some(batch)) = (last, batches.last_mut()) {
        batch.ends_step = accumulation == 1;
        let again: &[bool] = if accumulation == 1 { &[true] } else { &[true, false, true] };
        batches.extend(again.iter().map(|ends_step| Batch { length, ends_step: *ends_step }));
    }
    batches
}

/// Where a row's tokens come from.
struct Law {
    limit: f64,
    overlong: Overlong,
    shortest: f64,
    longest: f64,
    kind: Kind,
}

enum Kind {
    /// Texts: the logarithm is normal.
    Lognormal { mean: f64, deviation: f64 },
    /// Nothing is known of the rows that do not reach the limit: even below it.
    Even { full: f64 },
}

impl Law {
    fn of(declared: &SequenceLengths, limit: f64, overlong: Overlong) -> Law {
        let kind = match (declared.mean, declared.deviation) {
            (Some(mean), Some(deviation)) => {
                let variance = (deviation / mean).powi(2).ln_1p();
                Kind::Lognormal { mean: mean.ln() - variance / 2.0, deviation: variance.sqrt() }
            }
            _ => Kind::Even { full: declared.full.unwrap_or(0.0) },
        };
        let longest = declared.longest.map_or(f64::MAX, |l| l as f64);
        Law { limit, overlong, shortest: declared.shortest.unwrap_or(1) as f64, longest, kind }
    }

    /// One row's tokens; `None`: it is left out.
    fn row(&self, numbers: &mut Numbers) -> Option<f64> {
        let drawn = match self.kind {
            Kind::Lognormal { mean, deviation } => {
                // Rows outside the declared range do not exist: a few draws find one inside.
                (0..8)
                    .map(|_| (mean + deviation * numbers.normal()).exp())
                    .find(|x| (self.shortest..=self.longest).contains(x))?
            }
            Kind::Even { full } => {
                let top = self.limit.min(self.longest);
                if numbers.even() < full {
                    top
                } else {
                    self.shortest + numbers.even() * (top - self.shortest)
                }
            }
        };
        match self.overlong {
            Overlong::Dropped if drawn > self.limit => None,
            _ => Some(drawn.min(self.limit).floor().max(1.0)),
        }
    }
}

/// The batches, in a drawn order, that are longer than all before them: their tokens a row.
/// With each the number of the batch that it is.
fn records(law: &Law, rows: u64, batch: u64, seed: u64) -> Vec<(f64, u64)> {
    let mut numbers = Numbers(seed);
    let mut found: Vec<(f64, u64)> = Vec::new();
    let (mut longest, mut filled, mut number) = (0.0_f64, 0, 0);
    for row in 1..=rows {
        if let Some(length) = law.row(&mut numbers) {
            longest = longest.max(length);
            filled += 1;
        }
        if filled == batch || (row == rows && filled > 0) {
            if found.last().is_none_or(|most| longest > most.0) {
                found.push((longest, number));
            }
            (longest, filled, number) = (0.0, 0, number + 1);
        }
    }
    found
}

/// Steele, Lea and Flood's SplitMix64 (2014): a few lines, the same everywhere.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn even(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Box and Muller's normal number.
    fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.even(), self.even());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn law(overlong: Overlong, limit: f64) -> Law {
        let declared =
            SequenceLengths { mean: Some(3234.4), deviation: Some(2547.5), ..SequenceLengths::default() };
        Law::of(&declared, limit, overlong)
    }

    #[test]
    fn drawn_rows_have_the_declared_mean_and_deviation() {
        let (mut numbers, law) = (Numbers(7), law(Overlong::Truncated, 1e9));
        let rows: Vec<f64> = (0..40_000).filter_map(|_| law.row(&mut numbers)).collect();
        let mean = rows.iter().sum::<f64>() / rows.len() as f64;
        let deviation = (rows.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / rows.len() as f64).sqrt();
        assert!((mean - 3234.4).abs() < 60.0, "{mean}");
        assert!((deviation - 2547.5).abs() < 150.0, "{deviation}");
    }

    #[test]
    fn a_limit_that_most_rows_reach_is_met_at_once_when_they_are_cut() {
        let most = records(&law(Overlong::Truncated, 512.0), 1000, 4, 1);
        assert_eq!(most, [(512.0, 0)]);
        let dropped = records(&law(Overlong::Dropped, 512.0), 1000, 1, 1);
        assert!(dropped.len() > 1 && dropped.iter().all(|x| x.0 <= 512.0), "{dropped:?}");
    }
}
