//! LLaMA-Factory's flat files (0.8 to 0.9.5): its own dataclasses beside transformers'
//! `TrainingArguments`, read by OmegaConf.
//!
//! Facts: `hparams/*_args.py`, `hparams/parser.py`, `model/adapter.py`,
//! `model/model_utils/{checkpointing,quantization,liger_kernel}.py` at commit ff6d4d1.

mod extras;
mod v1;

pub use v1::LlamaFactoryV1;

use super::baseline::{count, plain};
use super::training_arguments::{self as hf, Defaults, flag, names, text};
use super::{Framework, Kind, Lowering, TextNumbers, UnknownKeys};
use crate::change::{Change, RANK, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, Lora, LoraTargets, Loss, Method, ModelCode,
    Quantization, ReferenceModel, Setting, Task, TrainingRun,
};

/// LLaMA-Factory.
pub struct LlamaFactory;

const RELEASE: &str = "llama-factory 0.9.5";

/// Keys that make a file with a model LLaMA-Factory's.
const MARKS: &[&str] =
    &["stage", "finetuning_type", "template", "cutoff_len", "lora_target", "infer_backend", "export_dir"];

/// Values of `stage`.
const STAGES: &[&str] = &["pt", "sft", "rm", "ppo", "dpo", "kto"];

/// Keys of frameworks that also say `model_name_or_path`.
const OTHERS: &[&str] = &["dataset_mixer", "dataset_mixture", "with_tracking"];

impl Framework for LlamaFactory {
    fn name(&self) -> &'static str {
        "llama-factory"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        match syntax {
            Syntax::Json => Dialect::Json,
            _ => Dialect::OmegaConf,
        }
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let has = |keys: &[&str]| keys.iter().any(|key| root.get(key).is_some());
        let stage = root.get("stage").and_then(|v| v.as_str()).is_some_and(|stage| STAGES.contains(&stage));
        let marks = MARKS.iter().filter(|key| root.get(key).is_some()).count();
        // Without a model, or with its key misspelt: a stage and what goes with it.
        let without = stage && marks >= 4 && !has(&["base_model", "model"]);
        if !(root.get("model_name_or_path").is_some() || without) || marks == 0 || has(OTHERS) {
            return None;
        }
        let on = |key: &str| root.get(key).and_then(flag) == Some(true);
        let trains = has(&["do_train", "per_device_train_batch_size", "learning_rate"]);
        let other = has(&["export_dir"])
            || on("do_predict")
            || !trains
            || root.get("do_train").and_then(flag) == Some(false);
        Some(if other { Kind::Other } else { Kind::Run })
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../../schemas/llama-factory.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    /// Words that only Megatron's arguments have, and that are slips anywhere else.
    fn explains_key(&self, root: Value<'_>, key: &str) -> bool {
        matches!(key, "mixed_precision" | "optimizer") && extras::goes_through_megatron(root)
    }

    fn text_numbers(&self) -> TextNumbers {
        TextNumbers::Fatal
    }

