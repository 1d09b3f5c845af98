//! LitGPT's files for `litgpt pretrain`, `finetune_full`, `finetune_lora` and the adapters: YAML
//! read by jsonargparse. Which command reads a file follows from its keys.

use super::baseline::{count, plain};
use super::lowering::here;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, RANK, Step, by_hand, set};
use crate::document::{Dialect, Syntax, Value};
use crate::framework::schema::at_least;
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, FsdpOptions, Lora, LoraTargets, Loss, Method,
    ModelCode, ModelRef, Optimizer, OptimizerImplementation, Origin, Quantization, Setting, TrainingRun,
};

/// LitGPT.
pub struct Litgpt;

const RELEASE: &str = "litgpt 0.5.13";

impl Framework for Litgpt {
    fn name(&self) -> &'static str {
        "litgpt"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::JsonArgparse
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let train = root.get("train").filter(Value::is_mapping)?;
        let batches = ["global_batch_size", "micro_batch_size"]
            .iter()
            .any(|key| train.get(key).is_some_and(|v| v.as_int().is_some()));
        let named = ["checkpoint_dir", "model_name", "initial_checkpoint_dir"]
            .iter()
            .any(|key| root.get(key).is_some_and(|v| v.as_str().is_some()))
            || root.get("model_config").is_some_and(|v| v.is_mapping());
        let run = ["precision", "devices", "data"].iter().any(|key| root.get(key).is_some());
        (batches && named && run).then_some(Kind::Run)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../schemas/litgpt.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let alone = run.parallelism.gpus.as_ref().is_some_and(|gpus| gpus.value == 1);
        match change {
            // Accumulation follows from the global batch.
            Change::MicroBatch { size, .. } => set([("train.micro_batch_size", size.into())]),
            Change::SequenceLength(length) => set([("train.max_seq_length", length.into())]),
            // bitsandbytes works on one GPU only (`finetune/lora.py`).
            Change::Qlora if alone && run.method.value == Method::Lora => {
                set([("quantize", "bnb.nf4-dq".into()), ("precision", "bf16-true".into())])
            }
            Change::Lora if Command::of(root) == Command::Full => {
                by_hand(format!("train with `litgpt finetune_lora` and `lora_r: {RANK}`"))
            }
            Change::Gpus(gpus) if root.get("num_nodes").is_none() => set([("devices", gpus.into())]),
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let command = Command::of(cx.root);
        let model = model(cx, command)?;
        let micro = cx.or_default("train.micro_batch_size", count, command.micro_batch_size(), RELEASE);
        let sequence = sequence_length(cx, command);
        let mut run = plain(RELEASE, model, ModelCode::Litgpt, micro, sequence);
        let ranks = ranks(cx, &mut run, command);
        precision(cx, &mut run);
        optimizer(cx, &mut run, command);
        if command == Command::Adapter {
            cx.missing("adapter", "LLaMA-Adapter training is not modelled; LoRA and full are", None);
        }
        if command == Command::Lora {
            lora(cx, &mut run);
        }
        sharding(cx, &mut run, command, ranks);
        loss(&mut run, command);
        if let Some(ranks) = ranks {
            let micro = run.micro_batch_size.value.max(1);
            let global =
                cx.or_default("train.global_batch_size", count, command.global_batch_size(), RELEASE);
            run.gradient_accumulation_steps = global.map(|n| (n / ranks / micro).max(1));
        }
        run.gradient_clipping = cx.or_default(
            "train.max_norm",
            |v| if v.is_null() { Some(None) } else { v.to_float().map(Some) },
            (command == Command::Pretrain).then_some(1.0),
            RELEASE,
        );
        Some(run)
    }
}

/// The command that reads the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Command {
    Pretrain,
    Full,
    Lora,
    Adapter,
}

impl Command {
    fn of(root: Value<'_>) -> Command {
        let has = |key: &str| root.get(key).is_some();
        if has("model_name") || has("model_config") || has("initial_checkpoint_dir") {
            Command::Pretrain
        } else if ["lora_r", "lora_alpha", "lora_query", "lora_mlp"].iter().any(|key| has(key)) {
            Command::Lora
        } else if has("quantize")
            || root.get("out_dir").and_then(|v| v.as_str()).is_some_and(|s| s.contains("adapter"))
        {
            // Full finetuning takes no `quantize`.
            Command::Adapter
        } else {
            Command::Full
        }
    }

    fn global_batch_size(self) -> u64 {
        if self == Command::Pretrain { 512 } else { 16 }
    }

    fn micro_batch_size(self) -> u64 {
        if self == Command::Pretrain { 4 } else { 1 }
    }
}

