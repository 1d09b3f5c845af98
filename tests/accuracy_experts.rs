//! Adapters over models of experts, against traced steps.
//!
//! transformers 5.23 and PEFT 0.21 keep experts as one tensor a projection: PEFT forms W + B·A of a
//! whole stack, bitsandbytes a 16-bit copy of one that is stored in 4 bits. Each row is a real step
//! on PyTorch's real allocator over the stub CUDA runtime (torch 2.15, bitsandbytes 0.50), 8 layers
//! with made-up dimensions.

use llmlint::check::{Context, check_bytes};
use llmlint::document::Syntax;

const MIXTRAL: &str = "{model_type: mixtral, hidden_size: 1024, intermediate_size: 2048, num_attention_heads: 16, \
    num_key_value_heads: 4, head_dim: 64, vocab_size: 16000, max_position_embeddings: 8192, \
    tie_word_embeddings: false, num_local_experts: 8, num_experts_per_tok: 2, num_hidden_layers: 8}";

const QWEN3_MOE: &str = "{model_type: qwen3_moe, hidden_size: 1024, intermediate_size: 2048, \
    moe_intermediate_size: 512, num_attention_heads: 16, num_key_value_heads: 4, head_dim: 128, vocab_size: 16000, \
    max_position_embeddings: 8192, tie_word_embeddings: false, num_experts: 32, num_experts_per_tok: 4, \
    decoder_sparse_step: 1, num_hidden_layers: 8}";

const ALL: &str = "all-linear";
const QV: &str = "[q_proj, v_proj]";

/// Model, quantisation, experts quantised too, autocast with fp32 adapters, targets, checkpointing,
/// micro batch, tokens, trained parameters, peak allocated in bytes.
type Row = (&'static str, &'static str, bool, bool, &'static str, &'static str, u64, u64, u64, u64);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    (MIXTRAL, "none", false, false, ALL, "none", 2, 512, 14_615_552, 2_485_170_176),
    (MIXTRAL, "none", false, true, ALL, "full", 2, 512, 14_615_552, 1_358_059_008),
    (MIXTRAL, "none", false, true, ALL, "full", 8, 1024, 14_615_552, 2_830_983_168),
    (MIXTRAL, "nf4-double", false, true, ALL, "full", 2, 512, 14_615_552, 1_320_720_896),
    (MIXTRAL, "nf4-double", true, true, QV, "none", 4, 1024, 425_984, 3_334_995_968),
    (MIXTRAL, "nf4-double", false, true, QV, "full", 4, 1024, 425_984, 1_759_260_672),
    (QWEN3_MOE, "none", false, false, ALL, "none", 2, 512, 24_383_488, 2_647_228_416),
    (QWEN3_MOE, "none", false, true, ALL, "full", 2, 512, 24_383_488, 1_559_888_384),
    (QWEN3_MOE, "none", false, true, ALL, "full", 8, 1024, 24_383_488, 2_990_804_992),
    (QWEN3_MOE, "nf4-double", false, true, ALL, "full", 2, 512, 24_383_488, 1_489_322_496),
    (QWEN3_MOE, "nf4-double", true, true, QV, "none", 4, 1024, 589_824, 3_582_664_704),
    (QWEN3_MOE, "nf4-double", false, true, QV, "full", 4, 1024, 589_824, 1_772_703_744),
];

#[test]
fn adapters_on_and_beside_stacked_experts_need_what_was_traced() {
    for (model, quantization, experts, wide, targets, checkpointing, batch, tokens, trained, peak) in ROWS {
        let method = if *quantization == "none" { "lora" } else { "qlora" };
        let dtype = if *wide { "fp32" } else { "bf16" };
        let text = format!(
            "llmlint: 1\nmodel: {{config: {model}}}\ntraining: {{method: {method}, \
             lora: {{rank: 16, targets: {targets}, dtype: {dtype}}}, weights: bf16, compute: bf16, \
             autocast: {wide}, quantization: {quantization}, quantized_experts: {experts}, \
             micro_batch_size: {batch}, sequence_length: {tokens}, \
             activation_checkpointing: {checkpointing}}}\n"
        );
        let report = check_bytes("run.yaml", text.clone().into(), Syntax::Yaml, true, &Context::default());
        let report = report.expect("a native file");
        let estimate = report.estimate.unwrap_or_else(|| panic!("{text}\n{:?}", report.unknown));
        assert_eq!(estimate.parameters.trainable, *trained, "{text}");
        let error = estimate.allocated.0 as f64 / *peak as f64 - 1.0;
        assert!(error.abs() < 0.02, "{:.2} % off\n{text}", 100.0 * error);
    }
}

const AXOLOTL: &str = "base_model: mistralai/Mixtral-8x7B-v0.1\nload_in_4bit: true\nadapter: qlora\nlora_r: 32\n\
    lora_alpha: 16\nlora_target_linear: true\nsequence_len: 4096\nsample_packing: true\nmicro_batch_size: 1\n\
    gradient_checkpointing: true\nflash_attention: true\nbf16: true\ndatasets: [{path: a/b, type: alpaca}]\n";

#[test]
fn experts_in_16_bits_are_a_cause_of_the_interval_where_no_release_is_named() {
    let of = |text: &str| {
        let report = check_bytes("run.yaml", text.into(), Syntax::Yaml, true, &Context::default());
        report.expect("an Axolotl file").estimate.expect("an estimate")
    };
    let open = of(AXOLOTL);
    // Collected module names do not name experts that are one tensor: attention alone is adapted.
    assert_eq!(open.parameters.trainable, 27_262_976);
    assert!(open.device.gib() > 85.0, "{}", open.device);
    assert!(open.device_interval.low.gib() < 32.0, "{}", open.device_interval.low);
    let quantised = of(&format!("{AXOLOTL}quantize_moe_experts: true\n"));
    assert!(quantised.device.gib() < 35.0, "{}", quantised.device);
    assert!(!quantised.causes.iter().any(|cause| cause.what.contains("16 bits")));
    // Without checkpointing the 16-bit copies of all layers stay, except under kernels that redo them.
    let all = AXOLOTL.replace("gradient_checkpointing: true", "quantize_moe_experts: true");
    let kernels = format!("{all}use_scattermoe: true\n");
    assert!(of(&all).device.gib() > of(&kernels).device.gib() + 80.0);
}
