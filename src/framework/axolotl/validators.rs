//! Axolotl's checks across keys, with the conditions it has. Facts: axolotl 0.21.0
//! `utils/schemas/{validation,config,peft,model}.py`; those on FSDP also 0.18.0.

use super::lower::ATTENTION_FLAGS;
use crate::document::Value;
use crate::framework::refusal::{Checks, Refusal};
use crate::framework::schema::at_least;

pub(super) fn refusals(root: Value<'_>, version: Option<&str>) -> Vec<Refusal> {
    let mut checks = Checks::new(root);
    exclusive(&mut checks);
    adapters(&mut checks);
    data_and_steps(&mut checks);
    sharding(&mut checks, version);
    preference(&mut checks);
    memory(&mut checks);
    without_effect(&mut checks);
    checks.finish()
}

fn exclusive(checks: &mut Checks<'_>) {
    checks.exclusive(
        &["gradient_accumulation_steps", "batch_size"],
        "keep `gradient_accumulation_steps`: `batch_size` follows from it",
    );
    checks.exclusive(&["warmup_steps", "warmup_ratio"], "keep one of the two");
    checks.exclusive(&["save_steps", "saves_per_epoch"], "keep one of the two");
    checks.exclusive(&["eval_steps", "evals_per_epoch"], "keep one of the two");
    checks.exclusive(&["max_memory", "gpu_memory_limit"], "keep one of the two");
    checks.exclusive(&["deepspeed", "fsdp_config"], "keep one of the two: each divides the states by itself");
    checks.exclusive(
        &[
            "cut_cross_entropy",
            "chunked_cross_entropy",
            "liger_cross_entropy",
            "liger_fused_linear_cross_entropy",
        ],
        "keep one; `cut_cross_entropy` or `liger_fused_linear_cross_entropy` saves most memory",
    );
    checks.exclusive(&["model_quantization_config", "load_in_8bit"], "keep one of the two");
    checks.exclusive(&["model_quantization_config", "load_in_4bit"], "keep one of the two");
    checks
        .exclusive(&["val_set_size", "test_datasets"], "keep `test_datasets`, or split with `val_set_size`");
    for (flag, _) in ATTENTION_FLAGS {
        checks.exclusive(&["attn_implementation", flag], "keep `attn_implementation`");
    }
}

fn adapters(checks: &mut Checks<'_>) {
    let adapter = checks.on("adapter");
    let named = adapter.and_then(|v| v.as_str()).unwrap_or_default();
    let four = checks.on("load_in_4bit");
    let eight = checks.on("load_in_8bit");
    if adapter.is_none()
        && checks.on("inference").is_none()
        && let Some(bits) = four.or(eight)
    {
        checks.refuse(
            bits,
            &[],
            "quantised weights cannot be trained without an adapter",
            "set `adapter: qlora` (4 bits) or `adapter: lora` (8 bits), or load without quantisation",
        );
    }
    if let (Some(at), "qlora") = (adapter, named) {
        if let Some(eight) = eight {
            checks.refuse(
                eight,
                &[Some(at)],
                "`adapter: qlora` does not load in 8 bits",
                "use `load_in_4bit: true`, or `adapter: lora`",
            );
        } else if let Some(gptq) = checks.on("gptq") {
            checks.refuse(
                gptq,
                &[Some(at)],
                "`adapter: qlora` does not take GPTQ weights",
                "use `adapter: lora`",
            );
        } else if four.is_none() && !checks.templated(&["load_in_4bit"]) {
            checks.refuse(
                at,
                &[checks.get("load_in_4bit")],
                "`adapter: qlora` needs `load_in_4bit: true`",
                "set `load_in_4bit: true`, or use `adapter: lora`",
            );
        }
    }
    if let (Some(kernel), "lora", Some(eight)) =
        (checks.any(&["lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"]), named, eight)
    {
        checks.refuse(
            kernel,
            &[Some(eight)],
            "LoRA kernels do not work on 8-bit weights",
            "turn the kernels off, or use `adapter: qlora` with `load_in_4bit: true`",
        );
    }
    if let (Some(gptq), Some(revision)) = (checks.on("gptq"), checks.on("revision_of_model")) {
        checks.refuse(
            revision,
            &[Some(gptq)],
            "GPTQ weights cannot be taken from a revision",
            "download that revision and name its folder",
        );
    }
}

