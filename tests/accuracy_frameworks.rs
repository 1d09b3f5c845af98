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

/// Per cent by which a row's difference may exceed what is recorded for it.
const MARGIN: f64 = 0.5;

/// Rows that are further off than `tests/accuracy/frameworks-recorded.tsv` accepts, in words.
/// `LLMLINT_UPDATE=1` takes new rows in and lowers what is recorded, and never raises it.
fn worse_than_recorded(rows: &[Row], refused: &[String]) -> Vec<String> {
    let path = common::root().join("tests/accuracy/frameworks-recorded.tsv");
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut recorded: BTreeMap<&str, f64> = text
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .filter_map(|(id, size)| Some((id, size.parse().ok()?)))
        .collect();
    if std::env::var_os("LLMLINT_UPDATE").is_some() {
        recorded.retain(|id, _| rows.iter().any(|row| row.id == *id) || refused.iter().any(|r| r == id));
        for row in rows {
            let size = (row.difference.abs() * 100.0).ceil() / 100.0;
            let kept = recorded.entry(row.id.as_str()).or_insert(size);
            *kept = kept.min(size);
        }
        let lines: String = recorded.iter().map(|(id, size)| format!("{id}\t{size:.2}\n")).collect();
        std::fs::write(&path, format!("row\taccepted difference in per cent, either way\n{lines}"))
            .expect("writable");
    }
    let further = rows.iter().filter_map(|row| match recorded.get(row.id.as_str()) {
        Some(accepted) if row.difference.abs() <= accepted + MARGIN => None,
        Some(accepted) => Some(format!(
            "{}: {:+.2} % of its measured peak, {accepted:.2} % accepted (and {MARGIN} more)",
            row.id, row.difference
        )),
        None => Some(format!("{}: not recorded yet, LLMLINT_UPDATE=1 does", row.id)),
    });
    let gone = refused
        .iter()
        .filter(|id| recorded.contains_key(id.as_str()))
        .map(|id| format!("{id}: had an estimate, has none"));
    further.chain(gone).collect()
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
    let worse = worse_than_recorded(&all, &refused);
    assert!(worse.is_empty(), "{} rows are worse than recorded:\n{}", worse.len(), worse.join("\n"));
    assert!(quantile(&all, 0.5) <= MEDIAN, "the median difference grew beyond {MEDIAN} %");
    assert!(quantile(&all, 0.9) <= P90, "the 90th percentile of the differences grew beyond {P90} %");
}

/// Per cent; the recorded figures, rounded up.
const MEDIAN: f64 = 1.0;
const P90: f64 = 4.0;
