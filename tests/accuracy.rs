//! How far the estimate is off, against traced and measured training steps.
//!
//! `cargo test --test accuracy -- --nocapture` prints the tables; `LLMLINT_UPDATE=1` writes
//! `docs/accuracy.md`, `docs/accuracy.svg` and the recorded figures anew.

#[path = "accuracy/native.rs"]
mod native;
#[path = "accuracy/score.rs"]
mod score;

use std::path::Path;

use llmlint::catalog::Architecture;
use native::{Row, architecture, estimate_native, oracle_row, read_csv, sharded_row, shared};
use score::{Scored, by, summarise, table};

/// The figure of an estimate that a row measures.
fn scored(
    row: &Row,
    source: String,
    stratum: String,
    kind: &str,
    truth: &str,
    e: &llmlint::memory::Estimate,
) -> Scored {
    let figure = match kind {
        "allocated" => e.allocated,
        "reserved" => e.reserved,
        _ => e.device,
    };
    let shift = (e.device - figure).0 as f64;
    Scored {
        id: row["id"].clone(),
        source,
        stratum,
        truth: truth.parse().expect("bytes"),
        estimate: figure.0 as f64,
        low: e.device_interval.low.0 as f64 - shift,
        high: e.device_interval.high.0 as f64 - shift,
    }
}

/// Measured rows of our own table, each in the native format.
fn measured(confidence: &str) -> Vec<Scored> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/measured.csv");
    let mut rows = Vec::new();
    for row in read_csv(&path).iter().filter(|r| r["confidence"] == confidence) {
        let serde_json::Value::Object(config) = serde_json::from_str(&row["model"]).expect("json") else {
            panic!("model")
        };
        let text = format!(
            "{{ llmlint: 1, model: {}, training: {}, parallelism: {} }}",
            row["model"], row["training"], row["parallelism"]
        );
        let architecture =
            Architecture::from_config(&config).unwrap_or_else(|e| panic!("{}: {e}", row["id"]));
        match estimate_native(&text, &architecture) {
            Ok(estimate) => {
                let source = row["id"].split('-').next().unwrap_or_default().to_owned();
                rows.push(scored(row, source, stratum(&text), &row["figure"], &row["bytes"], &estimate));
            }
            Err(why) => println!("no estimate for {}: {why}", row["id"]),
        }
    }
    rows
}

/// `lora, checkpointed`: from the native text.
fn stratum(text: &str) -> String {
    let method = ["qlora", "lora"]
        .into_iter()
        .find(|m| text.contains(&format!("\"method\": \"{m}\"")))
        .unwrap_or("full");
    let whole = text.contains("\"activation_checkpointing\": \"none\"");
    format!("{method}, {}", if whole { "nothing recomputed" } else { "checkpointed" })
}

#[test]
fn measured_rows() {
    let rows = measured("high");
    println!("{}", table(by(&rows, |r| r.source.clone())));
    let mut worst: Vec<&Scored> = rows.iter().collect();
    worst.sort_by(|a, b| b.error().abs().total_cmp(&a.error().abs()));
    for r in worst.iter().take(60) {
        println!(
            "{:+.1} % {} {:.2} GB est {:.2} [{:.2} {:.2}]",
            r.error() * 100.0,
            r.id,
            r.truth / 1e9,
            r.estimate / 1e9,
            r.low / 1e9,
            r.high / 1e9
        );
    }
    println!("{:?}", summarise(&rows));
}

/// `ACCURACY_DUMP=file cargo test --test accuracy dump -- --ignored`: one line a row.
#[test]
#[ignore = "a tool, not a check"]
fn dump() {
    let Some(shared) = shared() else { panic!("no ../shared") };
    let mut out = String::from("table,id,peak,est,reserved,est_reserved,phase,est_phase,why\n");
    for (table, express) in [("oracle", oracle_row as fn(&native::Row) -> String), ("sharded", sharded_row)] {
        for row in read_csv(&shared.join(format!("truth/{table}-grid.csv"))) {
            let estimate =
                architecture(&shared, &row["model"]).and_then(|a| estimate_native(&express(&row), &a));
            let phase = row.get("phase").map_or("", String::as_str);
            let line = match estimate {
                Ok(e) => format!(
                    "{table},{},{},{},{},{},{phase},{},\n",
                    row["id"],
                    row["peak"],
                    e.allocated.0,
                    row["reserved"],
                    e.reserved.0,
                    e.phase.as_str()
                ),
                Err(why) => format!(
                    "{table},{},{},0,{},0,{phase},,{}\n",
                    row["id"],
                    row["peak"],
                    row["reserved"],
                    why.replace(',', ";")
                ),
            };
            out.push_str(&line);
        }
    }
    let path = std::env::var("ACCURACY_DUMP").unwrap_or_else(|_| "/tmp/accuracy.csv".into());
    std::fs::write(path, out).expect("writable");
}
