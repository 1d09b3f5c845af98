//! Amounts of memory. GiB is 2^30 bytes, GB is 10^9, and output always says which.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// 2^30 bytes.
pub const GIB: f64 = 1_073_741_824.0;
/// 2^20 bytes.
pub const MIB: f64 = 1_048_576.0;

/// An amount of memory in bytes.
///
/// Signed, because a ledger also holds releases (tensors freed before the peak). Sums saturate: a
/// file may ask for more than any machine has.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Bytes(pub i64);

impl Bytes {
    /// No memory.
    pub const ZERO: Bytes = Bytes(0);

    /// Rounds a computed amount to whole bytes. Exact below 2^53.
    pub fn from_f64(bytes: f64) -> Bytes {
        Bytes(bytes.round() as i64)
    }

    /// `gib` times 2^30 bytes.
    pub fn from_gib(gib: f64) -> Bytes {
        Bytes::from_f64(gib * GIB)
    }

    /// The amount in units of 2^30 bytes.
    pub fn gib(self) -> f64 {
        self.0 as f64 / GIB
    }

    /// Reads `80GiB`, `80 GB`, `512MiB`, `85899345920`. GB and GiB are different numbers and
    /// both are accepted; a bare number is bytes.
    ///
    /// # Errors
    /// A message that names the accepted units, when the text is something else.
    pub fn parse(text: &str) -> Result<Bytes, String> {
        let text = text.trim();
        let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '_')).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let scale = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            "kib" => 1024.0,
            "mib" => MIB,
            "gib" => GIB,
            "tib" => GIB * 1024.0,
            _ => {
                return Err(format!(
                    "`{text}` is not an amount of memory: write 80GiB (2^30) or 80GB (10^9)"
                ));
            }
        };
        match number.replace('_', "").parse::<f64>() {
            Ok(n) if n.is_finite() && n * scale < 9e18 => Ok(Bytes::from_f64(n * scale)),
            _ => Err(format!("`{text}` is not an amount of memory: write 80GiB (2^30) or 80GB (10^9)")),
        }
    }
}

impl fmt::Display for Bytes {
    /// `12.3 GiB`, or MiB, KiB and B below one of the next larger unit.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.unsigned_abs() as f64;
        let text = if size >= GIB {
            let gib = self.gib();
            if gib.abs() >= 100.0 { format!("{gib:.0} GiB") } else { format!("{gib:.1} GiB") }
        } else if size >= MIB {
            format!("{:.0} MiB", self.0 as f64 / MIB)
        } else if size >= 1024.0 {
            format!("{:.0} KiB", self.0 as f64 / 1024.0)
        } else {
            format!("{} B", self.0)
        };
        f.pad(&text)
    }
}

impl Add for Bytes {
    type Output = Bytes;
    fn add(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Bytes {
    fn add_assign(&mut self, other: Bytes) {
        *self = *self + other;
    }
}

impl Sub for Bytes {
    type Output = Bytes;
    fn sub(self, other: Bytes) -> Bytes {
        Bytes(self.0.saturating_sub(other.0))
    }
}

impl Neg for Bytes {
    type Output = Bytes;
    fn neg(self) -> Bytes {
        Bytes(self.0.saturating_neg())
    }
}

impl Mul<f64> for Bytes {
    type Output = Bytes;
    fn mul(self, factor: f64) -> Bytes {
        Bytes::from_f64(self.0 as f64 * factor)
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Bytes>>(iter: I) -> Bytes {
        iter.fold(Bytes::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gb_and_gib_are_different_numbers() {
        assert_eq!(Bytes::parse("80GB"), Ok(Bytes(80_000_000_000)));
        assert_eq!(Bytes::parse("80 GiB"), Ok(Bytes(85_899_345_920)));
        assert_eq!(Bytes::parse("79.1GiB").map(|b| b.to_string()), Ok("79.1 GiB".into()));
        assert!(Bytes::parse("80G").is_err(), "a unit that could be either is refused");
    }
}
