//! The catalogue: every architecture is counted, every id leads to the right one.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures are read with --nocapture")]

use std::path::{Path, PathBuf};

use llmlint::catalog::Architecture;
use llmlint::catalog::models::{self, Lookup, Provenance};
use llmlint::memory::parameters::Inventory;
use llmlint::run::ModelRef;
use serde_json::{Map, Value, json};

fn resolve(id: &str) -> Result<models::Resolved, models::NotFound> {
    models::resolve(&ModelRef::Id(id.into()), &Lookup::default())
}

fn canonical(id: &str) -> Option<String> {
    match resolve(id).ok()?.provenance {
        Provenance::Catalogue(id) => Some(id),
        _ => None,
    }
}

#[test]
fn every_known_total_is_met_exactly() {
    let (mut exact, mut unverified, mut wrong) = (0, Vec::new(), Vec::new());
    for model in models::all() {
        let config = model.config().unwrap_or_else(|why| panic!("{why}"));
        let counted = Architecture::from_config(&config)
            .and_then(|architecture| Inventory::of(&architecture))
            .map(|inventory| inventory.total());
        match (counted, model.parameters) {
            (Ok(counted), Some(known)) if counted == known => exact += 1,
            (Ok(counted), Some(known)) => wrong.push(format!("{}: {counted} for {known}", model.id)),
            (Ok(counted), None) => unverified.push(format!("{} ({counted})", model.id)),
            (Err(why), _) => wrong.push(format!("{}: {why}", model.id)),
        }
    }
    println!("{exact} exact; {} unverified: {}", unverified.len(), unverified.join(", "));
    assert!(exact >= 275, "only {exact} totals are met");
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn there_is_enough_of_it_and_no_id_twice() {
    let mut ids: Vec<String> = models::all()
        .iter()
        .flat_map(|m| std::iter::once(m.id).chain(m.ids.iter().copied()))
        .map(str::to_ascii_lowercase)
        .collect();
    let configs: std::collections::BTreeSet<String> =
        models::all().iter().filter_map(|m| Some(Value::from(m.config().ok()?).to_string())).collect();
    println!("{} ids, {} distinct configs", ids.len(), configs.len());
    assert!(ids.len() >= 980 && configs.len() >= 380);
    ids.sort();
    let before = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), before);
}

