//! Microseconds of one estimate: `cargo bench --bench estimate`.

#[path = "../tests/accuracy/native.rs"]
#[allow(dead_code, reason = "shared with the accuracy suite")]
mod native;

use llmlint::catalog::Architecture;

fn main() {
    divan::main();
}

/// A Llama of `layers` layers, as in Llama 3.1.
fn llama(layers: u64, hidden: u64, intermediate: u64, heads: u64) -> Architecture {
    let config = serde_json::json!({
        "model_type": "llama", "num_hidden_layers": layers, "hidden_size": hidden,
        "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": 8,
        "vocab_size": 128256, "tie_word_embeddings": false,
    });
    let serde_json::Value::Object(config) = config else { unreachable!("an object") };
    Architecture::from_config(&config).expect("a known family")
}

fn run(training: &str, parallelism: &str, architecture: &Architecture) -> i64 {
    let text =
        format!("{{ llmlint: 1, model: {{ id: x }}, training: {training}, parallelism: {parallelism} }}");
    native::estimate_native(&text, architecture).expect("an estimate").device.0
}

#[divan::bench]
fn full_8b() -> i64 {
    let training = "{ micro_batch_size: 2, sequence_length: 4096, activation_checkpointing: full }";
    run(training, "{ gpus: 1 }", &llama(32, 4096, 14336, 32))
}

#[divan::bench]
fn qlora_8b() -> i64 {
    let training = "{ method: qlora, lora: { rank: 16 }, micro_batch_size: 2, sequence_length: 4096 }";
    run(training, "{ gpus: 1 }", &llama(32, 4096, 14336, 32))
}

#[divan::bench]
fn fsdp_70b() -> i64 {
    let training = "{ weights: fp32, compute: bf16, micro_batch_size: 1, sequence_length: 4096, activation_checkpointing: full }";
    run(training, "{ gpus: 64, data_parallel: fsdp }", &llama(80, 8192, 28672, 64))
}
