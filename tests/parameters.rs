//! Parameter counts to the last parameter.
//!
//! `data/parameter-counts.jsonl` holds, for 156 public models, the dimensions as their `config.json`
//! has them and the number of parameters of the module that transformers 5.23 builds from them.
//! The shared tables, where they are present, check every other sum of the inventory too.

#![allow(clippy::print_stdout, reason = "a skipped table and the tallies are said aloud")]

use llmlint::catalog::Architecture;
use llmlint::memory::parameters::{Inventory, LinearKind, lora};
use llmlint::run::LoraTargets;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;

type Config = Map<String, Value>;

/// The shared data, or `None` (said aloud) where this checkout has none.
fn shared(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LLMLINT_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = root.join(path);
    if !path.exists() {
        println!("SKIPPED: {} is absent; set LLMLINT_SHARED", path.display());
        return None;
    }
    Some(path)
}

fn inventory(config: &Config) -> Inventory {
    let architecture = Architecture::from_config(config).unwrap_or_else(|why| panic!("{why}: {config:?}"));
    Inventory::of(&architecture).unwrap_or_else(|why| panic!("{why}: {config:?}"))
}

fn own_table() -> Vec<(String, Config, u64)> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parameter-counts.jsonl");
    std::fs::read_to_string(path)
        .expect("the table is part of the project")
        .lines()
        .map(|line| {
            let row: Value = serde_json::from_str(line).expect("a JSON object a line");
            let config = row["config"].as_object().cloned().expect("a config");
            (row["model"].as_str().unwrap_or_default().to_owned(), config, row["total"].as_u64().unwrap_or(0))
        })
        .collect()
}

/// Rows of a CSV file as maps; no field of these tables holds a quoted comma that we read.
fn csv(path: &PathBuf) -> Vec<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).expect("readable");
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split(',').collect();
    lines
        .map(|line| names.iter().map(|n| (*n).to_owned()).zip(line.split(',').map(str::to_owned)).collect())
        .collect()
}

#[derive(Default)]
struct Tally {
    exact: usize,
    wrong: Vec<String>,
}

impl Tally {
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over what they computed")]
    fn check<T: PartialEq + std::fmt::Debug>(&mut self, what: impl Fn() -> String, got: T, expected: T) {
        if got == expected {
            self.exact += 1;
        } else {
            self.wrong.push(format!("{}: got {got:?}, expected {expected:?}", what()));
        }
    }

