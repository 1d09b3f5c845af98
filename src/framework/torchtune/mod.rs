//! torchtune's recipe files: YAML read by OmegaConf, every object named by `_component_`.
//! The file does not say which recipe reads it, nor on how many GPUs: see [`launch`].

mod beside;
pub mod launch;

use self::launch::Launch;
use super::baseline::{count, plain};
use super::lowering::here;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, Step, by_hand, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, FsdpOptions, Lora, LoraTargets, Loss, Method,
    ModelCode, ModelRef, Offload, Optimizer, OptimizerImplementation, Origin, Quantization, ReferenceModel,
    Setting, Task, TrainingRun,
};

/// torchtune.
pub struct Torchtune;

const RELEASE: &str = "torchtune 0.7.0";

impl Framework for Torchtune {
    fn name(&self) -> &'static str {
        "torchtune"
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

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        if !names_torchtune(root) {
            return None;
        }
        // Evaluation, generation and quantisation recipes have no optimizer.
        let optimizer = root.get("optimizer").or_else(|| root.path("training.optimizer"));
        let trains = optimizer.is_some_and(|v| v.is_mapping())
            && ["loss", "training"].iter().any(|key| root.get(key).is_some_and(|v| v.is_mapping()));
        Some(if trains { Kind::Run } else { Kind::Other })
    }

    fn schema(&self, kind: Kind) -> Option<&'static str> {
        (kind == Kind::Run).then_some(include_str!("../../../schemas/torchtune.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Dropped
    }

    fn explains_key(&self, root: Value<'_>, key: &str) -> bool {
        interpolates(root, &format!("${{{key}"), 0)
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let sharded = run.parallelism.fsdp.is_some();
        // `fused` and `foreach` go to the class, and the 8-bit ones know neither.
        let plain = root.get("optimizer").is_some_and(|o| {
            o.get("fused").is_none() && o.get("foreach").is_none() && o.get("optimizer_class").is_none()
        });
        let adamw = plain && run.optimizer.value == Optimizer::Adamw;
        match change {
            Change::MicroBatch { size, accumulation } => {
                set([("batch_size", size.into()), ("gradient_accumulation_steps", accumulation.into())])
            }
            Change::Checkpoint => set([("enable_activation_checkpointing", true.into())]),
            Change::ChunkLoss(_) if run.task.value == Task::CausalLm && root.get("loss").is_some() => {
                set([("loss._component_", "torchtune.modules.loss.LinearCrossEntropyLoss".into())])
            }
            // torchao's takes sharded tensors.
            Change::Optimizer8bit if adamw => {
                set([("optimizer._component_", "torchao.optim.AdamW8bit".into())])
            }
            Change::PagedOptimizer8bit if adamw && !sharded => {
                set([("optimizer._component_", "bitsandbytes.optim.PagedAdamW8bit".into())])
            }
            Change::Shard(DataParallel::Fsdp) => by_hand("run the recipe's `_distributed` sibling"),
            Change::OffloadAll if sharded => set([("fsdp_cpu_offload", true.into())]),
            Change::Lora => by_hand("use the `lora_` recipe and config of this model (`tune ls` lists them)"),
            Change::Qlora => by_hand("use the `qlora_` config of this model (`tune ls` lists them)"),
            Change::SequenceLength(length) if root.path("tokenizer").is_some() => {
                set([("tokenizer.max_seq_len", length.into())])
            }
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let Some((builder, model)) = model(cx) else {
            cx.missing("model", "the file has no `model._component_`", None);
            return None;
        };
        let micro = cx.or_default("batch_size", count, 1, RELEASE);
        let sequence = sequence_length(cx);
        let mut run = plain(RELEASE, model, ModelCode::Torchtune, micro, sequence);
        let launch = Launch::read(cx.root.document());
        precision(cx, &mut run);
        method(&mut run, builder);
        task(cx, &mut run, launch.as_ref());
        optimizer(cx, &mut run);
        activations(cx, &mut run);
        parallelism(cx, &mut run, launch.as_ref());
        run.gradient_accumulation_steps = cx.or_default("gradient_accumulation_steps", count, 1, RELEASE);
        run.gradient_clipping = cx.or_default("clip_grad_norm", |v| v.to_float().map(Some), None, RELEASE);
        if cx.root.get("run_val_every_n_steps").is_some_and(|v| count(v).is_some()) {
            run.eval_batch_size =
                Some(cx.written("batch_size_val", count).unwrap_or_else(|| run.micro_batch_size.clone()));
        }
        Some(run)
    }
}

/// Some `_component_` in the file is torchtune's. Keys alone prove nothing: a tokenizer's
/// vocabulary holds any word.
fn names_torchtune(root: Value<'_>) -> bool {
    root.document().scalar_entries().any(|(key, text)| key == "_component_" && text.starts_with("torchtune."))
}

/// Some value takes `${key}` or `${key.…}`.
fn interpolates(value: Value<'_>, start: &str, depth: usize) -> bool {
    let names = |text: &str| {
        text.match_indices(start).any(|(at, _)| text[at + start.len()..].starts_with(['}', '.']))
    };
    depth <= 8
        && (value.text().is_some_and(names)
            || value.items().any(|item| interpolates(item, start, depth + 1))
            || value.fields().iter().any(|field| interpolates(field.value, start, depth + 1)))
}

fn component<'a>(cx: &Lowering<'a>, section: &str) -> Option<(Value<'a>, &'a str)> {
    let value = cx.root.path(section)?.get("_component_")?;
    Some((value, value.as_str()?))
}

