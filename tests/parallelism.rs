//! What parallel runs keep beside their shares: communicators, ZeRO++'s copies, what ranks exchange,
//! and what a node's host holds.
#![allow(clippy::expect_used, clippy::panic, missing_docs, reason = "a test")]

mod common;

use common::{llmlint, root};
use llmlint::check::{Context, check_bytes};
use llmlint::document::Syntax;
use llmlint::memory::{self, parameters::Inventory};
use llmlint::run::{DataParallel, Setting};
use serde_json::Value;

const GIB: f64 = 1_073_741_824.0;

/// The estimate of a run of Llama 3 8B with these lines of `training` and `parallelism`.
fn estimate(training: &str, parallelism: &str) -> Value {
    of_model("{ id: meta-llama/Llama-3.1-8B }", training, parallelism)
}

fn of_model(model: &str, training: &str, parallelism: &str) -> Value {
    of_text(&format!(
        "llmlint: 1\nmodel: {model}\ntraining: {{ micro_batch_size: 1, sequence_length: 4096, \
         attention: flash, activation_checkpointing: full{training} }}\nparallelism: {{ {parallelism} }}\n"
    ))
}

fn of_text(text: &str) -> Value {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("run.yaml");
    std::fs::write(&path, text).expect("written");
    let ran = llmlint(root(), &["explain", "--format", "json", path.to_str().expect("text")]);
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|e| panic!("{e}: {}", ran.stderr));
    let found = find(&answer, "allocated_bytes").cloned();
    found.unwrap_or_else(|| panic!("no estimate: {}", ran.stdout))
}

