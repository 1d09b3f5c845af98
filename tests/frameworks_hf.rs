//! The Hugging Face family over real files: LLaMA-Factory, TRL and its relatives, open-instruct,
//! Accelerate, FSDP fragments, autotrain.

#![expect(clippy::print_stdout, reason = "the table is the point")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;

use llmlint::check::{Context, FileReport, check_bytes};
use llmlint::document::{Document, Syntax};
use llmlint::finding::Severity;
use llmlint::framework::{Kind, Lowering, recognise};
use llmlint::run::{Checkpointing, Dtype, Loss, TrainingRun};
use llmlint::source::Source;

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
        for unknown in report.unknown.iter().filter(|u| u.what != "model") {
            text.push_str(&format!("unknown {}: {}\n", unknown.what, unknown.why));
        }
        for finding in &report.findings {
            text.push_str(&format!("{} {}\n", finding.rule, finding.message));
        }
        common::assert_kept(&path.with_extension("lowered"), &text);
    }
}

/// Lowers text as one framework does, with a declared version.
fn lower(framework: &str, text: &str, version: Option<&str>) -> TrainingRun {
    let source = Source::new("run.yaml", text);
    let document = Document::parse(&source, Syntax::Yaml);
    let (found, kind) = recognise(&document).expect("recognised");
    assert_eq!((found.name(), kind), (framework, Kind::Run));
    let root = document.root(found.dialect(Syntax::Yaml)).expect("a tree");
    let here = std::path::Path::new(".");
    let mut cx = Lowering::new(root, &source, here, here);
    cx.declared_version = version.map(str::to_owned);
    found.lower(&mut cx).expect("lowered")
}

#[test]
fn the_declared_release_of_trl_decides_its_defaults() {
    let text = "model_name_or_path: a/b\ndataset_name: c/d\noutput_dir: out\nlearning_rate: 1.0e-5\n";
    let facts = |version: Option<&str>| {
        let run = lower("trl", text, version);
        (run.activation_checkpointing.value, run.autocast.value, run.loss.value)
    };
    assert_eq!(facts(Some("0.17")), (Checkpointing::None, false, Loss::Full));
    assert_eq!(facts(Some("0.19.1")), (Checkpointing::None, true, Loss::Full));
    assert_eq!(facts(Some("0.22")), (Checkpointing::Full, true, Loss::Full));
    assert_eq!(facts(Some("1.8")), (Checkpointing::Full, true, Loss::Chunked { chunked: 32 }));
    assert_eq!(facts(None), (Checkpointing::Full, true, Loss::Tiled));
}

#[test]
fn a_key_that_a_release_dropped_dates_the_file() {
    let text = "model_name_or_path: a/b\nmax_seq_length: 2048\noutput_dir: out\nlearning_rate: 1.0e-5\n";
    let run = lower("trl", text, None);
    assert_eq!(run.sequence_length.value, 2048);
    assert_eq!(run.activation_checkpointing.value, Checkpointing::None);
    assert!(run.activation_checkpointing.origin.describe().contains("trl 0.19"));
}

#[test]
fn fsdp_with_mixed_precision_raises_trained_weights_to_fp32() {
    let text = "model_name_or_path: a/b\ndtype: bfloat16\noutput_dir: out\nlearning_rate: 1.0e-5\nfsdp: full_shard\n";
    let sharded = lower("trl", text, None);
    assert_eq!((sharded.weights.value, sharded.compute.value), (Dtype::Fp32, Dtype::Bf16));
    let plain = lower("trl", &text.replace("fsdp: full_shard\n", ""), None);
    assert_eq!((plain.weights.value, plain.compute.value), (Dtype::Bf16, Dtype::Bf16));
}

#[test]
fn a_file_of_llama_factory_that_does_not_train_is_none() {
    for text in [
        "model_name_or_path: a/b\ntemplate: qwen3\ninfer_backend: huggingface\n",
        "model_name_or_path: a/b\ntemplate: qwen3\nexport_dir: out\n",
        "model_name_or_path: a/b\nstage: sft\ndo_predict: true\nfinetuning_type: lora\n",
    ] {
        let document = Document::parse(&Source::new("a.yaml", text), Syntax::Yaml);
        let (framework, kind) = recognise(&document).expect("recognised");
        assert_eq!((framework.name(), kind), ("llama-factory", Kind::Other), "{text}");
    }
}
