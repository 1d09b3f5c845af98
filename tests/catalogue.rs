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
    assert!(ids.len() >= 500 && configs.len() >= 200);
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
        "someone/Llama-3.1-8B",
        "meta-llama/Llama-9-8B",
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

#[test]
fn a_quantised_upload_says_so_in_its_architecture() {
    let quantized = |id: &str| resolve(id).ok().and_then(|r| r.architecture.quantized);
    assert!(quantized("unsloth/Meta-Llama-3.1-8B-bnb-4bit").is_some());
    assert!(quantized("TheBloke/Llama-2-7B-GPTQ").is_some());
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
    let (mut found, mut public, mut missing) = (0, 0, Vec::new());
    for id in table.lines().skip(1).filter_map(|line| line.split('\t').next()) {
        let names_a_hub_model = !id.starts_with(['/', '.', '~', '$']) && !id.starts_with("models/");
        let resolved = resolve(id);
        public += usize::from(names_a_hub_model);
        if resolved.is_ok() {
            found += 1;
        } else if names_a_hub_model {
            missing.push(id);
        }
    }
    println!("{found} of {public} resolve; not: {}", missing.join(", "));
    assert!(found * 100 >= public * 75, "{found} of {public}");
}