#[test]
fn mirrors_and_framework_spellings_lead_to_the_original() {
    for (spelling, expected) in [
        ("META-LLAMA/llama-3.1-8b", "meta-llama/Llama-3.1-8B"),
        ("unsloth/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("unsloth/Meta-Llama-3.1-8B-bnb-4bit", "meta-llama/Llama-3.1-8B"),
        ("NousResearch/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf"),
        ("TheBloke/Llama-2-7B-GPTQ", "meta-llama/Llama-2-7b-hf"),
        ("unsloth/gpt-oss-20b-BF16", "openai/gpt-oss-20b"),
        ("torchtune:torchtune.models.llama3_1.lora_llama3_1_8b", "meta-llama/Llama-3.1-8B"),
        ("torchtitan:llama3:8B_flex", "meta-llama/Llama-3.1-8B"),
        ("torchtitan:deepseek_v3:16B", "deepseek-ai/DeepSeek-V2-Lite"),
        ("litgpt:EleutherAI/pythia-160m", "EleutherAI/pythia-160m"),
        ("litgpt:pythia-160m", "EleutherAI/pythia-160m"),
        ("checkpoints/EleutherAI/pythia-160m", "EleutherAI/pythia-160m"),
    ] {
        assert_eq!(canonical(spelling).as_deref(), Some(expected), "{spelling}");
    }
}

#[test]
fn a_name_that_could_mean_something_else_is_refused() {
    for name in [
        "meta-llama/Llama-9-8B",
        "someone/Llama-3.1-8B-vision",
        "someone/Llama-3.1-8B-pruned-4B",
        "someone/4x-Llama-3.1-8B-moe",
        "out/model",
        "models/gpt2",
        "Llama",
        "",
        "/",
        "litgpt:",
        "torchtune:x",
        "unsloth/",
    ] {
        assert!(resolve(name).is_err(), "{name}");
    }
    let error = resolve("meta-llama/Llama-3.1-8b-Instrct").expect_err("misspelt");
    assert!(error.near.iter().any(|near| near == "meta-llama/Llama-3.1-8B-Instruct"), "{error:?}");
    assert!(error.why.contains("llmlint.toml"), "{error:?}");
}

/// A public name under another owner, at the end of a path or before training words is followed,
/// and said to be an assumption; an id, a mirror and the hub's cache are facts.
#[test]
fn a_name_alone_is_an_assumption() {
    for (name, expected) in [
        ("/mnt/models/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B-Instruct"),
        ("~/models/deepseek-llm-7b-chat/", "deepseek-ai/deepseek-llm-7b-base"),
        ("outputs/qwen2.5-7b-sft/checkpoint-1200", "Qwen/Qwen2.5-7B"),
        ("someone/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("someone/Llama-3.1-8B-SFT-v0.2", "meta-llama/Llama-3.1-8B"),
        ("someone/Llama-3-8B-Instruct-262k", "meta-llama/Meta-Llama-3-8B"),
        ("someone/Qwen2.5-32B-Instruct-AWQ", "Qwen/Qwen2.5-32B-Instruct"),
    ] {
        let found = resolve(name).unwrap_or_else(|e| panic!("{name}: {e:?}"));
        assert_eq!(found.taken_for, Some(expected), "{name}");
    }
    let cache = "$HOME/.cache/huggingface/hub/models--meta-llama--Meta-Llama-3.1-405B/snapshots/222de0/";
    for fact in
        [cache, "Qwen/Qwen2.5-7B-Instruct-GPTQ-Int4", "unsloth/Qwen2.5-0.5B", "${oc.env:MODEL,Qwen/Qwen3-8B}"]
    {
        assert_eq!(resolve(fact).expect(fact).taken_for, None, "{fact}");
    }
    let shown = explained("llmlint: 1\nmodel:\n  id: /data/Qwen2.5-0.5B\ntraining:\n  method: full\n");
    assert!(shown.contains("Qwen/Qwen2.5-0.5B") && shown.contains("because of its name"), "{shown}");
}

/// What `explain` prints of a run on one card.
fn explained(text: &str) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("run.yaml");
    write(&file, text);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_llmlint"))
        .args(["explain", "--gpu", "H100-80GB", "--gpus", "1"])
        .arg(&file)
        .output()
        .expect("the binary runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_quantised_upload_says_so_in_its_architecture() {
    let quantized = |id: &str| resolve(id).ok().and_then(|r| r.architecture.quantized);
    assert!(quantized("unsloth/Meta-Llama-3.1-8B-bnb-4bit").is_some());
    assert_eq!(quantized("TheBloke/Llama-2-7B-GPTQ").as_deref(), Some("gptq"));
    assert_eq!(quantized("Qwen/Qwen2.5-7B-Instruct-AWQ").as_deref(), Some("awq"));
    assert_eq!(quantized("Qwen/Qwen2.5-7B-Instruct-GPTQ-Int8").as_deref(), Some("gptq"));
    assert_eq!(quantized("unsloth/Meta-Llama-3.1-8B-bnb-8bit").as_deref(), Some("int8"));
    assert_eq!(quantized("unsloth/Meta-Llama-3.1-8B"), None);
}

fn small() -> Map<String, Value> {
    let config = json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "vocab_size": 1000, "max_position_embeddings": 512
    });
    config.as_object().cloned().unwrap_or_default()
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("created");
    std::fs::write(path, text).expect("written");
}

#[test]
fn the_order_of_look_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("repo");
    let hub = dir.path().join("hub");
    let snapshot = hub.join("models--org--cached/snapshots/abc123");
    let config = Value::from(small()).to_string();
    write(&root.join("models/local/config.json"), &config);
    write(&snapshot.join("config.json"), &config);
    write(&hub.join("models--org--cached/refs/main"), "abc123\n");
    write(&dir.path().join("outside/config.json"), &config);
    let mut lookup = Lookup {
        directories: vec![root.join("configs"), root.clone()],
        root: Some(root.clone()),
        cache: Some(hub),
        declared: vec![
            ("org/declared".into(), small()),
            ("org/by-file".into(), Map::from_iter([("config".into(), "models/local/config.json".into())])),
            ("org/lost".into(), Map::from_iter([("config".into(), "models/nowhere.json".into())])),
        ],
        ..Lookup::default()
    };
    let found = |name: &str, lookup: &Lookup| {
        models::resolve(&ModelRef::Id(name.into()), lookup).map(|found| found.provenance)
    };
    assert_eq!(found("Org/Declared", &lookup), Ok(Provenance::Declared));
    assert_eq!(found("org/by-file", &lookup), Ok(Provenance::Declared));
    assert!(found("org/lost", &lookup).is_err_and(|e| e.why.contains("models/nowhere.json")));
    let local = Provenance::LocalDirectory("models/local/config.json".into());
    assert_eq!(found("models/local", &lookup), Ok(local.clone()));
    assert_eq!(found("./models/local/", &lookup), Ok(local));
    assert_eq!(found("org/cached", &lookup), Ok(Provenance::Cache("abc123".into())));
    assert!(found("../outside", &lookup).is_err());
    let outside: PathBuf = dir.path().join("outside");
    assert!(found(&outside.to_string_lossy(), &lookup).is_err());
    // A declaration wins over the catalogue.
    lookup.declared.push(("openai-community/gpt2".into(), small()));
    assert_eq!(found("openai-community/gpt2", &lookup), Ok(Provenance::Declared));
}