/// The checkpoint's folder is the Hugging Face id. LitGPT gives tied models a head of their own
/// unless `train.tie_embeddings` says otherwise.
fn model(cx: &mut Lowering<'_>, command: Command) -> Option<Setting<ModelRef>> {
    if let Some(table) = cx.root.get("model_config").filter(|v| v.is_mapping())
        && let Some(config) = spelled_out(table)
    {
        return Some(Setting::written(ModelRef::Config(config), here(table)));
    }
    let tied = cx.root.path("train.tie_embeddings").is_some_and(|v| v.as_bool() == Some(true));
    let id = |v: Value<'_>| {
        let text = v.as_str()?.trim_end_matches('/');
        let mut tail = text.rsplit('/');
        let name = tail.next()?;
        let organisation =
            tail.next().filter(|part| !part.is_empty() && *part != "checkpoints" && *part != ".");
        let id = match organisation {
            Some(organisation) => format!("{organisation}/{name}"),
            None => hub_name(name),
        };
        if tied {
            return Some(ModelRef::Id(id));
        }
        let mut own = serde_json::Map::new();
        own.insert("tie_word_embeddings".into(), false.into());
        Some(ModelRef::IdWith(id, own))
    };
    let keys: &[&str] = if command == Command::Pretrain {
        &["model_name", "initial_checkpoint_dir"]
    } else {
        &["checkpoint_dir"]
    };
    let found = keys.iter().find_map(|key| cx.written(key, id));
    if found.is_none() {
        cx.missing("model", "set `checkpoint_dir`, `model_name` or `model_config`", None);
    }
    found
}

/// A name of `litgpt.config` with the organisation that its `hf_config` has there.
fn hub_name(name: &str) -> String {
    const OWNERS: [(&str, &str); 17] = [
        ("pythia", "EleutherAI"),
        ("Llama-", "meta-llama"),
        ("Meta-Llama", "meta-llama"),
        ("CodeLlama", "codellama"),
        ("Mistral", "mistralai"),
        ("Mixtral", "mistralai"),
        ("gemma", "google"),
        ("Gemma", "google"),
        ("phi", "microsoft"),
        ("Phi", "microsoft"),
        ("Qwen", "Qwen"),
        ("QwQ", "Qwen"),
        ("falcon", "tiiuae"),
        ("stablelm", "stabilityai"),
        ("open_llama", "openlm-research"),
        ("OLMo", "allenai"),
        ("SmolLM", "HuggingFaceTB"),
    ];
    if name == "tiny-llama-1.1b" {
        return "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T".into();
    }
    match OWNERS.iter().find(|(start, _)| name.starts_with(start)) {
        Some((_, owner)) => format!("{owner}/{name}"),
        None => format!("litgpt:{name}"),
    }
}

