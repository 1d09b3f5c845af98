//! How long the rows of a dataset are: what a config does not say, and reserved memory hangs on
//! where batches are padded to their own longest row.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The lengths of the rows, in tokens, where batches are padded to their longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SequenceLengths {
    /// Mean tokens a row has before the limit is applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Standard deviation of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// Tokens of the shortest row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shortest: Option<u64>,
    /// Tokens of the longest row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub longest: Option<u64>,
    /// Share of the rows that reach the limit, instead of a mean; 1: every row is padded to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1))]
    pub full: Option<f64>,
    /// Rows that are trained on. Default: 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// What becomes of rows beyond the limit. Default: what the framework does; truncated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlong: Option<Overlong>,
    /// In which order rows come. Default: random.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}

/// What becomes of rows that are longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Overlong {
    /// They are cut to the limit.
    Truncated,
    /// They are left out.
    Dropped,
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Shuffled.
    Random,
    /// The longest batch first, as transformers' `group_by_length` has it.
    LongestFirst,
}

impl SequenceLengths {
    /// Every batch is padded to the limit.
    pub const FULL: SequenceLengths = SequenceLengths {
        mean: None,
        deviation: None,
        shortest: None,
        longest: None,
        full: Some(1.0),
        rows: None,
        overlong: None,
        order: None,
    };

    /// The longest batch comes first, whatever the rows are.
    pub const LONGEST_FIRST: SequenceLengths =
        SequenceLengths { full: None, order: Some(Order::LongestFirst), ..SequenceLengths::FULL };

    /// In words: `mean 3234, deviation 2548, dropped beyond the limit`.
    pub fn describe(&self) -> String {
        if self.full.is_some_and(|share| share >= 1.0) {
            return "every row padded to the limit".into();
        }
        let mut parts = Vec::new();
        let figures = [
            ("mean", self.mean),
            ("deviation", self.deviation),
            ("shortest", self.shortest.map(|n| n as f64)),
            ("longest", self.longest.map(|n| n as f64)),
            ("rows", self.rows.map(|n| n as f64)),
        ];
        parts.extend(figures.iter().filter_map(|(name, value)| value.map(|v| format!("{name} {v:.0}"))));
        if let Some(share) = self.full {
            parts.push(format!("{:.0} % reach the limit", share * 100.0));
        }
        if let Some(overlong) = self.overlong {
            let word = if overlong == Overlong::Dropped { "dropped" } else { "truncated" };
            parts.push(format!("{word} beyond the limit"));
        }
        if self.order == Some(Order::LongestFirst) {
            parts.push("the longest first".into());
        }
        parts.join(", ")
    }

    /// Do the figures go together?
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn check(&self) -> Result<(), String> {
        let positive = |name: &str, value: Option<f64>| match value {
            Some(v) if !(v.is_finite() && v > 0.0) => Err(format!("`{name}` is not above 0")),
            _ => Ok(()),
        };
        positive("mean", self.mean)?;
        positive("deviation", self.deviation)?;
        if self.full.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err("`full` is a share of the rows, from 0 to 1".into());
        }
        if self.mean.is_some() != self.deviation.is_some() {
            return Err("`mean` and `deviation` belong together".into());
        }
        if self.mean.is_some() && self.full.is_some() {
            return Err("give either `mean` and `deviation`, or `full`: one follows from the other".into());
        }
        if self.rows == Some(0) {
            return Err("`rows` is not above 0".into());
        }
        let (shortest, longest) =
            (self.shortest.unwrap_or(0) as f64, self.longest.map_or(f64::MAX, |l| l as f64));
        if longest < 1.0 || shortest > longest {
            return Err("`shortest` is longer than `longest`".into());
        }
        if self.mean.is_some_and(|mean| mean < shortest || mean > longest) {
            return Err("`mean` does not lie between `shortest` and `longest`".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_that_contradict_each_other_are_told_apart() {
        let law = SequenceLengths { mean: Some(300.0), ..SequenceLengths::default() };
        assert_eq!(law.check(), Err("`mean` and `deviation` belong together".into()));
        let law = SequenceLengths { deviation: Some(100.0), longest: Some(200), ..law };
        assert_eq!(law.check(), Err("`mean` does not lie between `shortest` and `longest`".into()));
        assert_eq!(SequenceLengths { longest: Some(2000), ..law }.check(), Ok(()));
        assert!(SequenceLengths { full: Some(1.5), ..SequenceLengths::default() }.check().is_err());
    }
}
