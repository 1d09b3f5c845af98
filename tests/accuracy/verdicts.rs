//! Runs that are known to have fitted, or to have run out of memory, on a GPU of known size: the
//! verdict on each, with the file that the run had or the native one that means the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::native::read_csv;

/// One run with its verdict.
pub(crate) struct Judged {
    pub(crate) id: String,
    /// `fit` or `oom`.
    pub(crate) outcome: String,
    /// `full`, or `part`: what the source does not say is set to the least, or inferred.
    pub(crate) known: String,
    pub(crate) verdict: String,
}

/// Every row of `verdicts.csv`, in its order; all files go through the program at once.
pub(crate) fn judged() -> Vec<Judged> {
    let rows = read_csv(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accuracy/verdicts.csv"));
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join(".git")).expect("a repository's root");
    let name = |index: usize| format!("run-{index:03}.yaml");
    for (index, row) in rows.iter().enumerate() {
        let mut budget = format!("# llmlint: gpus={}", row["gpus"]);
        for (key, column) in [("gpu", "gpu"), ("budget", "memory")] {
            if !row[column].is_empty() {
                let _ = write!(budget, " {key}={}", row[column]);
            }
        }
        let text = format!("{budget}\n{}", row["config"]);
        std::fs::write(folder.path().join(name(index)), text).expect("a file");
    }
    let ran = Command::new(env!("CARGO_BIN_EXE_llmlint"))
        .args(["explain", "--format", "json"])
        .args((0..rows.len()).map(name))
        .current_dir(folder.path())
        .output()
        .expect("the program");
    let answer: serde_json::Value = serde_json::from_slice(&ran.stdout).expect("its answer");
    let files = answer["files"].as_array().expect("files");
    let verdicts: BTreeMap<&str, &str> = files
        .iter()
        .filter_map(|file| Some((file["path"].as_str()?, file["verdict"].as_str().unwrap_or("unknown"))))
        .collect();
    rows.iter()
        .enumerate()
        .map(|(index, row)| Judged {
            id: row["id"].clone(),
            outcome: row["outcome"].clone(),
            known: row["known"].clone(),
            verdict: verdicts.get(name(index).as_str()).copied().unwrap_or("unknown").to_owned(),
        })
        .collect()
}

pub(crate) const VERDICTS: [&str; 4] = ["fits", "tight", "exceeds", "unknown"];

/// Rows whose settings are `known`, by what they did and what is said of them.
pub(crate) fn count(rows: &[Judged], known: &str, outcome: &str, verdict: &str) -> usize {
    rows.iter().filter(|r| r.known == known && r.outcome == outcome && r.verdict == verdict).count()
}

/// The confusion table in Markdown.
pub(crate) fn table(rows: &[Judged]) -> String {
    let mut out = String::from(
        "| what the run did | runs | fits | tight | exceeds | unknown |\n|---|---|---|---|---|---|\n",
    );
    for (known, outcome, words) in [
        ("full", "fit", "fitted"),
        ("full", "oom", "ran out of memory"),
        ("part", "fit", "fitted; settings known in part"),
        ("part", "oom", "ran out of memory; settings known in part"),
    ] {
        let counts = VERDICTS.map(|verdict| count(rows, known, outcome, verdict));
        let all: usize = counts.iter().sum();
        let [fits, tight, exceeds, unknown] = counts;
        let _ = writeln!(out, "| {words} | {all} | {fits} | {tight} | {exceeds} | {unknown} |");
    }
    out
}

/// Runs that ran out of memory and are called `fits`, or of which nothing is said.
pub(crate) fn missed(rows: &[Judged]) -> String {
    let missed =
        rows.iter().filter(|r| r.outcome == "oom" && matches!(r.verdict.as_str(), "fits" | "unknown"));
    missed.map(|r| format!("`{}` ({})", r.id, r.verdict)).collect::<Vec<_>>().join(", ")
}