    /// Dataclasses do not look at types.
    fn checks_types(&self) -> bool {
        false
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        // The files that LLaMA-Factory ships.
        let stock = |name: &str| set([("deepspeed", format!("examples/deepspeed/{name}.json").into())]);
        let own = root.get("deepspeed").is_some_and(|v| !v.is_null());
        let stage = run.parallelism.data_parallel.value;
        match change {
            Change::Checkpoint => set([("disable_gradient_checkpointing", false.into())]),
            Change::Liger => set([("enable_liger_kernel", true.into())]),
            Change::Shard(DataParallel::Zero2) => stock("ds_z2_config"),
            Change::Shard(DataParallel::Zero3) => stock("ds_z3_config"),
            Change::OffloadOptimizer if stage == DataParallel::Zero2 && !own => stock("ds_z2_offload_config"),
            Change::OffloadAll if stage == DataParallel::Zero3 && !own => stock("ds_z3_offload_config"),
            Change::OffloadOptimizer if !own => None,
            Change::Lora => set([
                ("finetuning_type", "lora".into()),
                ("lora_rank", RANK.into()),
                ("lora_target", "all".into()),
            ]),
            Change::Qlora if !hf::may_quantise(run) => None,
            Change::Qlora if run.lora.is_some() => set([("quantization_bit", 4.into())]),
            Change::Qlora => set([
                ("finetuning_type", "lora".into()),
                ("lora_rank", RANK.into()),
                ("lora_target", "all".into()),
                ("quantization_bit", 4.into()),
            ]),
            Change::SequenceLength(length) => set([("cutoff_len", length.into())]),
            _ => hf::steps(change, run, root),
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let release = cx.declared_version.as_ref().map(|version| format!("llama-factory {version}"));
        let by = release.as_deref().unwrap_or(RELEASE);
        let model = hf::model(cx, "model_name_or_path")?;
        let micro = hf::micro_batch(cx, by);
        let length = cx.or_default("cutoff_len", count, 2048, by);
        let mut run = plain(by, model, ModelCode::Transformers, micro, length);
        // `disable_gradient_checkpointing` decides; the Trainer's own key can only add to it.
        let defaults = Defaults { by, checkpointing: true, bf16: false, fsdp_version: 1 };
        hf::lower(cx, &mut run, defaults);
        method(cx, &mut run, by);
        precision(cx, &mut run, defaults);
        task(cx, &mut run, by);
        activations(cx, &mut run, by);
        extras::optimizer(cx, &mut run, by);
        extras::bounded(cx, &mut run);
        if let Some(workers) = cx.written("ray_num_workers", count) {
            run.parallelism.gpus = Some(workers);
        }
        if !extras::megatron(cx, &mut run, by) {
            hf::distribution(cx, &mut run, defaults);
        }
        Some(run)
    }
}

/// `finetuning_type` with what belongs to it, and the quantisation of frozen weights.
fn method(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let kind = cx.or_default("finetuning_type", text, "lora".into(), by);
    run.quantization = quantization(cx, by);
    let quantised = run.quantization.value != Quantization::None;
    run.method = kind.clone().map(|kind| match kind.as_str() {
        "full" => Method::Full,
        "freeze" => Method::Freeze,
        _ if quantised => Method::Qlora,
        _ => Method::Lora,
    });
    // `init_adapter` casts whatever is trained to fp32.
    run.beside.trained_like_adapters = true;
    match kind.value.as_str() {
        "full" => {}
        "freeze" => {
            let layers = |v: Value<'_>| v.to_int().map(i64::unsigned_abs).filter(|n| *n > 0);
            run.trainable_layers = Some(cx.or_default("freeze_trainable_layers", layers, 2, by));
            // A negative count is of the first layers; LLaMA Pro trains the blocks it inserted.
            let first =
                cx.root.get("freeze_trainable_layers").and_then(|v| v.to_int()).is_some_and(|n| n < 0);
            let pro = cx.root.get("use_llama_pro").and_then(flag) == Some(true);
            run.beside.spread_layers = first || pro;
        }
        "oft" => {
            run.lora = Some(Lora {
                targets: cx.or_default("oft_target", lora_targets, LoraTargets::LinearModules, by),
                ..lora(cx, by)
            });
            run.beside.orthogonal_block = Some(cx.or_default("oft_block_size", count, 32, by));
        }
        _ => run.lora = Some(lora(cx, by)),
    }
}

/// `find_all_linear_modules` lists the linear layers for `all`.
fn lora_targets(value: Value<'_>) -> Option<LoraTargets> {
    let list = names(value)?;
    Some(if list == ["all"] { LoraTargets::LinearModules } else { LoraTargets::Modules(list) })
}

fn lora(cx: &Lowering<'_>, by: &str) -> Lora {
    Lora {
        rank: cx.or_default("lora_rank", count, 8, by),
        targets: cx.or_default("lora_target", lora_targets, LoraTargets::LinearModules, by),
        dropout: cx.or_default("lora_dropout", |v| v.to_float(), 0.0, by),
        // PEFT's own default, and `init_adapter` casts trained parameters to fp32 besides.
        dtype: Setting::default_of(Dtype::Fp32, by),
        dora: cx.or_default("use_dora", flag, false, by),
        modules_to_save: cx.or_default("additional_target", names, Vec::new(), by),
    }
}

fn quantization(cx: &mut Lowering<'_>, by: &str) -> Setting<Quantization> {
    let Some(bits) = cx.written("quantization_bit", |v| v.to_int()) else {
        return Setting::default_of(Quantization::None, by);
    };
    let method = cx.written("quantization_method", text).map(|m| m.value.to_ascii_lowercase());
    // "bitsandbytes" until 0.9.1, "bnb" since.
    if !matches!(method.as_deref(), None | Some("bnb" | "bitsandbytes")) {
        cx.missing(
            "quantization",
            format!("`{}` is not modelled; `bnb` is", method.unwrap_or_default()),
            bits.origin.location(),
        );
    }
    let double = cx.written("double_quantization", flag).is_none_or(|on| on.value);
    bits.map(|bits| match bits {
        8 => Quantization::Int8,
        _ if double => Quantization::Nf4Double,
        _ => Quantization::Nf4,
    })
}

/// Weights are loaded in the checkpoint's dtype, and what is trained is cast to fp32 unless
/// `pure_bf16` or BAdam (`init_adapter`).
fn precision(cx: &Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) {
    let pure = cx.written("pure_bf16", flag).filter(|on| on.value);
    let badam = cx.written("use_badam", flag).filter(|on| on.value);
    let mixed = match &pure {
        Some(on) => on.clone().map(|_| None),
        None => hf::mixed(cx, defaults),
    };
    let checkpoint = || {
        Setting::assumed(Dtype::Bf16, "LLaMA-Factory loads weights in the checkpoint's dtype; bf16 is usual")
    };
    let full = run.method.value == Method::Full;
    let weights = match (pure, badam, full) {
        (Some(on), _, _) => on.map(|_| Dtype::Bf16),
        (None, Some(_), _) | (None, None, false) => checkpoint(),
        (None, None, true) => Setting::default_of(Dtype::Fp32, defaults.by),
    };
    let trained = weights.clone();
    hf::precision(run, weights, mixed);
    // Adapters, and the layers that `freeze` trains, are fp32 with their gradients and states.
    if !full && trained.origin.is_assumption() {
        run.gradients = Setting::default_of(Dtype::Fp32, defaults.by);
        run.optimizer_state = Setting::default_of(Dtype::Fp32, defaults.by);
    }
}

/// `stage`, and the second model that preference training keeps.
fn task(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let stage = cx.or_default("stage", text, "sft".into(), by);
    run.task = stage.clone().map(|stage| match stage.as_str() {
        "rm" | "dpo" => Task::Preference,
        "ppo" => Task::Rollout,
        // KTO sees one answer an example; its mismatched pairs are scored without gradients.
        _ => Task::CausalLm,
    });
    let adapters = run.lora.is_some();
    let pairwise =
        cx.written("pref_loss", text).is_some_and(|l| matches!(l.value.as_str(), "orpo" | "simpo"));
    let compares = (stage.value == "dpo" && !pairwise) || stage.value == "kto";
    let named = cx.written("ref_model", text);
    let asft = cx.written("use_asft_loss", flag).filter(|on| on.value);
    run.reference_model = if let (true, Some(named)) = (compares, &named) {
        named.clone().map(|_| ReferenceModel::Resident)
    } else if let Some(on) = asft {
        on.map(|_| ReferenceModel::Resident)
    } else if compares && !adapters {
        stage.clone().map(|_| ReferenceModel::Resident)
    } else {
        Setting::default_of(ReferenceModel::None, by)
    };
    // `CustomDPOTrainer` and `CustomKTOTrainer` hold the policy's logits while the reference runs.
    if stage.value == "dpo" || stage.value == "kto" {
        let loss = if compares { Loss::ComparedLogProbabilities } else { Loss::LogProbabilities };
        run.loss = stage.clone().map(|_| loss);
    }
    if run.reference_model.value == ReferenceModel::Resident {
        // `create_ref_model` loads with `is_trainable=False`: nothing is cast to fp32.
        let why = "LLaMA-Factory loads the reference in the checkpoint's dtype; bf16 is usual";
        run.reference_weights = Some(Setting::assumed(Dtype::Bf16, why));
    }
    if stage.value == "ppo" {
        extras::ppo(cx, run, by);
    }
    // `require_logits`: every stage but these two needs them, and Liger then only fuses the
    // cross-entropy itself.
    if cx.written("enable_liger_kernel", flag).is_some_and(|on| on.value) {
        let loss = match stage.value.as_str() {
            "pt" | "sft" => Loss::Fused,
            "dpo" | "kto" => run.loss.value,
            _ => Loss::FullNoUpcast,
        };
        hf::liger(cx, run, loss);
    }
    let neat = cx.written("neat_packing", flag).filter(|on| on.value);
    let packing = neat.or_else(|| cx.written("packing", flag));
    run.batching = match packing {
        Some(on) => on.map(|on| if on { Batching::Packed } else { Batching::Padded }),
        None if stage.value == "pt" => stage.map(|_| Batching::Packed),
        None => Setting::default_of(Batching::Padded, by),
    };
    hf::order_of_rows(cx, run);
}

fn activations(cx: &Lowering<'_>, run: &mut TrainingRun, by: &str) {
    run.activation_checkpointing = cx.or_default(
        "disable_gradient_checkpointing",
        |v| Some(if flag(v)? { Checkpointing::None } else { Checkpointing::Full }),
        Checkpointing::Full,
        by,
    );
    run.reentrant_checkpointing = cx.or_default("use_reentrant_gc", flag, true, by);
    if let Some(on) = cx.written("use_unsloth_gc", flag).filter(|on| on.value) {
        run.activation_offload = on;
    }
    let kind = |v: Value<'_>| {
        Some(match (flag(v), v.as_str()) {
            (Some(true), _) => Attention::Flash,
            (_, Some("disabled" | "off")) => Attention::Eager,
            (_, Some("fa2" | "fa3")) => Attention::Flash,
            _ => Attention::Sdpa,
        })
    };
    run.attention = cx.or_default("flash_attn", kind, Attention::Sdpa, by);
}