/// The trained model's builder and what it makes.
fn model<'a>(cx: &Lowering<'a>) -> Option<(Value<'a>, Setting<ModelRef>)> {
    ["model", "policy_model", "training.model"].iter().find_map(|section| model_of(cx, section))
}

/// A builder's table and its model. `lora_` and `qlora_` builders make the same model.
fn model_of<'a>(cx: &Lowering<'a>, section: &str) -> Option<(Value<'a>, Setting<ModelRef>)> {
    let (place, name) = component(cx, section)?;
    let table = cx.root.path(section)?;
    let (module, builder) = name.rsplit_once('.')?;
    let plain_builder =
        builder.strip_prefix("qlora_").or_else(|| builder.strip_prefix("lora_")).unwrap_or(builder);
    let model = match spelled_out(table) {
        Some(config) => ModelRef::Config(config),
        None => ModelRef::Id(format!("torchtune:{module}.{plain_builder}")),
    };
    Some((table, Setting::written(model, here(place))))
}

/// Component builders (`torchtune.models.llama2.llama2`) take the dimensions.
fn spelled_out(table: Value<'_>) -> Option<serde_json::Map<String, serde_json::Value>> {
    const NAMES: [(&str, &str); 7] = [
        ("vocab_size", "vocab_size"),
        ("num_layers", "num_hidden_layers"),
        ("num_heads", "num_attention_heads"),
        ("num_kv_heads", "num_key_value_heads"),
        ("embed_dim", "hidden_size"),
        ("intermediate_dim", "intermediate_size"),
        ("max_seq_len", "max_position_embeddings"),
    ];
    let hidden = table.get("embed_dim").and_then(count)?;
    table.get("num_layers").and_then(count)?;
    let mut config = serde_json::Map::new();
    for (own, common) in NAMES {
        if let Some(n) = table.get(own).and_then(count) {
            config.insert(common.into(), n.into());
        }
    }
    // `scale_hidden_dim_for_mlp`: 8/3 of the width, up to a multiple of 256.
    let scaled = (hidden.saturating_mul(8) / 3).div_ceil(256) * 256;
    config.entry("intermediate_size").or_insert(scaled.into());
    config.insert("model_type".into(), "llama".into());
    config.insert("tie_word_embeddings".into(), false.into());
    Some(config)
}

/// `tokenizer.max_seq_len`; without it the longest sample decides.
fn sequence_length(cx: &mut Lowering<'_>) -> Setting<u64> {
    for key in ["tokenizer.max_seq_len", "dataset.max_seq_len", "max_seq_len"] {
        if let Some(length) = cx.written(key, count) {
            return length;
        }
    }
    if let Some(assumed) = cx.assumed_sequence_length.clone() {
        return assumed;
    }
    let place = cx.root.path("tokenizer.max_seq_len").or_else(|| cx.root.get("tokenizer"));
    cx.missing(
        "sequence length",
        "without `tokenizer.max_seq_len` the longest sample of the data decides; set it, or \
         `[assume] sequence-length` in llmlint.toml, to the longest you expect",
        place.map(here),
    );
    Setting::assumed(0, "the longest sample of the data")
}

