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
    let figure = match (row["figure"].as_str(), row["rank"].as_str()) {
        ("allocated", "last") => e.ranks.last().map_or(e.allocated, |r| r.allocated),
        ("allocated", _) => e.allocated,
        ("reserved", _) => e.reserved,
        _ => e.device,
    };
    let shift = (e.device - figure).0 as f64;
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
        low: e.device_interval.low.0 as f64 - shift,
        high: e.device_interval.high.0 as f64 - shift,
    }
}