/// The first object that has `key`.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
    match value {
        Value::Object(fields) if fields.contains_key(key) => Some(value),
        Value::Object(fields) => fields.values().find_map(|v| find(v, key)),
        Value::Array(items) => items.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

/// Entries whose name begins so, and their bytes.
fn entries(estimate: &Value, name: &str) -> Vec<f64> {
    let list = estimate["ledger"].as_array().or_else(|| estimate["entries"].as_array()).expect("entries");
    let named = list.iter().filter(|e| e["name"].as_str().is_some_and(|n| n.starts_with(name)));
    named.map(|e| e["bytes"].as_f64().expect("bytes")).collect()
}

fn number(estimate: &Value, key: &str) -> f64 {
    estimate[key].as_f64().unwrap_or_else(|| panic!("no {key}"))
}

#[test]
fn each_process_group_has_a_communicator_outside_the_allocator() {
    let mib = 1_048_576.0;
    let fsdp = estimate("", "gpus: 8, data_parallel: fsdp");
    assert_eq!(entries(&fsdp, "NCCL"), [688.0 * mib], "one dimension is the world's own group");
    let zero = estimate("", "gpus: 2, data_parallel: zero2");
    assert_eq!(entries(&zero, "NCCL"), [544.0 * mib; 2], "DeepSpeed clones the world's group");
    let hybrid = estimate("", "gpus: 16, data_parallel: hsdp, shard_group: 8");
    assert_eq!(entries(&hybrid, "NCCL"), [688.0 * mib, 544.0 * mib, 688.0 * mib]);
    let outside: f64 = entries(&hybrid, "NCCL").iter().sum::<f64>() + entries(&hybrid, "CUDA context")[0];
    let beyond = number(&hybrid, "device_bytes") - number(&hybrid, "reserved_bytes");
    assert!((beyond - outside).abs() < 2.0, "the device figure has them, the allocator's has not");
    let megatron = ", model_code: megatron, weights: bf16, gradients: fp32";
    let model_parallel =
        estimate(megatron, "gpus: 64, tensor: 8, pipeline: 4, data_parallel: megatron-distributed");
    assert_eq!(entries(&model_parallel, "NCCL").len(), 4, "data, tensor, pipeline, and all ranks");
    let experts = |gpus: u64| {
        let spread = format!("gpus: {gpus}, expert: {gpus}, data_parallel: fsdp");
        entries(&of_model("{ id: Qwen/Qwen3-30B-A3B }", "", &spread), "NCCL: expert")
    };
    assert_eq!(experts(8), [7.0 * 0.44e9], "a buffer for each peer of the host");
    assert_eq!(experts(64), [7.0 * 0.44e9 + 512.0 * mib], "one for all others");
}

#[test]
fn zero_plus_plus_keeps_a_second_shard_and_quantised_buffers() {
    let stage3 = "gpus: 32, data_parallel: zero3";
    let plain = estimate("", &format!("{stage3}, zero: {{}}"));
    let second = estimate("", &format!("{stage3}, zero: {{ zero_hpz_partition_size: 8 }}"));
    let shard = entries(&second, "second shard of the weights");
    assert_eq!(shard, [2.0 * 8_030_261_248.0 / 8.0]);
    assert!((number(&second, "allocated_bytes") - number(&plain, "allocated_bytes") - shard[0]).abs() < 64e6);
    let on_host = "zero: { zero_hpz_partition_size: 8 }, offload: { parameters: cpu }";
    let offloaded = estimate("", &format!("{stage3}, {on_host}"));
    assert!(entries(&offloaded, "second shard").is_empty(), "it lies where the weights lie");
    let eight = estimate("", &format!("{stage3}, zero: {{ zero_quantized_weights: true }}"));
    assert_eq!(entries(&eight, "weights gathered in 8 bits"), [128_256.0 * 4096.0]);
    let gradients = "zero: { zero_quantized_gradients: true }";
    let four = estimate("", &format!("{stage3}, {gradients}"));
    assert_eq!(entries(&four, "a gradient in 4 bits"), [128_256.0 * 4096.0]);
    let one_node = estimate("", &format!("gpus: 8, data_parallel: zero3, {gradients}"));
    assert!(entries(&one_node, "a gradient in 4 bits").is_empty(), "within a node nothing is quantised");
    let kept = estimate("", &format!("{stage3}, zero: {{ stage3_param_persistence_threshold: 4096 }}"));
    assert_eq!(entries(&kept, "parameters that stay gathered"), [2.0 * 65.0 * 4096.0], "norms");
}

#[test]
fn a_host_holds_pinned_gradients_and_masters_of_all_its_ranks() {
    let cpu = estimate("", "gpus: 8, data_parallel: zero3, offload: { optimizer: cpu }");
    let parameters = 8_030_261_248.0;
    let host = number(&cpu, "host_bytes");
    // 18 bytes a parameter; pinned blocks are rounded up to powers of two.
    assert!(host > 18.0 * parameters && host < 19.5 * parameters, "{} GiB", host / GIB);
    assert!(entries(&cpu, "shard of the gradients").is_empty(), "they are where the optimizer is");
    let nvme = estimate(
        "",
        "gpus: 8, data_parallel: zero3, offload: { optimizer: nvme }, zero: { sub_group_size: 1e8 }",
    );
    assert!(number(&nvme, "host_bytes") < 0.35 * host, "buffers of a sub-group, and gradients");
    let replicas = estimate(", weights: fp32, compute: bf16", "gpus: 8, data_parallel: ddp");
    assert_eq!(number(&replicas, "host_loading_bytes"), 8.0 * 4.0 * parameters);
    let one = estimate(", weights: fp32, compute: bf16", "gpus: 8, data_parallel: ddp, one_loads: true");
    assert_eq!(number(&one, "host_loading_bytes"), 0.0);
}

#[test]
fn tokens_between_experts_are_counted_and_may_be_uneven() {
    let model = "{ id: mistralai/Mixtral-8x7B-v0.1 }";
    let spread = "gpus: 8, data_parallel: fsdp, expert: 8";
    let even = of_model(model, "", spread);
    assert_eq!(entries(&even, "tokens on their way"), [4.0 * 4096.0 * 2.0 * 4096.0]);
    let above = |estimate: &Value| {
        let causes = find(estimate, "causes").expect("causes")["causes"].as_array().expect("a list");
        let cause = causes.iter().find(|c| c.to_string().contains("expert imbalance"));
        cause.map(|c| find(c, "above_bytes").expect("above")["above_bytes"].as_f64().expect("bytes"))
    };
    let free = above(&even).expect("an interval cause");
    let capped = of_model(model, "", &format!("{spread}, expert_capacity: 1.25"));
    let capped = above(&capped).expect("an interval cause");
    assert!((capped / free - 0.25 / 0.72).abs() < 0.01, "a capacity bounds it");
    let no_slack = of_model(model, "", &format!("{spread}, expert_capacity: 1.0"));
    assert_eq!(above(&no_slack), None);
}

#[test]
fn keys_and_values_count_where_they_are_more_than_the_mlp_gave_back() {
    // As many key heads as query heads, a narrow MLP.
    let model = "{ architecture: llama, num_hidden_layers: 4, hidden_size: 4096, intermediate_size: 4096, \
                 num_attention_heads: 32, vocab_size: 32000 }";
    let megatron = ", model_code: megatron, weights: bf16, gradients: fp32";
    let ring = "gpus: 8, context: 8, data_parallel: megatron-distributed";
    let tokens = 4096.0 / 8.0;
    let found = entries(&of_model(model, megatron, ring), "keys, values and their gradients");
    assert_eq!(found, [tokens * 4096.0 * (2.0 + 20.0 - 4.0)]);
    let gathered = of_model(model, megatron, &format!("{ring}, context_exchange: all-gather"));
    assert_eq!(entries(&gathered, "keys, values"), [tokens * 4096.0 * (8.0 * 8.0 - 4.0)]);
    let wide = estimate(megatron, ring);
    assert!(entries(&wide, "keys, values").is_empty(), "Llama 3's MLP held more");
}

#[test]
fn stages_differ_by_schedule_and_by_what_the_ends_count_for() {
    let titan = ", model_code: torchtitan, weights: fp32, compute: bf16, gradient_accumulation_steps: 8";
    let stages = "gpus: 8, data_parallel: fsdp, pipeline: 4, shard_group: 2, fsdp: { reshard_after_forward: false, \
                  deferred_reduction: true }";
    let run = |more: &str| estimate(titan, &format!("{stages}{more}"));
    let ranks = |estimate: &Value| {
        let list = estimate["ranks"].as_array().expect("ranks");
        list.iter().map(|r| r["allocated_bytes"].as_f64().expect("bytes")).collect::<Vec<_>>()
    };
    let plain = run("");
    assert_eq!(ranks(&plain).len(), 4);
    let kept = entries(&plain, "gathered weights, kept over all micro-batches");
    assert_eq!(kept.len(), 1, "a stage gives no weights back before its last micro-batch");
    let lighter = run(", embedding_counts_for: 2, head_counts_for: 2");
    assert!(ranks(&lighter)[0] < ranks(&plain)[0] && ranks(&lighter)[1] > ranks(&plain)[1]);
    let all = run(", schedule: afab");
    assert!(ranks(&all)[3] > ranks(&plain)[3], "every micro-batch is in flight");
    let folded = run(", schedule: zero-bubble-v");
    assert!(ranks(&folded)[0] > ranks(&folded)[3], "embedding and head are on the first rank");
}

/// What is certain of a run's states is never more than what is estimated for all of it.
#[test]
fn the_floor_lies_below_every_estimate() {
    let context = Context { working_directory: root().into(), ..Context::default() };
    let mut compared = 0;
    for folder in ["fixtures/native", "fixtures/axolotl", "fixtures/llama-factory", "fixtures/torchtitan"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("a folder").flatten() {
            let shown = format!("{folder}/{}", entry.file_name().to_string_lossy());
            let Some(syntax) = Syntax::of_path(&shown) else { continue };
            let bytes = std::fs::read(entry.path()).expect("a file");
            let Some(file) = check_bytes(&shown, bytes, syntax, true, &context) else { continue };
            let (Some(mut run), Some(architecture)) = (file.run, file.architecture) else { continue };
            let all = Inventory::of(&architecture).expect("its tensors");
            for stage in STAGES {
                run.parallelism.data_parallel.value = stage;
                run.parallelism.gpus = Some(Setting::assumed(8, "a test"));
                let Ok(estimate) = memory::estimate(&run, &architecture) else { continue };
                let floor = memory::floor(&run, all.total(), all.language()).expect("a floor");
                let (least, most) = (floor.total(), estimate.allocated);
                assert!(least <= most, "{shown}, {stage:?}: {least} over {most}");
                compared += 1;
            }
        }
    }
    assert!(compared > 100, "{compared} compared");
}

const STAGES: [DataParallel; 6] = [
    DataParallel::None,
    DataParallel::Ddp,
    DataParallel::Fsdp,
    DataParallel::Zero1,
    DataParallel::Zero2,
    DataParallel::Zero3,
];

#[test]
fn a_number_of_parameters_alone_gives_a_floor_and_no_estimate() {
    let folder = tempfile::tempdir().expect("a folder");
    let of = |model: &str, training: &str, parallelism: &str| -> Value {
        let path = folder.path().join("run.yaml");
        let text = format!(
            "llmlint: 1\nmodel: {model}\ntraining: {{ {training} }}\nparallelism: {{ {parallelism} }}\n\
             budget: {{ gpu: A100-80GB-SXM4 }}\n"
        );
        std::fs::write(&path, text).expect("written");
        let ran = llmlint(folder.path(), &["explain", "--format", "json", "run.yaml"]);
        serde_json::from_str::<Value>(&ran.stdout).expect("JSON")["files"][0].clone()
    };
    let per_parameter = |file: &Value| file["floor"]["bytes"].as_f64().expect("a floor") / 5e9;
    let known = "{ parameters: 5e9 }";
    let single = of(known, "weights: bf16", "gpus: 1");
    assert_eq!((per_parameter(&single), &single["verdict"]), (8.0, &"unknown".into()));
    assert!(single["estimate"].is_null());
    let wide = of(known, "weights: fp32", "gpus: 4");
    assert_eq!((per_parameter(&wide), &wide["verdict"]), (16.0, &"unknown".into()));
    // 2 of weights; 2 of gradients, 4 of masters and 8 of moments among the ranks.
    let zero = of(known, "weights: bf16", "gpus: 4, data_parallel: zero2");
    assert_eq!(per_parameter(&zero), 2.0 + 14.0 / 4.0);
    let offloaded = of(known, "weights: bf16", "gpus: 4, data_parallel: zero2, offload: { optimizer: cpu }");
    assert_eq!(per_parameter(&offloaded), 2.0);
    // Of adapters nothing is known but that they are small.
    let adapted = of(known, "method: qlora", "gpus: 1");
    assert_eq!(per_parameter(&adapted), 0.5625);
    // A name that is found nowhere, with its size beside it.
    let named = of("{ id: our-lab/base-6b, parameters: 6e9 }", "weights: fp32", "gpus: 1");
    assert_eq!(named["verdict"], "exceeds", "{named}");
}

#[test]
fn generation_gathers_what_the_engine_gathers() {
    let rollout = |key: &str| format!(", target_length: 1024, rollout: {{ sequences: 8{key} }}");
    let whole = |run: &Value| entries(run, "whole weights, gathered to generate");
    let zero = estimate(&rollout(""), "gpus: 8, data_parallel: zero3");
    assert_eq!(whole(&zero), [2.0 * 8_030_261_248.0], "every parameter in the compute dtype");
    assert_eq!(zero["phase"], "evaluation", "which is more than a step of one sequence takes");
    let wide =
        estimate(&format!(", weights: fp32, compute: bf16{}", rollout("")), "gpus: 8, data_parallel: zero3");
    assert_eq!(whole(&wide), whole(&zero), "DeepSpeed casts");
    let alone = |run: &Value| entries(run, "gathered weights of a forward alone");
    let apart = estimate(&rollout(", gather_for_generation: false"), "gpus: 8, data_parallel: zero3");
    assert!(whole(&apart).is_empty() && !alone(&apart).is_empty(), "as in any other forward");
    let fsdp = estimate(&rollout(""), "gpus: 8, data_parallel: fsdp");
    assert!(whole(&fsdp).is_empty(), "layers come and go under FSDP");
    assert!(alone(&fsdp)[0] < 4.0 * GIB, "embedding, head and one layer");
    let served = estimate(&rollout(", generator: elsewhere"), "gpus: 8, data_parallel: zero3");
    assert!(whole(&served).is_empty() && alone(&served).is_empty());
}

#[test]
fn models_beside_the_policy_are_shared_out_like_it() {
    let with = |keys: &str| format!(", rollout: {{ generator: elsewhere, {keys} }}");
    let model = "value_model: meta-llama/Llama-3.2-1B, reward_model: meta-llama/Llama-3.2-1B";
    let value = |run: &Value| entries(run, "value model")[0] / 1_235_814_400.0;
    let two = estimate(&with(model), "gpus: 8, data_parallel: zero2");
    assert!((value(&two) - (2.0 + 14.0 / 8.0)).abs() < 0.01, "whole weights; the rest in parts");
    assert_eq!(entries(&two, "reward model"), [2.0 * 1_235_814_400.0]);
    let three = estimate(&with(model), "gpus: 8, data_parallel: zero3");
    assert!((value(&three) - 16.0 / 8.0).abs() < 0.01);
    let apart =
        estimate(&with(&format!("{model}, value_model_apart: true")), "gpus: 8, data_parallel: zero3");
    let saved = |run: &Value| entries(run, "inputs of the checkpointed layers").len();
    assert_eq!((saved(&three), saved(&apart)), (2, 1), "one backward through both, or two");
}

#[test]
fn whole_gradients_wait_in_the_dtype_they_are_reduced_in() {
    let run = |reduce: &str| {
        let fsdp =
            format!("gpus: 8, data_parallel: fsdp, fsdp: {{ version: 2, deferred_reduction: true{reduce} }}");
        entries(&estimate(", gradient_accumulation_steps: 2", &fsdp), "whole gradients")[0]
    };
    assert_eq!(run(""), 2.0 * 8_030_261_248.0, "bf16 weights without a policy of their own");
    assert_eq!(run(", reduce: fp32"), 4.0 * 8_030_261_248.0, "MixedPrecisionPolicy(reduce_dtype=fp32)");
}

#[test]
fn megatrons_fsdp_keeps_masters_and_buffers() {
    let run = |fsdp: &str| {
        let states = ", weights: bf16, master_weights: true, gradients: fp32, optimizer_state: fp32";
        estimate(states, &format!("gpus: 8, data_parallel: fsdp, fsdp: {{ version: 2, reduce: fp32{fsdp} }}"))
    };
    let kept = run(", kept_buffers: all");
    assert_eq!(entries(&kept, "shard of the fp32 master weights"), [4.0 * 8_030_261_248.0 / 8.0]);
    let layer = 218_112_000.0;
    assert_eq!(entries(&kept, "two buffers of a layer's"), [6.0 * 2.0 * layer]);
    // Embedding, head and last norm.
    let root = 8_030_261_248.0 - 32.0 * layer;
    assert_eq!(entries(&kept, "gathered weights"), [2.0 * root]);
    assert_eq!(entries(&kept, "the root group's gradients"), [4.0 * root]);
    assert!(entries(&run(""), "two buffers").is_empty());
}

#[test]
fn hooks_of_frozen_fsdp1_units_hold_inputs_and_gradients() {
    // Traced: PEFT's wrapping, two ranks, 15.31 GB and 22.29 GB; inside the units 13.73 GB.
    let peak = |batch: u32, around: bool| {
        let model = "{ id: mistralai/Mistral-7B-v0.1 }";
        let text = format!(
            "llmlint: 1\nmodel: {model}\ntraining: {{ micro_batch_size: {batch}, sequence_length: 4096, method: lora, \
             lora: {{ rank: 16, targets: [q_proj, k_proj, v_proj, o_proj], dropout: 0.1 }}, \
             activation_checkpointing: full, reentrant_checkpointing: true }}\nparallelism: {{ gpus: 2, data_parallel: fsdp, \
             fsdp: {{ version: 1, reduce: bf16, checkpoints_around_units: {around} }} }}\n"
        );
        number(&of_text(&text), "allocated_bytes") / 1e9
    };
    for (got, traced) in [(peak(2, true), 15.31), (peak(4, true), 22.29), (peak(2, false), 13.73)] {
        assert!((got / traced - 1.0).abs() < 0.01, "{got:.2} GB, traced {traced}");
    }
}