    fn finish(self, name: &str) {
        println!("{name}: {} exact, {} wrong", self.exact, self.wrong.len());
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

#[test]
fn every_public_model_of_the_own_table_is_exact() {
    let mut tally = Tally::default();
    for (model, config, total) in own_table() {
        tally.check(|| model.clone(), inventory(&config).total(), total);
    }
    tally.finish("totals");
}

#[test]
fn every_column_of_the_shared_table_is_exact() {
    let Some(path) = shared("tables/parameter-counts.csv") else { return };
    let configs: BTreeMap<String, Config> = own_table().into_iter().map(|(m, c, _)| (m, c)).collect();
    let mut tally = Tally::default();
    let rows = csv(&path);
    for row in &rows {
        let model = &row["model"];
        let i = inventory(&configs[model]);
        let mut column = |name: &str, got: u64| {
            let expected = row[name].parse::<u64>().unwrap_or(0);
            tally.check(|| format!("{model}.{name}"), got, expected);
        };
        column("total_params", i.total());
        column("trainable_params", i.total());
        column("embedding_params", i.all_embeddings());
        column("input_embedding_params", i.embedding());
        column("lm_head_tied", u64::from(i.head_is_tied()));
        column("lm_head_counted", i.head());
        column("bias_params", i.biases());
        column("norm_weight_params", i.norm_weights());
        column("expert_params", i.experts());
    }
    println!("{} rows", rows.len());
    tally.finish("columns of parameter-counts.csv");
}

#[test]
fn every_sum_the_estimator_uses_is_exact() {
    let Some(path) = shared("truth/oracle/model_dims.json") else { return };
    let text = std::fs::read_to_string(&path).expect("readable");
    let dims: Map<String, Value> = serde_json::from_str(&text).expect("JSON");
    let configs: BTreeMap<String, Config> = own_table().into_iter().map(|(m, c, _)| (m, c)).collect();
    let mut tally = Tally::default();
    for (model, d) in &dims {
        // The module transformers 5 builds for FLAN-T5 ties the head; its checkpoints do not.
        let mut config = configs[model].clone();
        if model.starts_with("flan-t5") {
            config.insert("tie_word_embeddings".into(), true.into());
        }
        let mut seen = vec![("own table", config)];
        let path = path.with_file_name("../model-configs").join(model).join("config.json");
        if path.exists() {
            let text = std::fs::read_to_string(path).expect("readable");
            seen.push(("config.json", serde_json::from_str(&text).expect("JSON")));
        }
        for (from, config) in seen {
            let a = Architecture::from_config(&config).expect("supported");
            let i = Inventory::of(&a).expect("consistent");
            let kinds = i.layer_kinds();
            let mut linears = BTreeMap::new();
            // The last layer of the model stands for all, as in the table.
            let last = kinds.last().map(|k| k.first + k.count);
            for (t, l) in i.linears().filter(|(_, l)| l.kind == LinearKind::Linear) {
                if let llmlint::memory::parameters::Place::Layers { first, count } = t.place
                    && Some(first + count) == last
                {
                    linears.insert(t.module_in_layer().to_owned(), json!([l.input, l.output]));
                }
            }
            for (field, got) in [
                ("n", json!(kinds.iter().map(|k| k.count).sum::<u64>())),
                ("d", json!(a.hidden_size)),
                ("h", json!(a.heads)),
                ("hd", json!(a.head_dim)),
                ("kv", json!(a.kv_heads)),
                ("V", json!(a.vocab_size)),
                ("P", json!(i.total())),
                ("P_layers", json!(i.in_layers())),
                ("P_layer", json!(i.largest_layer())),
                ("P_layer_mm", json!(i.layer_linear_parameters())),
                ("P_emb", json!(i.embedding())),
                ("P_head", json!(i.head())),
                ("tied", json!(u64::from(i.head_is_tied()))),
                ("n_tensors", json!(i.tensor_count())),
                ("biggest", json!(i.largest_tensor())),
                ("P_1d", json!(i.in_vectors())),
                ("P_small", json!(i.parameters_in_tensors_smaller_than(4096))),
                ("adafactor", json!(i.adafactor_rows_and_columns())),
                ("linears", json!(linears)),
                ("window", json!(a.sliding_window.unwrap_or(0))),
            ] {
                tally.check(|| format!("{model}.{field} ({from})"), got, d[field].clone());
            }
            if let (Some(_), Some(sliding)) = (a.sliding_window, d["n_sliding"].as_u64()) {
                tally.check(|| format!("{model}.n_sliding ({from})"), a.sliding_layers, Some(sliding));
            }
        }
    }
    println!("{} models", dims.len());
    tally.finish("sums of model_dims.json");
}

fn targets(text: &str) -> LoraTargets {
    match text {
        "all-linear" => LoraTargets::AllLinear,
        names => LoraTargets::Modules(names.split('+').map(str::to_owned).collect()),
    }
}

#[test]
fn every_adapter_of_the_traced_runs_is_exact() {
    let Some(path) = shared("truth/oracle-grid.csv") else { return };
    let configs: BTreeMap<String, Config> = own_table().into_iter().map(|(m, c, _)| (m, c)).collect();
    let mut tally = Tally::default();
    for row in csv(&path) {
        let file = path.with_file_name("model-configs").join(&row["model"]).join("config.json");
        let config = match std::fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).expect("JSON"),
            Err(_) => configs[&row["model"]].clone(),
        };
        let i = inventory(&config);
        let id = &row["id"];
        let rank: u64 = row["lora_r"].parse().unwrap_or(0);
        let expected = row["trainable_params"].parse::<u64>().unwrap_or(0);
        let trained = if rank == 0 {
            i.total()
        } else {
            lora::adapters(&i, rank, &targets(&row["lora_targets"]), false, &[]).trainable()
        };
        tally.check(|| format!("{id} {} r={rank}", row["model"]), trained, expected);
    }
    tally.finish("trainable parameters of oracle-grid.csv");
}