/// `litgpt.Config`'s fields in Hugging Face's names, for the two families it is used with.
fn spelled_out(table: Value<'_>) -> Option<serde_json::Map<String, serde_json::Value>> {
    let number = |key: &str| table.get(key).and_then(count);
    let text = |key: &str| table.get(key).and_then(|v| v.as_str());
    let flag = |key: &str, default: bool| table.get(key).and_then(|v| v.as_bool()).unwrap_or(default);
    let width = number("n_embd")?;
    let heads = number("n_head").unwrap_or(32);
    let gated = matches!(text("mlp_class_name"), Some("LLaMAMLP" | "GemmaMLP"));
    if text("mlp_class_name") == Some("LLaMAMoE")
        || table.get("latent_attention").is_some_and(|v| v.is_mapping())
    {
        return None;
    }
    let vocabulary = number("padded_vocab_size").or_else(|| {
        let multiple = number("padding_multiple").unwrap_or(512);
        Some(number("vocab_size").unwrap_or(50254).div_ceil(multiple).saturating_mul(multiple))
    })?;
    let bias = flag("bias", true);
    let mut config = serde_json::Map::new();
    let mut set = |key: &str, value: serde_json::Value| {
        config.insert(key.to_owned(), value);
    };
    set("model_type", if gated { "llama" } else { "gpt_neox" }.into());
    set("hidden_size", width.into());
    set("num_hidden_layers", number("n_layer").unwrap_or(16).into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", number("n_query_groups").unwrap_or(heads).into());
    set("head_dim", number("head_size").unwrap_or(width / heads.max(1)).into());
    set("intermediate_size", number("intermediate_size").unwrap_or(width.saturating_mul(4)).into());
    set("vocab_size", vocabulary.into());
    set("max_position_embeddings", number("block_size").unwrap_or(4096).into());
    set("tie_word_embeddings", false.into());
    set("attention_bias", (bias || flag("attn_bias", false)).into());
    set("mlp_bias", bias.into());
    if !gated {
        set("use_parallel_residual", flag("parallel_residual", true).into());
    }
    Some(config)
}

/// `train.max_seq_length`; without it pretraining takes the model's block size, finetuning the
/// longest sample.
fn sequence_length(cx: &mut Lowering<'_>, command: Command) -> Setting<u64> {
    if let Some(length) = cx.written("train.max_seq_length", count) {
        return length;
    }
    if command == Command::Pretrain
        && let Some(length) = cx.written("model_config.block_size", count)
    {
        return length;
    }
    if let Some(assumed) = cx.assumed_sequence_length.clone() {
        return assumed;
    }
    let place = cx.root.path("train.max_seq_length").or_else(|| cx.root.get("train")).map(here);
    let why = if command == Command::Pretrain {
        "without `train.max_seq_length` the model's block size is used; write it down"
    } else {
        "without `train.max_seq_length` the longest sample of the data decides; set it, or \
         `[assume] sequence-length` in llmlint.toml, to the longest you expect"
    };
    cx.missing("sequence length", why, place);
    Setting::assumed(0, "the longest sample of the data")
}

/// `devices` times `num_nodes`; "auto" is every GPU of the machine.
fn ranks(cx: &Lowering<'_>, run: &mut TrainingRun, command: Command) -> Option<u64> {
    let nodes = cx.or_default("num_nodes", count, 1, RELEASE);
    let devices = cx.written("devices", count);
    let automatic = cx.root.get("devices").map_or(command == Command::Pretrain, |v| v.as_str().is_some());
    run.parallelism.gpus = match devices {
        Some(devices) => Some(devices.map(|n| n.saturating_mul(nodes.value))),
        None if automatic => cx.declared_gpus.clone(),
        None => Some(Setting::default_of(nodes.value, RELEASE)),
    };
    run.parallelism.gpus.as_ref().map(|gpus| gpus.value)
}

fn precision(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let read = |v: Value<'_>| match v.as_str()? {
        "bf16-true" => Some((Dtype::Bf16, Dtype::Bf16)),
        "16-true" => Some((Dtype::Fp16, Dtype::Fp16)),
        "bf16-mixed" => Some((Dtype::Fp32, Dtype::Bf16)),
        "16-mixed" => Some((Dtype::Fp32, Dtype::Fp16)),
        "32-true" | "32" => Some((Dtype::Fp32, Dtype::Fp32)),
        _ => None,
    };
    // Absent: bf16-mixed where the GPU has bf16 (`get_default_supported_precision(training=True)`).
    let precision = cx.or_default("precision", read, (Dtype::Fp32, Dtype::Bf16), RELEASE);
    let stored = precision.clone().map(|(stored, _)| stored);
    run.compute = precision.clone().map(|(_, compute)| compute);
    run.autocast = precision.map(|(stored, compute)| stored != compute);
    run.gradients = stored.clone();
    run.optimizer_state = stored.clone();
    run.weights = stored;
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun, command: Command) {
    let read = |v: Value<'_>| {
        let path = v.as_str()?;
        let class = path.rsplit('.').next().unwrap_or(path);
        Some(match class {
            "AdamW" | "GrokAdamW" => Optimizer::Adamw,
            "Adam" => Optimizer::Adam,
            "AdamW8bit" | "Adam8bit" => Optimizer::Adamw8bit,
            "PagedAdamW" | "PagedAdamW32bit" => Optimizer::PagedAdamw32bit,
            "PagedAdamW8bit" => Optimizer::PagedAdamw8bit,
            "SGD" => Optimizer::Sgd,
            "RMSprop" => Optimizer::Rmsprop,
            "Adagrad" => Optimizer::Adagrad,
            "Adafactor" => Optimizer::TorchAdafactor,
            "GaLoreAdamW" => Optimizer::Galore,
            "GaLoreAdamW8bit" => Optimizer::Galore8bit,
            "Lion" => Optimizer::Lion,
            _ => Optimizer::Other,
        })
    };
    run.optimizer = cx
        .written("optimizer.class_path", read)
        .or_else(|| cx.written("optimizer", read))
        .unwrap_or_else(|| Setting::default_of(Optimizer::Adamw, RELEASE));
    // Only pretraining asks for the fused step.
    let implementation = if command == Command::Pretrain {
        OptimizerImplementation::Fused
    } else {
        OptimizerImplementation::Foreach
    };
    run.optimizer_implementation = Setting::default_of(implementation, RELEASE);
    run.compile = Setting::default_of(command == Command::Pretrain, RELEASE);
    run.batching = Setting::default_of(
        if command == Command::Pretrain { Batching::Fixed } else { Batching::Padded },
        RELEASE,
    );
    run.attention = Setting::default_of(Attention::Sdpa, RELEASE);
}

