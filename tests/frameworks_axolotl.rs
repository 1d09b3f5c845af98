//! Axolotl and DeepSpeed files: what is said about them, and what run they describe.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are the point")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llmlint::check::{Context, FileReport, check_bytes};
use llmlint::document::Syntax;

fn corpus() -> Option<PathBuf> {
    let shared = std::env::var_os("LLMLINT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let corpus = shared.join("corpus");
    corpus.join("manifest.tsv").is_file().then_some(corpus)
}

fn check(path: &str, text: &str, directory: &Path) -> Option<FileReport> {
    let mut context = Context { working_directory: directory.to_owned(), ..Context::default() };
    context.command_line.gpus = Some(8);
    let syntax = Syntax::of_path(path)?;
    check_bytes(path, text.as_bytes().to_vec(), syntax, true, &context)
}

#[test]
fn findings_over_the_corpus() {
    let Some(corpus) = corpus() else {
        eprintln!("SKIPPED: no corpus at ../shared/corpus");
        return;
    };
    let manifest = std::fs::read_to_string(corpus.join("manifest.tsv")).unwrap_or_default();
    let (mut runs, mut public, mut estimated) = (0, 0, 0);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut rules: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in manifest.lines().skip(1) {
        let cells: Vec<&str> = line.split('\t').collect();
        let ["config", framework @ ("axolotl" | "deepspeed"), path, ..] = cells.as_slice() else { continue };
        let Ok(text) = std::fs::read_to_string(corpus.join(path)) else { continue };
        let Some(report) = check(path, &text, &corpus) else {
            println!("not recognised: {framework} {path}");
            continue;
        };
        if *framework == "axolotl" {
            runs += 1;
            let known = report.unknown.iter().all(|unknown| unknown.what != "model");
            public += usize::from(known);
            estimated += usize::from(report.estimate.is_some());
            if report.estimate.is_none() {
                for unknown in &report.unknown {
                    *reasons.entry(format!("{}: {}", unknown.what, unknown.why)).or_default() += 1;
                }
            }
        }
        for finding in &report.findings {
            rules
                .entry(format!("{:?} {}", finding.severity, finding.rule))
                .or_default()
                .push(format!("{path}: {} | {} | {:?}", finding.message, finding.primary.text, finding.help));
        }
    }
    println!("axolotl: {runs} runs, {public} with a known model, {estimated} estimated");
    for (reason, count) in &reasons {
        println!("   {count} {}", reason.chars().take(150).collect::<String>());
    }
    for (rule, list) in &rules {
        println!("== {rule}: {}", list.len());
        if std::env::var_os("CORPUS_VERBOSE").is_some() {
            list.iter().for_each(|line| println!("   {line}"));
        }
    }
}