#[test]
fn most_ids_seen_in_real_files_resolve() {
    let shared = std::env::var_os("LLMLINT_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let Ok(table) = std::fs::read_to_string(shared.join("tables/model-ids-seen.tsv")) else {
        println!("SKIPPED: {} has no tables/model-ids-seen.tsv", shared.display());
        return;
    };
    let (mut found, mut public, mut missing, mut paths) = (0, 0, Vec::new(), Vec::new());
    for id in table.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let names_a_hub_model = !id.starts_with(['/', '.', '~', '$']) && !id.starts_with("models/");
        let resolved = resolve(id);
        if !names_a_hub_model {
            paths.push(format!("{id}: {}", resolved.map_or("no", |r| r.taken_for.unwrap_or("an id"))));
            continue;
        }
        public += 1;
        match resolved {
            Ok(_) => found += 1,
            Err(why) => missing.push(format!("{id}: {}", why.why.split(';').next().unwrap_or_default())),
        }
    }
    println!("{found} of {public} public ids resolve; not:\n{}", missing.join("\n"));
    println!("{} paths and variables, taken for:\n{}", paths.len(), paths.join("\n"));
    assert!(found * 100 >= public * 94, "{found} of {public}");
}

/// The lists are read in terminals of any width, and by programs.
#[test]
fn lists_fit_the_width_and_show_their_evidence() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_llmlint"))
            .args(arguments)
            .output()
            .expect("the binary runs");
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    for (command, pattern) in [("models", "llama-3.1"), ("models", ""), ("gpus", "a100"), ("gpus", "")] {
        for width in ["60", "80", "120"] {
            let text = run(&[command, pattern, "--width", width]);
            let limit: usize = width.parse().expect("a number");
            let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
            assert!(widest <= limit, "{command} {pattern} is {widest} columns wide at {width}");
            assert!(text.contains("evidence"));
        }
    }
    let models: Value = serde_json::from_str(&run(&["models", "scout", "--format", "json"])).expect("JSON");
    assert_eq!(models[0]["published_parameters"], 108_641_793_536_u64);
    assert_eq!(models[0]["evidence"], "read");
    let gpus: Value = serde_json::from_str(&run(&["gpus", "h100-80gb", "--format", "json"])).expect("JSON");
    assert!(gpus["gpus"][0]["usable_bytes"].is_u64() && gpus["gpus"][0]["source"].is_string());
    let near = run(&["models", "Qwen/Qwen2.5-8B"]);
    assert!(near.contains("Qwen/Qwen2.5-"), "{near}");
}

/// A model with code of its own is estimated with another family's layers, and that is said.
#[test]
fn a_stand_in_is_an_assumption() {
    let stand_in = |id: &str| resolve(id).expect("known").stand_in;
    assert_eq!(stand_in("baichuan-inc/Baichuan-7B"), Some("llama"));
    assert_eq!(stand_in("Qwen/Qwen-7B-Chat"), Some("qwen2"));
    assert_eq!(stand_in("meta-llama/Llama-2-7b-hf"), None);
    let shown = explained("llmlint: 1\nmodel:\n  id: THUDM/chatglm3-6b\ntraining:\n  method: full\n");
    assert!(shown.contains("model.layers") && shown.contains("glm"), "{shown}");
}

/// One card, named in any of the four places, is one budget; a name of several cards is none.
#[test]
fn a_gpu_is_the_same_wherever_it_is_named() {
    let body = "llmlint: 1\nmodel:\n  id: openai-community/gpt2\ntraining:\n  method: full\n";
    let bytes = |name: &str, settings: &str, text: &str, arguments: &[&str]| {
        let dir = tempfile::tempdir().expect("a directory");
        write(&dir.path().join("llmlint.toml"), settings);
        write(&dir.path().join("run.yaml"), text);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_llmlint"))
            .current_dir(dir.path())
            .env_remove("LLMLINT_GPU")
            .args(["explain", "run.yaml", "--format", "json"])
            .args(arguments)
            .output()
            .expect("the binary runs");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|e| panic!("{name}: {e}: {out}"));
        let budget = report["files"][0]["budget"].clone();
        (budget["gpu"].clone(), budget["device_bytes"].clone(), budget["gpus"].clone())
    };
    let table = "[budget]\ngpu = \"A100-80GB\"\ngpus = 2\n";
    let comment = format!("# llmlint: gpu=A100-80GB gpus=2\n{body}");
    let native = format!("{body}budget:\n  gpu: A100-80GB\n  gpus: 2\n");
    let toml = bytes("llmlint.toml", table, body, &[]);
    assert!(toml.1.is_u64(), "{toml:?}");
    assert_eq!(bytes("flags", "", body, &["--gpu", "A100-80GB", "--gpus", "2"]), toml);
    assert_eq!(bytes("comment", "", &comment, &[]), toml);
    assert_eq!(bytes("native", "", &native, &[]), toml);

    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("run.yaml"), body);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_llmlint"))
        .current_dir(dir.path())
        .args(["run.yaml", "--gpu", "a100"])
        .output()
        .expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("A100-40GB") && said.contains("A100-80GB"), "{said}");
}
