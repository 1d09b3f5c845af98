//! LLM Foundry's training files: YAML read by OmegaConf, alone or under `parameters:` of an mcli
//! file. MPT models are spelled out, Hugging Face ones are named.

use serde_json::{Map, Value as Json};

use super::baseline::{count, plain};
use super::lowering::here;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, Step};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, FsdpOptions, Lora, LoraTargets, Loss, Method,
    ModelCode, ModelRef, Offload, Optimizer, OptimizerImplementation, Origin, Setting, TrainingRun,
};

/// LLM Foundry.
pub struct LlmFoundry;

const RELEASE: &str = "llm-foundry 0.22";

impl Framework for LlmFoundry {
    fn name(&self) -> &'static str {
        "llm-foundry"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::OmegaConf
    }

    /// Composer recipes for images have a train loader and micro-batches too; a language model
    /// has a sequence length or a tokenizer.
    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let root = parameters(root);
        let loader = root.get("train_loader").is_some_and(|v| v.is_mapping());
        let model = root.get("model").filter(Value::is_mapping)?;
        let batches = ["device_train_microbatch_size", "global_train_batch_size", "max_duration"]
            .iter()
            .any(|key| root.get(key).is_some_and(|v| v.text().is_some()));
        let language = root.get("max_seq_len").is_some()
            || root.get("tokenizer").is_some_and(|v| v.is_mapping())
            || root.get("tokenizer_name").is_some()
            || ["d_model", "pretrained_model_name_or_path"].iter().any(|key| model.get(key).is_some());
        (loader && batches && language).then_some(Kind::Run)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../schemas/llm-foundry.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let nested = root.get("parameters").is_some_and(|v| v.is_mapping());
        let own = |key: &str| if nested { format!("parameters.{key}") } else { key.to_owned() };
        let file = File { root: parameters(root) };
        let fsdp = file.root.get("fsdp_config").is_some_and(|v| v.is_mapping());
        let one = |key: &str, value: serde_json::Value| Some(vec![Step::Set(own(key), value)]);
        match change {
            // Accumulation follows from the global batch.
            Change::MicroBatch { size, .. } => one("device_train_microbatch_size", size.into()),
            Change::Checkpoint if fsdp => one("fsdp_config.activation_checkpointing", true.into()),
            Change::Shard(DataParallel::Fsdp) if fsdp => {
                one("fsdp_config.sharding_strategy", "FULL_SHARD".into())
            }
            Change::SequenceLength(length) if run.sequence_length.origin.location().is_some() => {
                one("max_seq_len", length.into())
            }
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let root = parameters(cx.root);
        let file = File { root };
        let (model, mpt) = model(cx, root)?;
        let micro = micro_batch(root);
        let sequence = file.written("max_seq_len", count).unwrap_or_else(|| {
            cx.missing("sequence length", "set `max_seq_len`", None);
            Setting::assumed(0, "missing")
        });
        let code = if mpt { ModelCode::LlmFoundry } else { ModelCode::Transformers };
        let mut run = plain(RELEASE, model, code, micro, sequence);
        run.parallelism.gpus = file_gpus(cx.root).or_else(|| cx.declared_gpus.clone());
        precision(file, &mut run);
        sharding(file, &mut run);
        optimizer(file, &mut run);
        activations(file, &mut run, mpt);
        lora(file, &mut run);
        if let (Some(global), Some(gpus)) =
            (file.written("global_train_batch_size", count), &run.parallelism.gpus)
        {
            let a_pass = gpus.value.saturating_mul(run.micro_batch_size.value).max(1);
            run.gradient_accumulation_steps = global.map(|n| (n / a_pass).max(1));
        }
        run.gradient_clipping = file
            .written("algorithms.gradient_clipping.clipping_threshold", |v| v.to_float().map(Some))
            .unwrap_or_else(|| default(None));
        if root.get("eval_loader").is_some_and(|v| v.is_mapping() || v.is_sequence()) {
            run.eval_batch_size = file.written("device_eval_batch_size", count);
        }
        Some(run)
    }
}

