//! Published runs on many GPUs, each in the native format.

use std::path::Path;

use llmlint::memory::Estimate;

use super::native::{Row, measured_row, read_csv};
use super::score::Scored;

pub(crate) fn rows() -> Vec<(Row, Estimate)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/parallel.csv");
    let mut list = Vec::new();
    for row in read_csv(&path) {
        match measured_row(&row).1 {
            Ok(estimate) => list.push((row, estimate)),
            Err(why) => println!("no estimate for {}: {why}", row["id"]),
        }
    }
    list
}

/// A pipelined Megatron run prints the last rank's figure only, the others the worst one's.
pub(crate) fn scored(row: &Row, e: &Estimate) -> Scored {
    let (figure, interval, own) = match (row["figure"].as_str(), row["rank"].as_str()) {
        ("allocated", "last") => {
            let last = e.ranks.last().map_or(e.allocated, |r| r.allocated);
            (last, e.allocated_interval, e.allocated)
        }
        ("allocated", _) => (e.allocated, e.allocated_interval, e.allocated),
        ("reserved", _) => (e.reserved, e.reserved_interval, e.reserved),
        _ => (e.device, e.device_interval, e.device),
    };
    // Only the worst rank has an interval; another's is as wide in proportion.
    let scale = figure.0 as f64 / own.0 as f64;
    let stratum = ["\"pipeline\": 1", "\"pipeline\""].into_iter().find(|p| row["parallelism"].contains(p));
    let cut = if stratum == Some("\"pipeline\"") { "pipeline" } else { "no pipeline" };
    let whole = row["training"].contains("\"activation_checkpointing\": \"none\"")
        || !row["training"].contains("activation_checkpointing");
    Scored {
        id: row["id"].clone(),
        source: row["id"].split('-').next().unwrap_or_default().to_owned(),
        stratum: format!("{cut}, {}", if whole { "nothing recomputed" } else { "recomputed" }),
        batches: "one length",
        truth: row["bytes"].parse().expect("bytes"),
        estimate: figure.0 as f64,
        low: interval.low.0 as f64 * scale,
        high: interval.high.0 as f64 * scale,
    }
}