fn dtype(value: Value<'_>) -> Option<Dtype> {
    match value.as_str()? {
        "bf16" => Some(Dtype::Bf16),
        "fp32" => Some(Dtype::Fp32),
        "fp16" => Some(Dtype::Fp16),
        _ => None,
    }
}

/// Weights, gradients, states and activations are all `dtype`; there is no master copy.
fn precision(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let dtype = cx.or_default("dtype", dtype, Dtype::Fp32, RELEASE);
    run.weights = dtype.clone();
    run.compute = dtype.clone();
    run.gradients = dtype.clone();
    run.optimizer_state = dtype;
}

fn method(run: &mut TrainingRun, table: Value<'_>) {
    let builder = table.get("_component_").and_then(|v| v.as_str()).unwrap_or_default();
    let builder = builder.rsplit('.').next().unwrap_or_default();
    let at = table.get("_component_").map(here);
    let quantized = builder.starts_with("qlora_")
        || table.get("quantize_base").is_some_and(|v| v.as_bool() == Some(true));
    let adapted = quantized || builder.starts_with("lora_") || table.get("lora_rank").is_some();
    if !adapted {
        return;
    }
    let origin = at.map_or_else(|| Origin::Default { by: RELEASE.into() }, Origin::Written);
    let method = if quantized { Method::Qlora } else { Method::Lora };
    run.method = Setting { value: method, origin: origin.clone() };
    if quantized {
        // torchao's NF4 tensor: scales of 64-weight blocks are themselves 8-bit.
        run.quantization = Setting { value: Quantization::Nf4Double, origin };
    }
    let read = |key: &str| table.get(key);
    fn or<T>(value: Option<Value<'_>>, read: impl FnOnce(Value<'_>) -> Option<T>, default: T) -> Setting<T> {
        value
            .and_then(|v| read(v).map(|t| Setting::written(t, here(v))))
            .unwrap_or_else(|| Setting::default_of(default, RELEASE))
    }
    let on = |key: &str| read(key).is_some_and(|v| v.as_bool() == Some(true));
    let mut modules: Vec<String> = read("lora_attn_modules")
        .map(|list| list.items().filter_map(|item| item.as_str().map(attention_module)).collect())
        .unwrap_or_default();
    if on("apply_lora_to_mlp") {
        modules.extend(["gate_proj", "up_proj", "down_proj"].map(str::to_owned));
    }
    if on("apply_lora_to_output") {
        modules.push("lm_head".into());
    }
    let targets = LoraTargets::Modules(modules);
    run.lora = Some(Lora {
        rank: or(read("lora_rank"), count, 8),
        targets: match read("lora_attn_modules") {
            Some(list) => Setting::written(targets, here(list)),
            None => Setting::default_of(targets, RELEASE),
        },
        dropout: or(read("lora_dropout"), |v| v.to_float(), 0.0),
        dtype: run.weights.clone(),
        dora: or(read("use_dora"), |v| v.as_bool(), false),
        modules_to_save: Setting::default_of(Vec::new(), RELEASE),
    });
}

/// torchtune's names are transformers' but for the output projection.
fn attention_module(name: &str) -> String {
    if name == "output_proj" { "o_proj".into() } else { name.to_owned() }
}

