//! The frameworks' own trainers as judges of the lowering: the same file to the trainer, measured
//! over the stub by `tools/oracle/run_framework`, and to `llmlint explain`.

#![expect(clippy::print_stdout, reason = "the table is the point")]

mod common;
#[allow(dead_code, reason = "its reader of CSV is what is used here")]
#[path = "accuracy/native.rs"]
mod native;

use std::collections::BTreeMap;

struct Row {
    id: String,
    difference: f64,
}

/// Difference in per cent of a row's measured peak; `None` where there is no estimate.
fn difference(row: &native::Row) -> Option<f64> {
    let cell = |name: &str| row.get(name).expect("a full row");
    let folder = tempfile::tempdir().expect("a folder");
    let config = cell("config");
    // Frameworks with models of their own name one; the others take a folder's config.json.
    if let Some((_, model)) = config.lines().find_map(|line| line.trim().split_once(": models/")) {
        let model = folder.path().join("models").join(model.trim());
        std::fs::create_dir_all(&model).expect("a model's folder");
        std::fs::write(model.join("config.json"), cell("model")).expect("config.json");
    }
    std::fs::create_dir(folder.path().join(".git")).expect("a repository's root");
    let file = if cell("framework") == "torchtitan" { "run.toml" } else { "run.yaml" };
    std::fs::write(folder.path().join(file), config).expect("the file");
    let ran = common::llmlint(folder.path(), &["explain", "--format", "json", file]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).ok()?;
    let estimate = answer.pointer("/files/0/estimate/allocated_bytes")?.as_f64()?;
    let measured: f64 = cell("allocated_bytes").parse().expect("bytes");
    Some(100.0 * (estimate / measured - 1.0))
}

fn quantile(rows: &[Row], at: f64) -> f64 {
    let mut sizes: Vec<f64> = rows.iter().map(|row| row.difference.abs()).collect();
    sizes.sort_by(f64::total_cmp);
    let last = sizes.len().saturating_sub(1) as f64;
    sizes.get((last * at).round() as usize).copied().unwrap_or(0.0)
}

#[test]
fn trainers_agree_with_the_estimate() {
    let path = common::root().join("tests/accuracy/frameworks.csv");
    let mut frameworks: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    let mut refused = Vec::new();
    for row in native::read_csv(&path) {
        let id = row["id"].clone();
        match difference(&row) {
            Some(difference) => {
                frameworks.entry(row["framework"].clone()).or_default().push(Row { id, difference });
            }
            None => refused.push(id),
        }
    }
    println!("{:16} {:>4} {:>8} {:>8}  worst", "framework", "rows", "median", "p90");
    for (name, rows) in &frameworks {
        let worst =
            rows.iter().max_by(|a, b| a.difference.abs().total_cmp(&b.difference.abs())).expect("a row");
        println!(
            "{name:16} {:4} {:6.2} % {:6.2} %  {:+.2} % {}",
            rows.len(),
            quantile(rows, 0.5),
            quantile(rows, 0.9),
            worst.difference,
            worst.id
        );
    }
    for row in frameworks.values().flatten().filter(|row| row.difference.abs() > 3.0) {
        println!("beyond 3 %: {} {:+.2} %", row.id, row.difference);
    }
    println!("no estimate: {}", refused.join(", "));
    let all: Vec<Row> = frameworks.into_values().flatten().collect();
    assert!(quantile(&all, 0.5) <= MEDIAN, "the median difference grew beyond {MEDIAN} %");
    assert!(quantile(&all, 0.9) <= P90, "the 90th percentile of the differences grew beyond {P90} %");
}

/// Per cent; the recorded figures, rounded up.
const MEDIAN: f64 = 1.0;
const P90: f64 = 4.0;
