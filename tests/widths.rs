//! What people read on a terminal stays within its width, and within ASCII where that is asked
//! for. Two exceptions: a path is never broken where a snippet names it, so that it can be
//! clicked; and `--format narrated` writes one sentence a line, which a screen reader wants whole.
#![allow(clippy::expect_used, missing_docs, reason = "a test")]

mod common;

use common::{llmlint, root};

const FOLDERS: [&str; 7] = [
    "fixtures/axolotl",
    "fixtures/llama-factory",
    "fixtures/native",
    "fixtures/torchtitan",
    "fixtures/rules/heads-not-divisible-by-tensor-parallel",
    "fixtures/rules/deepspeed-conflicts-with-trainer",
    "fixtures/rules/unknown-key",
];

const RUNS: [&str; 5] = [
    "fixtures/axolotl/full-flash.yaml",
    "fixtures/llama-factory/full-ds3.yaml",
    "fixtures/native/llama-3.1-8b-full-8gpu.yaml",
    "fixtures/torchtitan/llama3-70b-2024.toml",
    "fixtures/axolotl/qlora-70b.yml",
];

/// Every output for people, with the arguments that make it.
fn outputs(extra: &[&str]) -> Vec<(String, String)> {
    let budget = ["--gpu", "RTX-4090", "--gpus", "8"];
    let mut commands: Vec<Vec<&str>> = vec![
        [&["check"][..], &FOLDERS, &budget].concat(),
        [&["explain", "--ranks"][..], &RUNS, &budget].concat(),
        [&["diff", "fixtures/axolotl", "fixtures/native"][..], &budget].concat(),
        [&["diff", RUNS[0], RUNS[4]][..], &budget].concat(),
        vec!["gpus"],
        vec!["models", "llama"],
        vec!["rules"],
    ];
    // The search takes its time in a debug build.
    commands.extend(RUNS.iter().take(2).map(|run| [&["fit", run][..], &budget].concat()));
    let show = |command: Vec<&str>| {
        let ran = llmlint(root(), &[&command[..], extra].concat());
        assert!(ran.code < 2, "{command:?}: {}", ran.stderr);
        (command.join(" "), ran.stdout)
    };
    commands.into_iter().map(show).collect()
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [40, 60, 80, 100] {
        for (command, text) in outputs(&["--width", &width.to_string()]) {
            let snippet = |line: &str| line.trim_start().starts_with("╭─[");
            for line in text.lines().filter(|line| !snippet(line)) {
                let columns = line.chars().count();
                assert!(columns <= width, "{command} at {width}: {columns} columns: {line}");
            }
        }
    }
}

#[test]
fn ascii_is_ascii_in_every_output() {
    for (command, text) in outputs(&["--ascii", "--width", "80"]) {
        let others: String = text.chars().filter(|c| !c.is_ascii()).collect();
        assert_eq!(others, "", "{command}");
    }
}