fn data_and_steps(checks: &mut Checks<'_>) {
    if checks.on("batch_size").is_some()
        && let Some(batch) = checks.get("batch_size")
        && checks.any(&["micro_batch_size", "gradient_accumulation_steps"]).is_none()
    {
        checks.refuse(
            batch,
            &[],
            "`batch_size` alone does not say how it is cut up",
            "set `micro_batch_size`",
        );
    }
    for stream in ["pretraining_dataset", "streaming"] {
        let Some(at) = checks.on(stream) else { continue };
        if checks.on("max_steps").is_none() && !checks.templated(&["max_steps"]) {
            checks.refuse(
                at,
                &[],
                &format!("`{stream}` has no known length: `max_steps` is needed"),
                "set `max_steps`",
            );
        }
        if let Some(share) = checks.on("val_set_size") {
            checks.refuse(
                share,
                &[Some(at)],
                &format!("`val_set_size` cannot split `{stream}`"),
                "use `test_datasets`",
            );
        }
    }
    evaluation(checks);
    if let Some(patience) = checks.on("early_stopping_patience") {
        let number = |key: &str| checks.on(key).and_then(|v| v.to_float());
        let templated = checks.templated(&["save_steps", "eval_steps"]);
        match (number("save_steps"), number("eval_steps")) {
            (Some(save), Some(eval)) if save % eval == 0.0 => {}
            (Some(_), Some(_)) if !templated => checks.refuse(
                patience,
                &[checks.get("save_steps"), checks.get("eval_steps")],
                "early stopping needs `eval_steps` to divide `save_steps`",
                "make `save_steps` a multiple of `eval_steps`",
            ),
            _ if !templated => checks.refuse(
                patience,
                &[checks.get("saves_per_epoch"), checks.get("evals_per_epoch")],
                "early stopping needs `save_steps` and `eval_steps`",
                "set both, with `eval_steps` dividing `save_steps`",
            ),
            _ => {}
        }
    }
    for dataset in checks.get("datasets").into_iter().flat_map(|list| list.items()) {
        if let Some(kind) = dataset.get("type")
            && kind.as_str().is_some_and(|name| name.starts_with("sharegpt"))
        {
            checks.refuse_since(
                "0.5",
                kind,
                "Axolotl no longer reads `type: sharegpt`",
                "use `type: chat_template` with `field_messages: conversations`",
            );
        }
    }
    if let Some(format) = checks.get("save_safetensors").filter(|v| v.to_bool() == Some(false)) {
        checks.refuse_since("0.14", format, "weights are always saved as safetensors", "delete the key");
    }
}

fn evaluation(checks: &mut Checks<'_>) {
    let strategy = checks.get("eval_strategy");
    let word = strategy.and_then(|v| v.as_str());
    let none = checks.get("val_set_size").filter(|v| v.to_float() == Some(0.0));
    let asked = checks.on("eval_steps").or_else(|| checks.on("eval_strategy"));
    if let (Some(share), Some(asked)) = (none, asked)
        && checks.on("test_datasets").is_none()
        && word != Some("no")
    {
        checks.refuse(
            asked,
            &[Some(share)],
            "there is nothing to evaluate on: `val_set_size` is 0",
            "delete it, or set `val_set_size` or `test_datasets`",
        );
    }
    let Some(strategy) = strategy.filter(|_| word.is_some_and(|word| word != "steps")) else { return };
    for key in ["eval_steps", "evals_per_epoch"] {
        if let Some(steps) = checks.on(key) {
            checks.refuse(
                strategy,
                &[Some(steps)],
                &format!("`{key}` needs `eval_strategy: steps`"),
                "delete `eval_strategy`",
            );
        }
    }
}

