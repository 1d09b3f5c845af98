//! Runs on many GPUs against published measurements: `cargo test --test accuracy_parallel -- --nocapture`.

#![allow(clippy::print_stdout, reason = "the tables are the point")]

#[path = "accuracy/native.rs"]
#[allow(dead_code, reason = "shared with the single-GPU check")]
mod native;
#[path = "accuracy/score.rs"]
#[allow(dead_code, reason = "shared with the single-GPU check")]
mod score;

#[path = "accuracy/parallel.rs"]
mod parallel;

use llmlint::memory::{Component, Phase};
use parallel::{rows, scored};
use score::{Scored, by, summarise, table};

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
    assert!(median <= 3.0 && p90 <= 6.0, "macro-averaged: median {median:.2} %, 90th percentile {p90:.2} %");
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
