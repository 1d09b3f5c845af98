//! Which layers are traced: every kind of model that the catalogue can count, in the precisions,
//! attentions and kinds of adapters that people train with. `--nocapture` prints the table.

#![allow(clippy::print_stdout, reason = "the table is read with --nocapture")]

use std::collections::BTreeMap;
use std::path::Path;

use llmlint::check::{Context, check_bytes};
use llmlint::document::Syntax;
use serde_json::{Value, json};

/// What is trained and in what: name, and what the native format says of it.
fn methods() -> Vec<(&'static str, Value)> {
    let lora = |dtype: &str| json!({"rank": 8, "targets": "all-linear", "dtype": dtype});
    let adapted = |dtype: &str, quantization: &str| {
        json!({"method": "lora", "lora": lora(dtype), "weights": "bf16", "compute": "bf16", "autocast": true,
               "quantization": quantization})
    };
    vec![
        ("bf16", json!({"method": "full", "weights": "bf16", "compute": "bf16", "autocast": false})),
        ("bf16 autocast", json!({"method": "full", "weights": "bf16", "compute": "bf16", "autocast": true})),
        ("fp32 autocast", json!({"method": "full", "weights": "fp32", "compute": "bf16", "autocast": true})),
        ("lora", adapted("fp32", "none")),
        ("lora bf16", adapted("bf16", "none")),
        ("qlora", adapted("fp32", "nf4-double")),
        ("lora int8", adapted("fp32", "int8")),
    ]
}

/// Shares of the table that must be traced, in hundredths.
const FLOOR: usize = 95;

#[test]
fn layers_are_traced() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/small-models.jsonl");
    let text = std::fs::read_to_string(path).expect("the rows are part of the project");
    let mut models: BTreeMap<String, Value> = BTreeMap::new();
    for line in text.lines() {
        let row: Value = serde_json::from_str(line).expect("JSON");
        let name = row["model_type"].as_str().unwrap_or_default().to_owned();
        models.entry(name).or_insert_with(|| row["config"].clone());
    }
    let (mut traced, mut all) = (0, 0);
    for (name, config) in &models {
        let mut holes = Vec::new();
        for (method, training) in methods() {
            // Checkpointing changes no attention's answer.
            for (attention, checkpointing) in
                [("sdpa", "none"), ("flash", "none"), ("eager", "none"), ("sdpa", "full")]
            {
                let mut training = training.clone();
                training["attention"] = attention.into();
                training["activation_checkpointing"] = checkpointing.into();
                training["micro_batch_size"] = 1.into();
                training["sequence_length"] = 256.into();
                let text = json!({"llmlint": 1, "model": config, "training": training}).to_string();
                let report = check_bytes("run.json", text.into(), Syntax::Json, true, &Context::default());
                all += 1;
                if report.expect("a native file").estimate.is_some() {
                    traced += 1;
                } else {
                    holes.push(format!("{method}/{attention}/{checkpointing}"));
                }
            }
        }
        if holes.len() > 8 {
            println!("{name:18} {:2} of 28 not traced: {} …", holes.len(), holes[..6].join(", "));
        } else if !holes.is_empty() {
            println!("{name:18} {:2} of 28 not traced: {}", holes.len(), holes.join(", "));
        }
    }
    println!("{traced} of {all} traced");
    assert!(traced * 100 >= FLOOR * all, "only {traced} of {all}");
}