/// `data/small-models.jsonl`: small models with random dimensions and flags in every family, built
/// by transformers 5.23 and adapted by PEFT 0.21; what they counted.
#[test]
fn random_dimensions_and_flags_are_exact_in_every_family() {
    let path = std::env::var_os("LLMLINT_SMALL_MODELS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/small-models.jsonl"),
        PathBuf::from,
    );
    let text = std::fs::read_to_string(path).expect("the table is part of the project");
    let mut tally = Tally::default();
    let mut adapted = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a JSON object a line");
        for form in ["config", "class_config"] {
            let Some(config) = row[form].as_object() else { continue };
            let a = match Architecture::from_config(config) {
                Ok(a) => a,
                Err(why) => {
                    tally.check(|| format!("{} {form} {config:?}", row["model_type"]), why, String::new());
                    continue;
                }
            };
            let i = Inventory::of(&a).expect("consistent");
            for (field, got) in [
                ("P", i.total()),
                ("P_layers", i.in_layers()),
                ("P_layer", i.largest_layer()),
                ("P_layer_mm", i.layer_linear_parameters()),
                ("P_emb", i.embedding()),
                ("P_head", i.head()),
                ("n_tensors", i.tensor_count()),
                ("biggest", i.largest_tensor()),
                ("P_1d", i.in_vectors()),
                ("P_small", i.parameters_in_tensors_smaller_than(4096)),
                ("adafactor", i.adafactor_rows_and_columns()),
                ("P_quantizable", i.quantizable()),
            ] {
                let Some(expected) = row[field].as_u64() else { continue };
                // The table counts the vision tower's layers among the layers.
                if a.vision.is_some() && field.starts_with("P_layer") {
                    continue;
                }
                tally.check(|| format!("{field} of {form} {config:?}"), got, expected);
            }
            for trial in row["lora"].as_array().into_iter().flatten() {
                let Some(expected) = trial["trainable"].as_u64() else { continue };
                let words = |value: &Value| -> Vec<String> {
                    value.as_array().into_iter().flatten().filter_map(|v| Some(v.as_str()?.into())).collect()
                };
                let targets = match trial["targets"].as_str() {
                    Some(_) => LoraTargets::AllLinear,
                    None => LoraTargets::Modules(words(&trial["targets"])),
                };
                let rank = trial["r"].as_u64().unwrap_or(0);
                let dora = trial["dora"] == true;
                let adapters = lora::adapters(&i, rank, &targets, dora, &words(&trial["save"]));
                adapted += 1;
                tally.check(|| format!("{trial} of {config:?}"), adapters.trainable(), expected);
            }
        }
    }
    println!("{} models, {adapted} adaptations", text.lines().count());
    tally.finish("small models");
}

fn config(value: &Value) -> Config {
    value.as_object().cloned().expect("an object")
}

#[test]
fn the_guides_model_has_the_guides_number_of_parameters() {
    let own_names = json!({
        "architecture": "guide_gpt", "vocab_size": 50_000, "d_model": 1024, "d_ff": 4096, "n_heads": 16,
        "n_layers": 24, "max_seq_len": 1024,
    });
    let i = inventory(&config(&own_names));
    assert_eq!(i.total(), 354_336_768);
    assert_eq!(i.norms(), 24 * 2 * 2 * 1024);
    assert_eq!(i.head(), 0);
}

#[test]
fn bad_configs_are_refused_with_the_field_named() {
    let base = json!({
        "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "intermediate_size": 96, "vocab_size": 100,
    });
    for (key, value, word) in [
        ("hidden_size", json!(0), "hidden_size"),
        ("hidden_size", json!(-4), "hidden_size"),
        ("hidden_size", json!("4096"), "hidden_size"),
        ("hidden_size", json!(1.5), "hidden_size"),
        ("hidden_size", json!(u64::MAX), "hidden_size"),
        ("hidden_size", json!(null), "hidden_size"),
        ("hidden_size", json!(2), "attention heads"),
        ("num_attention_heads", json!(0), "num_attention_heads"),
        ("num_hidden_layers", json!(1_000_000), "num_hidden_layers"),
        ("attention_bias", json!("yes"), "attention_bias"),
        ("model_type", json!("llamma"), "llamma"),
        ("model_type", json!(null), "model_type"),
    ] {
        let mut c = config(&base);
        c.insert(key.into(), value.clone());
        let why = Architecture::from_config(&c).expect_err(&format!("{key}: {value}"));
        assert!(why.contains(word), "{key}: {value}: {why}");
    }
    let mut huge = config(&base);
    for key in ["hidden_size", "intermediate_size", "vocab_size", "head_dim"] {
        huge.insert(key.into(), json!(1u64 << 28));
    }
    let a = Architecture::from_config(&huge).expect("each dimension may be that large");
    assert!(Inventory::of(&a).is_err());
}