/// What is learnt, and the loss, with the models that it needs.
fn task(cx: &mut Lowering<'_>, run: &mut TrainingRun, launch: Option<&Launch>) {
    let loss =
        component(cx, "loss").map(|(place, name)| (here(place), name.rsplit('.').next().unwrap_or(name)));
    if let Some((at, name)) = loss {
        let chunks = cx.root.path("loss.num_output_chunks").and_then(count).unwrap_or(8) as u32;
        if name.contains("Chunked") || name == "LinearCrossEntropyLoss" {
            run.loss = Setting::written(Loss::Chunked { chunked: chunks }, at);
            run.head_in_chunks = Setting::written(name == "LinearCrossEntropyLoss", at);
        } else if name == "CrossEntropyLoss" {
            run.loss = Setting::written(Loss::Full, at);
        }
        if name.contains("DPO") || name.contains("RSO") || name.contains("IPO") || name.contains("SimPO") {
            run.task = Setting::written(Task::Preference, at);
        } else if name.contains("PPO") || name.contains("GRPO") {
            run.task = Setting::written(Task::Rollout, at);
            beside::rollouts(cx, run, name.contains("PPO"));
        }
    }
    if run.task.value == Task::Preference
        && let Some(reference) = cx.root.get("ref_checkpointer")
    {
        run.reference_model = Setting::written(ReferenceModel::Resident, here(reference));
    }
    beside::teacher(cx, run);
    beside::fake_quantization(cx, run, launch);
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let section = if cx.root.get("optimizer").is_some() { "optimizer" } else { "training.optimizer" };
    let Some((place, name)) = component(cx, section) else { return };
    let class = name.rsplit('.').next().unwrap_or(name);
    let origin = Origin::Written(here(place));
    let wrapped = cx.root.path(section).and_then(|o| o.get("optimizer_class")).and_then(|v| v.as_str());
    let inner = if class == "CPUOffloadOptimizer" {
        run.parallelism.offload_optimizer = Setting { value: Offload::Cpu, origin: origin.clone() };
        wrapped.map_or("AdamW", |name| name.rsplit('.').next().unwrap_or(name))
    } else {
        class
    };
    let momentum = cx.root.path(section).and_then(|o| o.get("momentum")).and_then(|v| v.to_float());
    let optimizer = match (name.starts_with("bitsandbytes"), inner) {
        (_, "AdamW8bit" | "Adam8bit") => Optimizer::Adamw8bit,
        (_, "PagedAdamW8bit" | "PagedAdam8bit") => Optimizer::PagedAdamw8bit,
        (_, "PagedAdamW" | "PagedAdam" | "PagedAdamW32bit" | "PagedAdam32bit") => Optimizer::PagedAdamw32bit,
        (_, "AdamW32bit" | "Adam32bit") | (true, "AdamW" | "Adam") => Optimizer::Adamw32bit,
        (_, "AdamW4bit" | "Adam4bit") => Optimizer::Adamw4bit,
        (_, "Lion8bit") => Optimizer::Lion8bit,
        (_, "PagedLion8bit") => Optimizer::PagedLion8bit,
        (_, "PagedLion" | "PagedLion32bit") => Optimizer::PagedLion32bit,
        (_, "Lion") => Optimizer::Lion,
        (_, "AdamW") => Optimizer::Adamw,
        (_, "Adam") => Optimizer::Adam,
        (_, "SGD") if momentum.is_some_and(|m| m != 0.0) => Optimizer::SgdMomentum,
        (_, "SGD") => Optimizer::Sgd,
        (_, "Adafactor") => Optimizer::TorchAdafactor,
        (_, "Adagrad") => Optimizer::Adagrad,
        (_, "RMSprop") => Optimizer::Rmsprop,
        (_, "Muon") => Optimizer::Muon,
        _ => Optimizer::Other,
    };
    run.optimizer = Setting { value: optimizer, origin };
    let in_backward = cx.written("optimizer_in_bwd", |v| {
        v.as_bool().filter(|on| *on).map(|_| OptimizerImplementation::InBackward)
    });
    let fused = cx.written(&format!("{section}.fused"), |v| {
        v.as_bool().filter(|on| *on).map(|_| OptimizerImplementation::Fused)
    });
    run.optimizer_implementation = in_backward
        .or(fused)
        .unwrap_or_else(|| Setting::default_of(OptimizerImplementation::Foreach, RELEASE));
}