fn default<T>(value: T) -> Setting<T> {
    Setting::default_of(value, RELEASE)
}

/// What training reads of an mcli file.
fn parameters(root: Value<'_>) -> Value<'_> {
    root.get("parameters").filter(Value::is_mapping).unwrap_or(root)
}

/// Reads the training part wherever it stands.
#[derive(Clone, Copy)]
struct File<'a> {
    root: Value<'a>,
}

impl<'a> File<'a> {
    fn written<T>(self, key: &str, read: impl FnOnce(Value<'a>) -> Option<T>) -> Option<Setting<T>> {
        let value = self.root.path(key)?;
        read(value).map(|v| Setting::written(v, here(value)))
    }

    fn or<T>(self, key: &str, read: impl FnOnce(Value<'a>) -> Option<T>, otherwise: T) -> Setting<T> {
        self.written(key, read).unwrap_or_else(|| default(otherwise))
    }
}

/// `compute.gpus` of an mcli file.
fn file_gpus(root: Value<'_>) -> Option<Setting<u64>> {
    let value = root.path("compute.gpus").or_else(|| root.get("gpu_num"))?;
    count(value).map(|n| Setting::written(n, here(value)))
}

fn micro_batch(root: Value<'_>) -> Setting<u64> {
    let value = root.get("device_train_microbatch_size");
    if let Some(setting) = value.and_then(|v| count(v).map(|n| Setting::written(n, here(v)))) {
        return setting;
    }
    // Composer halves it until it fits, down to one.
    Setting::assumed(1, "`auto` searches for what fits; one sequence is the least that it comes down to")
}

/// The model, and whether it is MPT.
fn model(cx: &mut Lowering<'_>, root: Value<'_>) -> Option<(Setting<ModelRef>, bool)> {
    let table = root.get("model")?;
    let name = table.get("name").and_then(|v| v.as_str()).unwrap_or_default();
    if name.starts_with("mpt") || table.get("d_model").is_some() {
        if let Some(ffn) =
            table.path("ffn_config.ffn_type").filter(|v| v.as_str().is_some_and(|s| s.contains("moe")))
        {
            cx.missing("model", "MPT's mixture of experts is not modelled", Some(here(ffn)));
            return None;
        }
        let place = table.get("d_model").or_else(|| table.get("name")).unwrap_or(table);
        return Some((Setting::written(ModelRef::Config(mpt(table, root)), here(place)), true));
    }
    let Some(id) = table.get("pretrained_model_name_or_path") else {
        cx.missing("model", "`model.pretrained_model_name_or_path` is missing", Some(here(table)));
        return None;
    };
    let text = id.as_str()?.to_owned();
    let overrides = match table.get("config_overrides").filter(Value::is_mapping).and_then(|v| v.to_json()) {
        Some(Json::Object(map)) if !map.is_empty() => Some(map),
        _ => None,
    };
    let model = match overrides {
        Some(map) => ModelRef::IdWith(text, map),
        None => ModelRef::Id(text),
    };
    Some((Setting::written(model, here(id)), false))
}

/// MPTConfig in Hugging Face's names. Without ALiBi or rotary it is GPT-2: learned positions,
/// biases, tied embeddings.
fn mpt(table: Value<'_>, root: Value<'_>) -> Map<String, Json> {
    let number = |key: &str, otherwise: u64| table.path(key).and_then(count).unwrap_or(otherwise);
    let flag = |key: &str, otherwise: bool| table.path(key).and_then(|v| v.as_bool()).unwrap_or(otherwise);
    let hidden = number("d_model", 2048);
    let heads = number("n_heads", 16);
    let ratio = table.get("expansion_ratio").and_then(|v| v.to_float()).unwrap_or(4.0);
    let (alibi, rope) = (flag("attn_config.alibi", false), flag("attn_config.rope", false));
    let kv_heads = number("attn_config.kv_n_heads", heads);
    let gated = table.path("ffn_config.ffn_type").and_then(|v| v.as_str()) == Some("mptglu");
    let plain = !alibi && !rope && !flag("no_bias", false) && kv_heads == heads && !gated;
    let family = if gated {
        "llama"
    } else if plain {
        "gpt2"
    } else {
        "mpt"
    };
    let mut config = Map::new();
    let mut set = |key: &str, value: Json| {
        config.insert(key.to_owned(), value);
    };
    set("model_type", family.into());
    set("hidden_size", hidden.into());
    set("num_hidden_layers", number("n_layers", 24).into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", kv_heads.into());
    set("intermediate_size", number("ffn_config.ffn_hidden_size", (ratio * hidden as f64) as u64).into());
    set("vocab_size", number("vocab_size", 50368).into());
    let positions = table.get("max_seq_len").or_else(|| root.get("max_seq_len")).and_then(count);
    set("max_position_embeddings", positions.unwrap_or(2048).into());
    set("tie_word_embeddings", flag("tie_word_embeddings", true).into());
    if family == "mpt" {
        set("expansion_ratio", Json::from(ratio as u64));
        set("attn_config", serde_json::json!({ "alibi": alibi }));
    }
    config
}

/// Composer keeps fp32 weights, gradients and states; the forward runs under autocast, and FSDP
/// gathers in 16 bit unless `mixed_precision: FULL`.
fn precision(file: File<'_>, run: &mut TrainingRun) {
    let compute = file.or(
        "precision",
        |v| match v.as_str()? {
            "amp_bf16" | "bf16" | "amp" => Some(Dtype::Bf16),
            "amp_fp16" | "fp16" => Some(Dtype::Fp16),
            "amp_fp8" => Some(Dtype::Bf16),
            "fp32" => Some(Dtype::Fp32),
            _ => None,
        },
        Dtype::Bf16,
    );
    run.autocast = compute.clone().map(|dtype| dtype != Dtype::Fp32);
    run.compute = compute;
}

fn sharding(file: File<'_>, run: &mut TrainingRun) {
    let alone = run.parallelism.gpus.as_ref().is_some_and(|g| g.value == 1);
    let reduced = run.compute.clone();
    let parallel = &mut run.parallelism;
    parallel.tensor = file.or("tp_config.tensor_parallel_degree", count, 1);
    if alone {
        return;
    }
    let Some(config) = file.root.get("fsdp_config").filter(|v| v.is_mapping()) else {
        parallel.data_parallel = default(DataParallel::Ddp);
        return;
    };
    let strategy = config.get("sharding_strategy");
    let (kind, reshard) = match strategy.and_then(|v| v.as_str()).unwrap_or("FULL_SHARD") {
        "NO_SHARD" => (DataParallel::Ddp, true),
        "SHARD_GRAD_OP" => (DataParallel::Fsdp, false),
        "HYBRID_SHARD" => (DataParallel::Hsdp, true),
        "_HYBRID_SHARD_ZERO2" => (DataParallel::Hsdp, false),
        _ => (DataParallel::Fsdp, true),
    };
    let origin =
        strategy.map_or_else(|| Origin::Default { by: RELEASE.into() }, |v| Origin::Written(here(v)));
    parallel.data_parallel = Setting { value: kind, origin: origin.clone() };
    if kind == DataParallel::Ddp {
        return;
    }
    parallel.shard_group = file.written("fsdp_config.data_parallel_shard_degree", count);
    let low = file.root.path("fsdp_config.mixed_precision").and_then(|v| v.as_str()) == Some("PURE");
    parallel.fsdp = Some(FsdpOptions {
        version: default(1),
        reshard_after_forward: Setting { value: reshard, origin },
        reduce: if low { reduced } else { default(Dtype::Fp32) },
        // Composer suppresses the exchange of earlier micro-batches under DDP only.
        deferred_reduction: default(false),
    });
    if let Some(offload) =
        file.written("fsdp_config.cpu_offload", |v| v.as_bool().filter(|on| *on).map(|_| Offload::Cpu))
    {
        parallel.offload_parameters = offload.clone();
        parallel.offload_optimizer = offload;
    }
}

fn optimizer(file: File<'_>, run: &mut TrainingRun) {
    run.optimizer = file.or(
        "optimizer.name",
        |v| {
            Some(match v.as_str()? {
                "decoupled_adamw" | "adamw" => Optimizer::Adamw,
                "adam" => Optimizer::Adam,
                "decoupled_lionw" | "clip_lion" | "adalr_lion" => Optimizer::Lion,
                "decoupled_lionw_8b" => Optimizer::Lion8bit,
                "sgd" | "decoupled_sgdw" => Optimizer::SgdMomentum,
                _ => Optimizer::Other,
            })
        },
        Optimizer::Adamw,
    );
    // Composer's decoupled optimizers step tensor by tensor.
    run.optimizer_implementation = default(OptimizerImplementation::ForLoop);
}

fn activations(file: File<'_>, run: &mut TrainingRun, mpt: bool) {
    run.activation_checkpointing = file.or(
        "fsdp_config.activation_checkpointing",
        |v| v.as_bool().map(|on| if on { Checkpointing::Full } else { Checkpointing::None }),
        Checkpointing::None,
    );
    run.activation_offload = file.or("fsdp_config.activation_cpu_offload", |v| v.as_bool(), false);
    run.attention = if mpt {
        let read =
            |v: Value<'_>| Some(if v.as_str()? == "torch" { Attention::Eager } else { Attention::Flash });
        file.or("model.attn_config.attn_impl", read, Attention::Flash)
    } else {
        let read = |v: Value<'_>| v.as_bool().filter(|on| *on).map(|_| Attention::Flash);
        file.or("model.use_flash_attention_2", read, Attention::Sdpa)
    };
    let fused = |v: Value<'_>| {
        Some(if v.as_str()? == "torch_crossentropy" { Loss::FullNoUpcast } else { Loss::FusedSoftmax })
    };
    run.loss = if mpt { file.or("model.loss_fn", fused, Loss::FusedSoftmax) } else { default(Loss::Full) };
    // Composer's state holds a step's outputs until the next forward has made its own.
    run.keep_logits = default(true);
    run.dropout = default(if mpt { Some(0.0) } else { None });
    run.batching =
        default(if file.root.path("train_loader.name").and_then(|v| v.as_str()) == Some("finetuning") {
            Batching::Padded
        } else {
            Batching::Fixed
        });
    run.compile = file.or("compile_config", |v| v.is_mapping().then_some(true), false);
}

fn lora(file: File<'_>, run: &mut TrainingRun) {
    let Some(peft) = file.root.path("model.peft_config").filter(|v| v.is_mapping()) else { return };
    run.method = Setting::written(Method::Lora, here(peft));
    let targets = file.or(
        "model.peft_config.target_modules",
        |v| {
            if v.as_str() == Some("all-linear") {
                return Some(LoraTargets::AllLinear);
            }
            let names: Vec<String> = v.items().filter_map(|item| item.as_str().map(str::to_owned)).collect();
            (!names.is_empty()).then_some(LoraTargets::Modules(names))
        },
        LoraTargets::Modules(vec!["q_proj".into(), "v_proj".into()]),
    );
    run.lora = Some(Lora {
        rank: file.or("model.peft_config.r", count, 8),
        targets,
        dropout: file.or("model.peft_config.lora_dropout", |v| v.to_float(), 0.0),
        dtype: default(Dtype::Fp32),
        dora: file.or("model.peft_config.use_dora", |v| v.as_bool(), false),
        modules_to_save: default(Vec::new()),
    });
}
