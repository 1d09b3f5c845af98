//! Settings that LLM Foundry refuses.

use super::Checked;
use super::refusals::{Extend, Refusals};
use crate::declare_rule;
use crate::finding::{Finding, Severity};

declare_rule! {
    /// ## What it does
    ///
    /// Finds settings that LLM Foundry stops on: a global batch that the GPUs do not divide, mixed
    /// initialisation without FSDP, tensor parallelism without a strategy, of a Hugging Face
    /// model or of experts, heads that do not divide the width, ALiBi and rotary positions at
    /// once. It warns where a micro-batch is larger than the batch of a GPU.
    ///
    /// ## Why
    ///
    /// Each is an exception when training starts.
    ///
    /// ## Example
    ///
    /// ```yaml title="mpt.yaml" mark="global_train_batch_size: >100<"
    /// max_seq_len: 2048
    /// model:
    ///   name: mpt_causal_lm
    ///   d_model: 1024
    ///   n_heads: 16
    ///   n_layers: 24
    ///   expansion_ratio: 4
    ///   max_seq_len: 2048
    ///   vocab_size: 50368
    /// tokenizer: { name: EleutherAI/gpt-neox-20b }
    /// train_loader: { name: text, dataset: { local: data, max_seq_len: 2048 }, drop_last: true, num_workers: 8 }
    /// optimizer: { name: decoupled_adamw, lr: 3.0e-4 }
    /// scheduler: { name: cosine_with_warmup, t_warmup: 100ba }
    /// precision: amp_bf16
    /// max_duration: 4800ba
    /// eval_interval: 0
    /// global_train_batch_size: 100
    /// device_train_microbatch_size: 4
    /// fsdp_config: { sharding_strategy: FULL_SHARD, mixed_precision: PURE }
    /// ```
    ///
    /// ```console
    /// $ llmlint mpt.yaml --gpu A100-80GB --gpus 8
    /// ```
    ///
    /// ## The fix
    ///
    /// The message names the settings; change one.
    ///
    /// ```diff title="mpt.yaml"
    /// -global_train_batch_size: 100
    /// +global_train_batch_size: 96
    /// ```
    LlmFoundryRefuses, "llm-foundry-refuses", Error, "LLM Foundry stops on these settings"
}

impl LlmFoundryRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some("llm-foundry")) = (file.root, file.framework.map(|f| f.name())) else { return };
        let root = root.get("parameters").filter(|v| v.is_mapping()).unwrap_or(root);
        let mut r = Refusals { rule: Self::NAME, root, findings };
        batches(file, &mut r);
        model(&mut r);
        tensor_parallel(&mut r);
    }
}

fn batches(file: &Checked<'_>, r: &mut Refusals<'_, '_>) {
    let gpus = file.run.and_then(|run| run.parallelism.gpus.as_ref()).map(|g| g.value);
    let (Some((global, at)), Some(gpus)) = (r.count("global_train_batch_size"), gpus) else { return };
    if global % gpus != 0 {
        r.refuse(
            at,
            format!("a global batch of {global} is no multiple of {gpus} GPUs"),
            "LLM Foundry raises ValueError.",
        );
    } else if let Some((micro, beside)) = r.count("device_train_microbatch_size")
        && micro > global / gpus
    {
        r.warn(
            beside,
            format!("a micro-batch of {micro} is more than a GPU's {} sequences a step", global / gpus),
            "LLM Foundry takes the smaller of the two.",
        )
        .beside(at, "the global batch")
        .severity = Severity::Note;
    }
}

fn model(r: &mut Refusals<'_, '_>) {
    if let Some(("mixed", at)) = r.text("model.init_device")
        && r.get("fsdp_config").is_none_or(|v| v.is_null())
    {
        r.refuse(
            at,
            "mixed initialisation needs FSDP",
            "LLM Foundry raises NotImplementedError without `fsdp_config`.",
        );
    }
    if let (Some((width, at)), Some((heads, beside))) = (r.count("model.d_model"), r.count("model.n_heads")) {
        if width % heads != 0 {
            r.refuse(
                at,
                format!("a width of {width} is no multiple of {heads} heads"),
                "MPT raises ValueError.",
            )
            .beside(beside, "the heads");
        }
        if let Some((groups, at)) = r.count("model.attn_config.kv_n_heads")
            && heads % groups != 0
        {
            r.refuse(
                at,
                format!("{heads} heads are no multiple of {groups} key/value heads"),
                "MPT raises ValueError.",
            )
            .beside(beside, "the heads");
        }
    }
    if let (Some(at), Some(beside)) = (r.on("model.attn_config.alibi"), r.on("model.attn_config.rope")) {
        r.refuse(at, "ALiBi and rotary positions at once", "MPT raises ValueError; keep one.")
            .beside(beside, "rotary");
    }
}

fn tensor_parallel(r: &mut Refusals<'_, '_>) {
    let Some(config) = r.get("tp_config").filter(|v| v.is_mapping()) else { return };
    for key in ["strategy", "tensor_parallel_degree"] {
        if config.get(key).is_none() {
            r.refuse(config, format!("`tp_config` needs `{key}`"), "LLM Foundry raises ValueError.");
        }
    }
    if let Some((name, at)) = r.text("model.name")
        && name.starts_with("hf_")
    {
        r.refuse(
            config,
            "Hugging Face models have no tensor parallelism here",
            "LLM Foundry raises ValueError.",
        )
        .beside(at, "the model");
    }
    if let Some((kind, at)) = r.text("model.ffn_config.ffn_type")
        && kind.contains("moe")
    {
        r.refuse(config, "experts do not go with tensor parallelism", "LLM Foundry raises ValueError.")
            .beside(at, "experts");
    }
}