fn activations(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let full = cx.or_default(
        "enable_activation_checkpointing",
        |v| v.as_bool().map(|on| if on { Checkpointing::Full } else { Checkpointing::None }),
        Checkpointing::None,
        RELEASE,
    );
    let mode = cx.written("ac_mode", |v| match v.as_str()? {
        "full" => Some(Checkpointing::Full),
        "selective" => Some(match cx.root.get("ac_option").and_then(|v| v.to_int()) {
            Some(1) => Checkpointing::Full,
            Some(every) => Checkpointing::Every { every: u32::try_from(every).unwrap_or(1).max(1) },
            None => Checkpointing::Selective,
        }),
        _ => None,
    });
    run.activation_checkpointing =
        if full.value == Checkpointing::Full { full } else { mode.unwrap_or(full) };
    run.activation_offload = cx.or_default("enable_activation_offloading", |v| v.as_bool(), false, RELEASE);
    run.batching = cx
        .written("dataset.packed", |v| {
            v.as_bool().map(|packed| if packed { Batching::Packed } else { Batching::Padded })
        })
        .unwrap_or_else(|| Setting::default_of(Batching::Padded, RELEASE));
    // Packed rows carry a block mask, which FlexAttention takes; others are plainly causal.
    if run.batching.value == Batching::Packed {
        run.attention = Setting { value: Attention::Flex, origin: run.batching.origin.clone() };
    }
    run.compile = cx.or_default(
        "compile",
        |v| v.as_bool().or_else(|| v.get("model").map_or(Some(true), |m| m.as_bool())),
        false,
        RELEASE,
    );
}

fn parallelism(cx: &Lowering<'_>, run: &mut TrainingRun, launch: Option<&Launch>) {
    let offload = ["fsdp_cpu_offload", "fsdp.cpu_offload"].iter().find_map(|key| {
        cx.written(key, |v| v.as_bool().map(|on| if on { Offload::Cpu } else { Offload::None }))
    });
    let reduce = run.weights.clone();
    let parallel = &mut run.parallelism;
    if let Some(launch) = launch.filter(|launch| launch.single_device()) {
        let line = format!("the comment `{}`", launch.line);
        parallel.gpus = Some(Setting::assumed(1, line.clone()));
        parallel.data_parallel = Setting::assumed(DataParallel::None, line);
        return;
    }
    let proposed = launch.and_then(|launch| {
        Some(Setting::assumed(launch.processes?, format!("the comment `{}`", launch.line)))
    });
    parallel.gpus = cx.declared_gpus.clone().or(proposed);
    let degree = |key: &str| cx.or_default(key, count, 1, RELEASE);
    parallel.tensor = degree("tensor_parallel_dim");
    parallel.context = degree("context_parallel_dim");
    let replicate = degree("data_parallel_replicate_dim");
    let shard = cx.written("data_parallel_shard_dim", count);
    let gpus = parallel.gpus.as_ref().map_or(0, |g| g.value);
    if gpus == 1 {
        return;
    }
    let kind = if replicate.value > 1 { DataParallel::Hsdp } else { DataParallel::Fsdp };
    let origin = match (&shard, launch) {
        (Some(shard), _) => shard.origin.clone(),
        (None, Some(launch)) => Origin::Assumed(format!("the comment `{}`", launch.line)),
        (None, None) => Origin::Assumed("the distributed recipes shard over all GPUs".into()),
    };
    parallel.data_parallel = Setting { value: kind, origin };
    let others = parallel.tensor.value.saturating_mul(replicate.value);
    let group = shard
        .map(|s| s.map(|n| n.saturating_mul(parallel.context.value)))
        .or_else(|| (gpus > 0).then(|| Setting::default_of((gpus / others.max(1)).max(1), RELEASE)));
    parallel.shard_group = group;
    parallel.fsdp = Some(FsdpOptions {
        version: Setting::default_of(2, RELEASE),
        reshard_after_forward: cx.or_default("fsdp_reshard_after_forward", |v| v.as_bool(), true, RELEASE),
        // `fully_shard` without a policy reduces in the weights' own dtype.
        reduce,
        deferred_reduction: Setting::default_of(false, RELEASE),
    });
    if let Some(offload) = offload {
        parallel.offload_parameters = offload.clone();
        if parallel.offload_optimizer.value == Offload::None {
            parallel.offload_optimizer = offload;
        }
    }
    parallel.sequence_parallel = parallel.tensor.clone().map(|n| n > 1);
}
