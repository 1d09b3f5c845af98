//! Runs on many GPUs against published measurements: `cargo test --test accuracy_parallel -- --nocapture`.

#![allow(clippy::print_stdout, reason = "the tables are the point")]

#[path = "accuracy/native.rs"]
#[allow(dead_code, reason = "shared with the single-GPU check")]
mod native;
#[path = "accuracy/score.rs"]
#[allow(dead_code, reason = "shared with the single-GPU check")]
mod score;

use std::path::Path;

use llmlint::catalog::Architecture;
use llmlint::memory::{Component, Estimate, Phase};
use native::{Row, estimate_native, read_csv};
use score::{Scored, by, summarise, table};

fn rows() -> Vec<(Row, Estimate)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/parallel.csv");
    let mut list = Vec::new();
    for row in read_csv(&path) {
        let Ok(serde_json::Value::Object(config)) = serde_json::from_str(&row["model"]) else {
            panic!("{}: model", row["id"])
        };
        let text = format!(
            "{{ llmlint: 1, model: {}, training: {}, parallelism: {} }}",
            row["model"], row["training"], row["parallelism"]
        );
        let architecture =
            Architecture::from_config(&config).unwrap_or_else(|e| panic!("{}: {e}", row["id"]));
        match estimate_native(&text, &architecture) {
            Ok(estimate) => list.push((row, estimate)),
            Err(why) => println!("no estimate for {}: {why}", row["id"]),
        }
    }
    list
}

/// A pipelined Megatron run prints the last rank's figure only, the others the worst one's.
fn scored(row: &Row, e: &Estimate) -> Scored {
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
        truth: row["bytes"].parse().expect("bytes"),
        estimate: figure.0 as f64,
        low: e.device_interval.low.0 as f64 - shift,
        high: e.device_interval.high.0 as f64 - shift,
    }
}

#[test]
fn runs_on_many_gpus_are_met() {
    let rows = rows();
    let mut all: Vec<Scored> = rows.iter().map(|(row, e)| scored(row, e)).collect();
    println!("{}", table(by(&all, |r| r.source.clone())));
    println!("{}", table(by(&all, |r| r.stratum.clone())));
    let sources = by(&all, |r| r.source.clone());
    let each: Vec<_> = sources.values().map(|rows| summarise(rows.iter().copied())).collect();
    let mean = |f: fn(&score::Summary) -> f64| each.iter().map(f).sum::<f64>() / each.len() as f64;
    println!("macro-averaged: median {:.2} %, 90th percentile {:.2} %", mean(|s| s.median), mean(|s| s.p90));
    let (median, p90) = (mean(|s| s.median), mean(|s| s.p90));
    assert!(median <= 5.0 && p90 <= 12.0, "macro-averaged: median {median:.2} %, 90th percentile {p90:.2} %");
    all.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
    let shown = std::env::var("ACCURACY_WORST").ok().and_then(|n| n.parse().ok()).unwrap_or(5);
    for r in all.iter().take(shown) {
        println!(
            "{:+.1} % {} {:.3} GB, estimated {:.3}",
            r.error() * 100.0,
            r.id,
            r.truth / 1e9,
            r.estimate / 1e9
        );
    }
}

/// Weights, gradients and states between steps, of runs whose one distinct rank is the one printed.
#[test]
fn megatrons_static_memory_is_met() {
    let (mut within, mut count) = (0, 0);
    for (row, e) in rows() {
        let Ok(truth) = row["static"].parse::<f64>() else { continue };
        if e.ranks.len() > 1 {
            continue;
        }
        let held = [Component::Weights, Component::Gradients, Component::Optimizer];
        let estimate: f64 = held.iter().map(|c| e.ledger.component(*c, Phase::OptimizerStep).0 as f64).sum();
        count += 1;
        let close = (estimate - truth).abs() <= 0.02 * truth + 150e6;
        within += usize::from(close);
        if !close {
            println!("{}: {:.0} MB, estimated {:.0} MB", row["id"], truth / 1e6, estimate / 1e6);
        }
    }
    println!("static memory: {within} of {count} within 2 % + 150 MB");
    assert!(count >= 10 && within == count, "{within} of {count}");
}