fn sharding(checks: &mut Checks<'_>, version: Option<&str>) {
    let fsdp = checks.on("fsdp_config").filter(|v| v.is_mapping());
    let deepspeed = checks.on("deepspeed");
    let optimizer = checks.on("optimizer");
    let named = optimizer.and_then(|v| v.as_str()).unwrap_or_default();
    if let (Some(fsdp), Some(optimizer)) = (fsdp, optimizer) {
        if version_2(checks, fsdp, version) {
            if matches!(named, "adamw_8bit" | "adamw_bnb_8bit") {
                checks.refuse(
                    optimizer,
                    &[Some(fsdp)],
                    &format!("FSDP2 does not work with `{named}`"),
                    "use `adamw_torch_8bit`",
                );
            }
        } else if named.contains("8bit")
            && let Some(offload) = checks
                .on("fsdp_config.offload_params")
                .or_else(|| checks.on("fsdp_config.fsdp_offload_params"))
        {
            checks.refuse(
                optimizer,
                &[Some(offload)],
                "an 8-bit optimizer cannot step on offloaded weights under FSDP1",
                "use `adamw_torch`, or do not offload",
            );
        }
    }
    if let (Some(optimizer), Some(deepspeed)) = (optimizer, deepspeed)
        && (matches!(named, "muon" | "muon_8bit" | "q_galore_adamw8bit") || named.starts_with("flash_"))
    {
        checks.refuse(
            optimizer,
            &[Some(deepspeed)],
            &format!("`{named}` does not work under DeepSpeed"),
            "use FSDP2, or another optimizer",
        );
    }
    if let (Some(optimizer), Some(adapter), "q_galore_adamw8bit") = (optimizer, checks.on("adapter"), named) {
        checks.refuse(
            optimizer,
            &[Some(adapter)],
            "Q-GaLore trains full weights, not adapters",
            "use another optimizer",
        );
    }
    // Until 0.19 only the `fsdp` list counted.
    let newest = version.is_none_or(|version| at_least(version, "0.20"));
    let asked = if newest { fsdp } else { checks.on("fsdp") };
    if let (Some(fsdp), Some(model)) = (asked, checks.on("base_model"))
        && model.as_str().is_some_and(|name| name.to_ascii_lowercase().contains("falcon"))
    {
        checks.refuse(fsdp, &[Some(model)], "Axolotl does not run Falcon under FSDP", "use DeepSpeed");
    }
    let above_one = |v: &Value<'_>| v.to_int().is_some_and(|n| n > 1);
    let tensor = checks.on("tensor_parallel_size").filter(above_one);
    let context = checks
        .on("context_parallel_size")
        .filter(above_one)
        .or_else(|| checks.on("sequence_parallel_degree").filter(above_one));
    if let (Some(optimizer), Some(tensor)) = (optimizer, tensor)
        && matches!(named, "paged_adamw_8bit" | "adamw_8bit" | "adamw_bnb_8bit")
    {
        checks.refuse(
            optimizer,
            &[Some(tensor)],
            &format!("`{named}` does not work with tensor parallelism"),
            "use `adamw_torch_fused`",
        );
    }
    if let Some(context) = context
        && let Some(eager) = checks
            .on("eager_attention")
            .or_else(|| checks.on("attn_implementation").filter(|v| v.as_str() == Some("eager")))
    {
        checks.refuse(
            eager,
            &[Some(context)],
            "context parallelism does not work with eager attention",
            "use `attn_implementation: flash_attention_2`",
        );
    }
}

fn version_2(checks: &Checks<'_>, fsdp: Value<'_>, version: Option<&str>) -> bool {
    let written = checks
        .get("fsdp_version")
        .or_else(|| fsdp.get("fsdp_version"))
        .or_else(|| fsdp.get("version"))
        .and_then(|v| v.to_int());
    let newest = version.is_none_or(|declared| at_least(declared, "0.20"));
    match written {
        Some(number) => number == 2,
        // The list belongs to releases where 1 was the default.
        None => newest && checks.get("fsdp").is_none(),
    }
}

fn preference(checks: &mut Checks<'_>) {
    let Some(rl) = checks.on("rl") else { return };
    let name = rl.as_str().unwrap_or_default();
    if let Some(packing) = checks.on("sample_packing") {
        checks.refuse(
            packing,
            &[Some(rl)],
            "`sample_packing` does not work with `rl`",
            "delete `sample_packing`",
        );
    }
    let columns = checks.get("remove_unused_columns");
    if name == "kto" && columns.is_none_or(|v| v.to_bool() != Some(false)) {
        checks.refuse(
            rl,
            &[columns],
            "KTO needs `remove_unused_columns: false`",
            "set `remove_unused_columns: false`",
        );
    }
    let fsdp = checks.on("fsdp_config");
    if let (Some(fsdp), Some(bits)) = (fsdp, checks.any(&["load_in_4bit", "load_in_8bit"]))
        && matches!(name, "dpo" | "kto" | "orpo" | "ipo")
    {
        checks.refuse(
            bits,
            &[Some(fsdp), Some(rl)],
            "quantised weights do not work with preference training under FSDP2",
            "use DeepSpeed",
        );
    }
    for key in ["dpo_loss_type", "dpo_loss_weights"] {
        if let Some(loss) = checks.get(key).filter(|_| name != "dpo") {
            checks.refuse(loss, &[Some(rl)], &format!("`{key}` is for `rl: dpo` only"), "delete it");
        }
    }
    if matches!(name, "grpo" | "gdpo")
        && let Some(number) = checks.get("trl.num_generations").filter(|v| v.to_int().is_some_and(|n| n < 2))
    {
        checks.refuse(
            number,
            &[Some(rl)],
            "GRPO compares answers: `num_generations` must be at least 2",
            "set `num_generations` to 2 or more",
        );
    }
}

