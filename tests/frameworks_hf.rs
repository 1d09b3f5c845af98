//! The Hugging Face family over real files: LLaMA-Factory, TRL and its relatives, open-instruct,
//! Accelerate, FSDP fragments, autotrain.

#![expect(clippy::print_stdout, reason = "the table is the point")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmlint::check::{Context, FileReport, check_bytes};
use llmlint::document::Syntax;
use llmlint::finding::Severity;
use llmlint::framework::Kind;

fn shared() -> Option<PathBuf> {
    let path = std::env::var_os("LLMLINT_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    if path.join("corpus/manifest.tsv").is_file() {
        return Some(path);
    }
    println!("SKIPPED: no corpus at {}", path.display());
    None
}

/// This crate's name for a framework of the manifest, when it is one of this family.
fn own_name(manifest: &str) -> Option<&'static str> {
    Some(match manifest {
        "llamafactory" => "llama-factory",
        "llamafactory-v1" => "llama-factory-v1",
        "trl" => "trl",
        "open-instruct" => "open-instruct",
        "accelerate" => "accelerate",
        "hf-fsdp-json" => "hf-fsdp-json",
        "autotrain" => "autotrain",
        _ => return None,
    })
}

struct Row {
    config: bool,
    framework: String,
    path: String,
}

fn rows(shared: &std::path::Path) -> Vec<Row> {
    let manifest = std::fs::read_to_string(shared.join("corpus/manifest.tsv")).expect("manifest");
    manifest
        .lines()
        .skip(1)
        .map(|line| {
            let mut cells = line.split('\t');
            Row {
                config: cells.next() == Some("config"),
                framework: cells.next().unwrap_or_default().to_owned(),
                path: cells.next().unwrap_or_default().to_owned(),
            }
        })
        .collect()
}

fn report(shared: &std::path::Path, path: &str) -> Option<FileReport> {
    let file = shared.join("corpus").join(path);
    let bytes = std::fs::read(&file).ok()?;
    let mut context = Context { working_directory: shared.join("corpus"), ..Context::default() };
    context.command_line.gpus = Some(8);
    check_bytes(path, bytes, Syntax::of_path(path)?, false, &context)
}

#[test]
fn findings_and_lowering_over_the_corpus() {
    let Some(shared) = shared() else { return };
    let mut by_rule: BTreeMap<(String, &'static str, Severity), usize> = BTreeMap::new();
    let (mut runs, mut lowered, mut estimated) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(&shared).into_iter().filter(|r| r.config && own_name(&r.framework).is_some()) {
        let Some(report) = report(&shared, &row.path) else { continue };
        for finding in &report.findings {
            *by_rule.entry((row.framework.clone(), finding.rule, finding.severity)).or_default() += 1;
            if std::env::var_os("SHOW").is_some() {
                let position = report.sources[0].position(finding.primary.location.span.start);
                println!(
                    "{}:{}: {:?} {}: {} [{}]",
                    row.path,
                    position.line,
                    finding.severity,
                    finding.rule,
                    finding.message,
                    finding.primary.text
                );
            }
        }
        if report.kind != Kind::Run {
            continue;
        }
        *runs.entry(row.framework.clone()).or_insert(0) += 1;
        *lowered.entry(row.framework.clone()).or_insert(0) += usize::from(report.run.is_some());
        *estimated.entry(row.framework.clone()).or_insert(0) += usize::from(report.estimate.is_some());
        if report.estimate.is_none() {
            for unknown in &report.unknown {
                let why: String = unknown.why.chars().take(90).collect();
                *reasons.entry(format!("{} | {}: {why}", row.framework, unknown.what)).or_default() += 1;
            }
        }
    }
    println!("runs {runs:?}\nlowered {lowered:?}\nestimated {estimated:?}");
    for (key, count) in &by_rule {
        println!("{count:5} {key:?}");
    }
    for (reason, count) in &reasons {
        println!("{count:5} {reason}");
    }
    for (framework, count) in &runs {
        assert_eq!(lowered.get(framework), Some(count), "every {framework} run is lowered");
    }
}

/// Every fixture of the family, lowered: each setting, its value and where it came from.
/// `LLMLINT_UPDATE=1` writes what is kept; read it before keeping it.
#[test]
fn fixtures_are_lowered_as_kept() {
    let root = common::root();
    let mut files = Vec::new();
    for framework in ["llama-factory", "llama-factory-v1", "trl", "open-instruct", "autotrain"] {
        let Ok(entries) = std::fs::read_dir(root.join("fixtures").join(framework)) else { continue };
        files.extend(entries.flatten().map(|e| (framework, e.path())));
    }
    files.retain(|(_, path)| path.extension().is_some_and(|e| e == "yaml" || e == "yml" || e == "json"));
    files.sort();
    assert!(files.len() > 10);
    for (framework, path) in files {
        let relative = path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
        let mut context = Context { working_directory: root.to_owned(), ..Context::default() };
        context.command_line.gpus = Some(8);
        let bytes = std::fs::read(&path).expect("readable");
        let syntax = Syntax::of_path(&relative).expect("a syntax");
        let report = check_bytes(&relative, bytes, syntax, true, &context).expect("recognised");
        assert_eq!(report.framework, Some(framework), "{relative}");
        let run = report.run.as_ref().expect("lowered");
        let mut text = String::new();
        for (name, value, origin) in run.settings() {
            text.push_str(&format!("{name} = {value} ({})\n", origin.describe()));
        }
        for unknown in &report.unknown {
            text.push_str(&format!("unknown {}: {}\n", unknown.what, unknown.why));
        }
        for finding in &report.findings {
            text.push_str(&format!("{} {}\n", finding.rule, finding.message));
        }
        common::assert_kept(&path.with_extension("lowered"), &text);
    }
}