fn lora(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let quantization = |v: Value<'_>| match v.as_str()? {
        "bnb.nf4" | "bnb.fp4" => Some(Quantization::Nf4),
        "bnb.nf4-dq" | "bnb.fp4-dq" => Some(Quantization::Nf4Double),
        "bnb.int8" | "bnb.int8-training" => Some(Quantization::Int8),
        _ => None,
    };
    run.quantization = cx.or_default("quantize", quantization, Quantization::None, RELEASE);
    let quantized = run.quantization.value != Quantization::None;
    let rank = cx.or_default("lora_r", count, 8, RELEASE);
    let method = if quantized { Method::Qlora } else { Method::Lora };
    run.method = Setting { value: method, origin: rank.origin.clone() };
    // 0.5.4 and older pin bitsandbytes 0.42 (pyproject.toml), 0.5.5 asks for 0.44.
    if let Some(declared) = cx.declared_version.as_deref().filter(|_| quantized) {
        run.quantized_inputs_kept =
            Setting::default_of(!at_least(declared, "0.5.5"), format!("litgpt {declared}"));
    }
    if quantized {
        // `instantiate_bnb_optimizer` takes nothing but PagedAdamW.
        run.optimizer =
            Setting { value: Optimizer::PagedAdamw32bit, origin: run.quantization.origin.clone() };
    }
    let mut modules = Vec::new();
    let mut origin = Origin::Default { by: RELEASE.into() };
    // Under the names of every family that it has: those that a model does not have match nothing.
    const MLP: &[&str] =
        &["gate_proj", "up_proj", "down_proj", "dense_h_to_4h", "dense_4h_to_h", "fc1", "fc2"];
    let switches: [(&str, bool, &[&str]); 6] = [
        ("lora_query", true, &["q_proj", "query_key_value"]),
        ("lora_key", false, &["k_proj", "query_key_value"]),
        ("lora_value", true, &["v_proj", "query_key_value"]),
        ("lora_projection", false, &["o_proj", "dense"]),
        ("lora_mlp", false, MLP),
        ("lora_head", false, &["lm_head", "embed_out"]),
    ];
    for (key, default, names) in switches {
        let on = cx.or_default(key, |v| v.as_bool(), default, RELEASE);
        if on.value {
            modules.extend(names.iter().map(|name| (*name).to_owned()));
            if matches!(on.origin, Origin::Written(_)) {
                origin = on.origin;
            }
        }
    }
    modules.dedup();
    run.lora = Some(Lora {
        rank,
        targets: Setting { value: LoraTargets::Modules(modules), origin },
        dropout: cx.or_default("lora_dropout", |v| v.to_float(), 0.05, RELEASE),
        dtype: run.weights.clone(),
        dora: Setting::default_of(false, RELEASE),
        modules_to_save: Setting::default_of(Vec::new(), RELEASE),
    });
}

/// No key for it: several GPUs mean FSDP, with every block checkpointed when finetuning.
fn sharding(cx: &Lowering<'_>, run: &mut TrainingRun, command: Command, ranks: Option<u64>) {
    if ranks == Some(1) {
        return;
    }
    let origin = run
        .parallelism
        .gpus
        .as_ref()
        .map_or_else(|| Origin::Assumed("`devices: auto`".into()), |gpus| gpus.origin.clone());
    let kind = if command == Command::Pretrain { DataParallel::Hsdp } else { DataParallel::Fsdp };
    run.parallelism.data_parallel = Setting { value: kind, origin };
    if command == Command::Pretrain {
        // HYBRID_SHARD: sharded within a machine, replicated between machines.
        let nodes = cx.root.get("num_nodes").and_then(count).unwrap_or(1);
        run.parallelism.shard_group = run.parallelism.gpus.clone().map(|g| g.map(|n| (n / nodes).max(1)));
    } else {
        run.activation_checkpointing = Setting::default_of(Checkpointing::Full, RELEASE);
    }
    // FSDP casts for itself: what is gathered is already in the compute precision.
    run.autocast = Setting::default_of(false, RELEASE);
    run.parallelism.fsdp = Some(FsdpOptions {
        version: Setting::default_of(if command == Command::Lora { 2 } else { 1 }, RELEASE),
        reshard_after_forward: Setting::default_of(true, RELEASE),
        reduce: run.compute.clone(),
        // Fabric's no_backward_sync is the module's no_sync.
        deferred_reduction: Setting::default_of(true, RELEASE),
    });
}

/// Finetuning computes logits and loss 128 tokens at a time, pretraining only the loss. Neither
/// upcasts. The logits stay bound to a name until the next step.
fn loss(run: &mut TrainingRun, command: Command) {
    run.keep_logits = Setting::default_of(true, RELEASE);
    if command == Command::Pretrain {
        run.loss = Setting::default_of(Loss::FullNoUpcast, RELEASE);
        return;
    }
    let chunks = u32::try_from(run.sequence_length.value.div_ceil(128)).unwrap_or(u32::MAX).max(1);
    run.loss = Setting::default_of(Loss::Chunked { chunked: chunks }, RELEASE);
}