#[test]
fn what_a_config_leaves_out_is_the_class_default_and_said_to_be() {
    let c = config(&json!({"model_type": "mistral", "hidden_size": 4096, "num_hidden_layers": 32}));
    let a = Architecture::from_config(&c).expect("supported");
    assert_eq!((a.kv_heads, a.intermediate_size, a.sliding_window), (8, 14336, Some(4096)));
    assert!(a.defaulted.iter().any(|name| name == "num_key_value_heads"));
    assert_eq!(inventory(&c).total(), 7_241_732_096);
}

#[test]
fn a_target_that_names_nothing_is_reported() {
    let (_, llama, _) = own_table().remove(0);
    let i = inventory(&llama);
    let named = LoraTargets::Modules(vec!["q_proj".into(), "c_attn".into()]);
    let found = lora::adapters(&i, 8, &named, false, &["lm_head".into(), "score".into()]);
    assert_eq!(found.unmatched, ["c_attn", "score"]);
    assert_eq!(found.adapters(), 32 * 8 * (4096 + 4096));
    assert_eq!(found.saved(), 32000 * 4096);
}

/// Every number of every small model replaced by hostile ones: an answer or an error, no panic.
#[test]
fn hostile_dimensions_do_not_panic() {
    fn replace(value: &mut Value, at: &mut usize, with: &Value) {
        match value {
            Value::Number(_) | Value::Bool(_) => {
                if *at == 0 {
                    *value = with.clone();
                }
                *at = at.wrapping_sub(1);
            }
            Value::Object(map) => map.values_mut().for_each(|v| replace(v, at, with)),
            Value::Array(items) => items.iter_mut().for_each(|v| replace(v, at, with)),
            _ => {}
        }
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/small-models.jsonl");
    let text = std::fs::read_to_string(path).expect("the table is part of the project");
    let mut seen = std::collections::BTreeSet::new();
    let mut counted = 0;
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("a JSON object a line");
        if !seen.insert(row["model_type"].to_string()) {
            continue;
        }
        for with in [json!(0), json!(u64::MAX), json!(1 << 28), json!(-1), json!("x"), json!([[]]), json!(60)]
        {
            for position in 0..24 {
                let (mut value, mut at) = (row["config"].clone(), position);
                replace(&mut value, &mut at, &with);
                let Ok(a) = Architecture::from_config(&config(&value)) else { continue };
                let Ok(i) = Inventory::of(&a) else { continue };
                counted += 1;
                let all = LoraTargets::AllLinear;
                let adapters = lora::adapters(&i, u64::MAX, &all, true, &["norm".into()]);
                let _ = (adapters.trainable(), adapters.trained.adafactor_rows_and_columns());
                let _ = (i.layer_kinds(), i.adafactor_rows_and_columns(), i.quantizable());
            }
        }
    }
    println!("{counted} hostile models counted");
}

#[test]
fn vision_language_configs_as_the_hub_has_them_are_read() {
    // The language model's fields at the top, as Qwen wrote them before transformers 5.
    let flat = json!({
        "model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152_064,
        "tie_word_embeddings": false,
        "vision_config": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2, "in_chans": 3},
    });
    let i = inventory(&config(&flat));
    assert_eq!((i.total(), i.language()), (8_292_166_656, 7_615_616_512));

    // Fields equal to the class's defaults left out, the head tied without a word.
    let sparse = json!({
        "model_type": "gemma3",
        "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024},
        "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 1152, "image_size": 896,
            "intermediate_size": 4304, "num_attention_heads": 16, "num_hidden_layers": 27, "patch_size": 14,
            "vision_use_head": false},
    });
    assert_eq!(inventory(&config(&sparse)).total(), 4_300_079_472);
}

#[test]
fn what_a_low_bit_load_quantises_is_the_linear_layers_but_the_head() {
    let rows: BTreeMap<String, Config> = own_table().into_iter().map(|(m, c, _)| (m, c)).collect();
    let quantised = |model: &str| inventory(&rows[model]).quantizable();
    assert_eq!(quantised("llama-2-7b"), 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008));
    // `Conv1D` too.
    assert_eq!(quantised("gpt2"), 12 * 12 * 768 * 768);
    // Routed experts are no linear layers.
    assert_eq!(quantised("mixtral-8x7b"), 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024));
    // `wo` stays in fp32: six attentions of four projections, and `wi`, an encoder and decoder layer.
    assert_eq!(quantised("t5-small"), 6 * (12 * 512 * 512 + 2 * 512 * 2048));
}
