//! Axolotl and DeepSpeed files: what is said about them, and what run they describe.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the tables are the point")]

mod common;

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

/// Every fixture, lowered: each setting, its value and where it came from. `LLMLINT_UPDATE=1`
/// writes what is kept; read it before keeping it.
#[test]
fn fixtures_are_lowered_as_kept() {
    let root = common::root();
    let folder = root.join("fixtures/axolotl");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("fixtures").flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    assert!(files.len() >= 10);
    for path in files {
        let relative = path.strip_prefix(root).expect("inside").to_string_lossy().replace('\\', "/");
        let text = std::fs::read_to_string(&path).expect("readable");
        let report = check(&relative, &text, root).expect("recognised");
        assert_eq!(report.framework, Some("axolotl"), "{relative}");
        let run = report.run.as_ref().expect("lowered");
        let mut kept = String::new();
        for (name, value, origin) in run.settings() {
            kept.push_str(&format!("{name} = {value} ({})\n", origin.describe()));
        }
        for unknown in &report.unknown {
            kept.push_str(&format!("unknown {}: {}\n", unknown.what, unknown.why));
        }
        for finding in &report.findings {
            kept.push_str(&format!("{} {}\n", finding.rule, finding.message));
        }
        common::assert_kept(&path.with_extension("lowered"), &kept);
    }
}

fn lowered(text: &str, version: Option<&str>) -> llmlint::run::TrainingRun {
    let base = "base_model: Qwen/Qwen3-8B\ndatasets: []\nmicro_batch_size: 1\nlearning_rate: 1e-5\n";
    let source = llmlint::source::Source::new("a.yaml", format!("{base}{text}"));
    let document = llmlint::document::Document::parse(&source, Syntax::Yaml);
    let (framework, _) = llmlint::framework::recognise(&document).expect("recognised");
    let root = document.root(framework.dialect(Syntax::Yaml)).expect("a tree");
    let here = common::root();
    let mut cx = llmlint::framework::Lowering::new(root, &source, here, here);
    cx.declared_version = version.map(str::to_owned);
    framework.lower(&mut cx).expect("lowered")
}

#[test]
fn fsdps_version_follows_the_release_and_decides_what_weights_are_kept_in() {
    use llmlint::run::Dtype;
    let text = "fsdp_config:\n  offload_params: false\n  auto_wrap_policy: TRANSFORMER_BASED_WRAP\n";
    let version = |run: &llmlint::run::TrainingRun| {
        run.parallelism.fsdp.as_ref().map(|fsdp| (fsdp.version.value, run.weights.value))
    };
    assert_eq!(version(&lowered(text, None)), Some((2, Dtype::Bf16)));
    assert_eq!(version(&lowered(text, Some("0.18"))), Some((1, Dtype::Fp32)));
}

#[test]
fn auto_buffers_follow_the_models_width() {
    let mut run = lowered("deepspeed: fixtures/deepspeed/zero3_offload.json\n", None);
    let zero = run.parallelism.zero.as_mut().expect("DeepSpeed");
    zero.settle(4096);
    assert_eq!(zero.reduce_bucket.value, 4096 * 4096);
    assert_eq!(zero.prefetch_bucket.value, 15_099_494);
    assert_eq!(zero.persistence_threshold.value, 40_960);
}

#[test]
fn activation_offloading_replaces_recomputing_only_beside_adapters() {
    use llmlint::run::Checkpointing;
    let text = "gradient_checkpointing: true\nactivation_offloading: true\n";
    assert_eq!(lowered(text, None).activation_checkpointing.value, Checkpointing::Full);
    let text = format!("{text}adapter: lora\nlora_r: 8\n");
    assert_eq!(lowered(&text, None).activation_checkpointing.value, Checkpointing::None);
}

#[test]
fn parameters_trained_by_name_are_counted() {
    let file = common::root().join("fixtures/axolotl/named-parameters.yaml");
    let text = std::fs::read(file).expect("fixture");
    let context = llmlint::check::Context::default();
    let report = llmlint::check::check_bytes("a.yaml", text, Syntax::Yaml, true, &context).expect("a run");
    // Three MLP matrices in each of two layers, and the whole embedding: a range masks a gradient
    // that is made in full.
    let trained = report.estimate.expect("estimated").parameters.trainable;
    assert_eq!(trained, 2 * 3 * 1536 * 8960 + 151_936 * 1536);
}

#[test]
fn a_misspelt_model_key_does_not_hide_the_file() {
    let text = "base_modle: a/b\ndatasets: []\nsequence_len: 1\nmicro_batch_size: 1\nnum_epochs: 1\n\
                val_set_size: 0\nadapter: lora\nlora_r: 8\n";
    let named = |text: &str| {
        let source = llmlint::source::Source::new("a.yaml", text);
        let document = llmlint::document::Document::parse(&source, Syntax::Yaml);
        llmlint::framework::recognise(&document).map(|(framework, _)| framework.name())
    };
    assert_eq!(named(text), Some("axolotl"));
    let factory = "model_name: a/b\nstage: sft\nfinetuning_type: lora\ntemplate: qwen\ncutoff_len: 1024\n\
                   do_train: true\n";
    assert_eq!(named(factory), Some("llama-factory"));
    // A fragment of options is nobody's run.
    assert_eq!(named("micro_batch_size: 1\nnum_epochs: 1\nadapter: lora\n"), None);
}
