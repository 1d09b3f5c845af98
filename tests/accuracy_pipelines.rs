//! One rank of PyTorch's pipelines: torchtitan's own stages and schedules over the stub, traced by
//! `tools/oracle/run_framework`, against the rank's line of `llmlint explain`.

#![expect(clippy::print_stdout, reason = "the table is the point")]

mod common;
#[allow(dead_code, reason = "its reader of CSV is what is used here")]
#[path = "accuracy/native.rs"]
mod native;

use std::collections::BTreeMap;

/// Per cent of what is allocated on a rank.
const WORST: f64 = 4.0;
const MEDIAN: f64 = 0.5;

fn ranks(config: &str) -> Vec<f64> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join(".git")).expect("a repository's root");
    std::fs::write(folder.path().join("run.toml"), config).expect("the file");
    let ran = common::llmlint(folder.path(), &["explain", "--format", "json", "run.toml"]);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).expect("an answer");
    let ranks = answer.pointer("/files/0/estimate/ranks").and_then(|ranks| ranks.as_array());
    ranks.expect("ranks").iter().map(|rank| rank["allocated_bytes"].as_f64().expect("bytes")).collect()
}

#[test]
fn each_rank_of_a_pipeline_is_met() {
    let path = common::root().join("tests/accuracy/pipelines.csv");
    let mut estimates: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let mut off = Vec::new();
    for row in native::read_csv(&path) {
        // `# pipeline rank 1`, and the rest is one file for all ranks.
        let (comment, config) = row["config"].split_once('\n').expect("a comment and a file");
        let rank: usize = comment.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a rank");
        let all = estimates.entry(config.to_owned()).or_insert_with(|| ranks(config));
        let traced: f64 = row["allocated_bytes"].parse().expect("bytes");
        let difference = 100.0 * (all[rank] / traced - 1.0);
        println!("{:60} {:9.1} MB {difference:+6.2} %", row["id"], traced / 1e6);
        off.push((difference.abs(), row["id"].clone()));
    }
    off.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (worst, id) = off.last().expect("rows");
    assert!(*worst <= WORST, "{id} is {worst:.2} % off");
    assert!(off[off.len() / 2].0 <= MEDIAN, "the median difference grew beyond {MEDIAN} %");
}