fn memory(checks: &mut Checks<'_>) {
    let recompute = checks.on("gradient_checkpointing");
    for key in ["activation_offloading", "selective_checkpointing"] {
        if let Some(at) = checks.on(key).filter(|_| recompute.is_none()) {
            checks.refuse(
                at,
                &[checks.get("gradient_checkpointing")],
                &format!("`{key}` needs `gradient_checkpointing`"),
                "set `gradient_checkpointing: true`",
            );
        }
    }
    if let (Some(selective), Some(offload)) =
        (checks.on("selective_checkpointing"), checks.on("activation_offloading"))
        && offload.as_str() != Some("hidden_states")
    {
        checks.refuse(
            selective,
            &[Some(offload)],
            "selective checkpointing works with `activation_offloading: hidden_states` only",
            "use `hidden_states`, or turn one of the two off",
        );
    }
    if let (Some(fused), Some(adapter)) = (checks.on("flash_attn_fuse_mlp"), checks.on("adapter"))
        && matches!(adapter.as_str(), Some("lora" | "qlora"))
    {
        checks.refuse(
            fused,
            &[Some(adapter)],
            "fused modules do not work with LoRA",
            "delete `flash_attn_fuse_mlp`",
        );
    }
}

/// Keys that are read by nobody in this combination.
fn without_effect(checks: &mut Checks<'_>) {
    if let (Some(four), Some(adapter)) = (checks.on("load_in_4bit"), checks.on("adapter"))
        && adapter.as_str() == Some("lora")
        && checks.on("load_in_8bit").is_none()
    {
        checks.no_effect(
            four,
            &[Some(adapter)],
            "`load_in_4bit` has no effect with `adapter: lora`: weights are loaded in 16 bits",
            "use `adapter: qlora`",
        );
    }
    let listed = |part: &str| {
        checks.get("plugins").is_some_and(|list| {
            list.items().any(|item| item.as_str().is_some_and(|name| name.contains(part)))
        })
    };
    let missing: Vec<(&str, &str)> = PLUGIN_KEYS
        .iter()
        .filter(|(plugin, _, keys)| {
            !listed(plugin) && !checks.templated(&["plugins"]) && checks.any(keys).is_some()
        })
        .map(|(plugin, path, _)| (*plugin, *path))
        .collect();
    for (plugin, path) in missing {
        let keys = PLUGIN_KEYS.iter().find(|(name, ..)| *name == plugin).map_or(&[][..], |(_, _, keys)| keys);
        if let Some(at) = checks.any(keys) {
            let key = keys.iter().find(|key| checks.on(key).is_some()).copied().unwrap_or_default();
            checks.no_effect(
                at,
                &[checks.get("plugins")],
                &format!("`{key}` has no effect: the plugin it belongs to is not listed"),
                &format!("add `{path}` to `plugins`"),
            );
        }
    }
}

/// What a plugin's path contains, the path, and the memory-relevant keys that are read by it.
const PLUGIN_KEYS: &[(&str, &str, &[&str])] = &[
    (
        "liger",
        "axolotl.integrations.liger.LigerPlugin",
        &[
            "liger_fused_linear_cross_entropy",
            "liger_cross_entropy",
            "liger_glu_activation",
            "liger_swiglu",
            "liger_rms_norm",
            "liger_layer_norm",
            "liger_rope",
        ],
    ),
    (
        "cut_cross_entropy",
        "axolotl.integrations.cut_cross_entropy.CutCrossEntropyPlugin",
        &["cut_cross_entropy"],
    ),
];
