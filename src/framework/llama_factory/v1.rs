//! LLaMA-Factory's second generation (`src/llamafactory/v1`): nested sections, its own trainer
//! over FSDP2 or DeepSpeed.
//!
//! Facts: `v1/config/*.py`, `v1/core/base_trainer.py`, `v1/core/model_engine.py`,
//! `v1/plugins/trainer_plugins/distributed/fsdp2.py` at commit ff6d4d1.

use super::super::baseline::{count, plain};
use super::super::training_arguments::{self as hf, flag, names, text};
use super::super::{Framework, Kind, Lowering, TextNumbers, UnknownKeys, deepspeed};
use crate::change::{Change, RANK, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, FsdpOptions, Kernels, Lora, LoraTargets, Loss,
    Method, ModelCode, Offload, Optimizer, OptimizerImplementation, Quantization, ReferenceModel, Setting,
    Task, TrainingRun,
};

/// LLaMA-Factory v1.
pub struct LlamaFactoryV1;

const BY: &str = "llama-factory v1 (2026-08)";

const MARKS: &[&str] =
    &["model_class", "kernel_config", "dist_config", "sample_backend", "quant_config", "train_dataset"];

impl Framework for LlamaFactoryV1 {
    fn name(&self) -> &'static str {
        "llama-factory-v1"
    }

    fn release(&self) -> &'static str {
        BY
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::OmegaConf
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        root.get("model")?.as_str()?;
        if !MARKS.iter().any(|key| root.get(key).is_some()) {
            return None;
        }
        let trains = ["train_dataset", "learning_rate", "micro_batch_size", "max_steps", "num_train_epochs"];
        Some(if trains.iter().any(|key| root.get(key).is_some()) { Kind::Run } else { Kind::Other })
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../../schemas/llama-factory-v1.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn text_numbers(&self) -> TextNumbers {
        TextNumbers::Fatal
    }

    fn checks_types(&self) -> bool {
        false
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let fsdp = run.parallelism.fsdp.is_some();
        match change {
            // Accumulation follows from the global batch.
            Change::MicroBatch { size, .. } if root.get("global_batch_size").is_some() => {
                set([("micro_batch_size", size.into())])
            }
            Change::Checkpoint => set([("enable_activation_checkpointing", true.into())]),
            Change::Shard(DataParallel::Fsdp) if root.get("dist_config").is_none() => {
                set([("dist_config.name", "fsdp2".into())])
            }
            Change::OffloadAll if fsdp => set([("dist_config.offload_params", true.into())]),
            Change::OffloadOptimizer | Change::OffloadAll if run.parallelism.zero.is_some() => {
                hf::offload_in_deepspeed(change)
            }
            Change::Lora if root.get("peft_config").is_none() => {
                set([("peft_config.name", "lora".into()), ("peft_config.r", RANK.into())])
            }
            Change::Qlora if run.lora.is_some() && root.get("quant_config").is_none() => {
                set([("quant_config.name", "bnb".into()), ("quant_config.quantization_bit", 4.into())])
            }
            Change::SequenceLength(length) => set([("cutoff_len", length.into())]),
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let model = hf::model(cx, "model")?;
        let micro = cx.or_default("micro_batch_size", count, 1, BY);
        let length = cx.or_default("cutoff_len", count, 2048, BY);
        let mut run = plain(BY, model, ModelCode::Transformers, micro, length);
        run.optimizer_implementation = Setting::default_of(OptimizerImplementation::Foreach, BY);
        run.gradient_clipping = cx.or_default("max_grad_norm", |v| v.to_float().map(Some), Some(1.0), BY);
        method(cx, &mut run);
        batching(cx, &mut run);
        attention_and_loss(cx, &mut run);
        optimizer(cx, &mut run);
        run.parallelism.gpus = cx.declared_gpus.clone();
        distribution(cx, &mut run);
        accumulate(cx, &mut run);
        Some(run)
    }
}

/// The plugin that a section names; a section may also be the bare name.
fn plugin(cx: &Lowering<'_>, section: &str) -> Option<Setting<String>> {
    cx.written(section, text).or_else(|| cx.written(&format!("{section}.name"), text))
}

fn method(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    // Loaded in the checkpoint's dtype ("auto"); FSDP's policy computes in bf16.
    let stored =
        || Setting::assumed(Dtype::Bf16, "v1 loads weights in the checkpoint's dtype; bf16 is usual");
    hf::precision(run, stored(), Setting::default_of(None, BY));
    let bits = cx.written("quant_config.quantization_bit", |v| v.to_int());
    if let Some(bits) = bits {
        let double = cx.written("quant_config.double_quantization", flag).is_none_or(|on| on.value);
        run.quantization = bits.map(|bits| match bits {
            8 => Quantization::Int8,
            _ if double => Quantization::Nf4Double,
            _ => Quantization::Nf4,
        });
    }
    let quantised = run.quantization.value != Quantization::None;
    let Some(name) = plugin(cx, "peft_config") else { return };
    match name.value.as_str() {
        "lora" => {
            let targets = |v: Value<'_>| {
                let list = names(v)?;
                let all = list == ["all"] || list == ["all-linear"];
                Some(if all { LoraTargets::LinearModules } else { LoraTargets::Modules(list) })
            };
            run.method = name.map(|_| if quantised { Method::Qlora } else { Method::Lora });
            run.lora = Some(Lora {
                rank: cx.or_default("peft_config.r", count, 8, BY),
                targets: cx.or_default("peft_config.target_modules", targets, LoraTargets::LinearModules, BY),
                dropout: cx.or_default("peft_config.lora_dropout", |v| v.to_float(), 0.05, BY),
                dtype: Setting::default_of(Dtype::Fp32, BY),
                dora: cx.or_default("peft_config.use_dora", flag, false, BY),
                modules_to_save: cx.or_default("peft_config.modules_to_save", names, Vec::new(), BY),
            });
            run.gradients = Setting::default_of(Dtype::Fp32, BY);
            run.optimizer_state = Setting::default_of(Dtype::Fp32, BY);
        }
        "freeze" => {
            run.method = name.map(|_| Method::Freeze);
            run.trainable_layers = Some(cx.or_default("peft_config.freeze_trainable_layers", count, 2, BY));
            run.gradients = Setting::default_of(Dtype::Fp32, BY);
            run.optimizer_state = Setting::default_of(Dtype::Fp32, BY);
        }
        other => {
            let why = format!("`{other}` is not modelled; `lora` and `freeze` are");
            cx.missing("method", why, name.origin.location());
        }
    }
}

fn batching(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let kind = |v: Value<'_>| {
        Some(if v.as_str()?.contains("padding_free") { Batching::Packed } else { Batching::Padded })
    };
    run.batching = cx.or_default("batching_strategy", kind, Batching::Padded, BY);
    run.activation_checkpointing = cx.or_default(
        "enable_activation_checkpointing",
        |v| Some(if flag(v)? { Checkpointing::Full } else { Checkpointing::None }),
        Checkpointing::Full,
        BY,
    );
}

fn attention_and_loss(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    run.attention = cx.or_default("flash_attn", |v| hf::attention(v.as_str()?), Attention::Sdpa, BY);
    // `cross_entropy` runs over logits cast to fp32, shifted with a copy (`compute_log_probs`).
    run.loss = Setting::default_of(Loss::FullShifted, BY);
    if let Some(kernels) = plugin(cx, "kernel_config").filter(|k| k.value.contains("liger")) {
        run.kernels = kernels.map(|_| Kernels::Liger);
    }
    if let Some(loss) = cx.written("pref_loss", text) {
        // DPO runs name their loss; the reference is the base without adapters, else a copy.
        let resident = loss.value == "sigmoid" && run.lora.is_none();
        run.task = loss.clone().map(|_| Task::Preference);
        run.reference_model =
            loss.map(|_| if resident { ReferenceModel::Resident } else { ReferenceModel::None });
    }
}

fn optimizer(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let Some(name) = plugin(cx, "optim_config") else { return };
    let location = name.origin.location();
    run.optimizer = name.clone().map(|name| match name.as_str() {
        "muon" => Optimizer::Muon,
        "adamw" => Optimizer::Adamw,
        _ => Optimizer::Other,
    });
    if run.optimizer.value == Optimizer::Other {
        cx.missing("optimizer", format!("`{}` is not modelled", name.value), location);
    }
}

fn distribution(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let Some(name) = plugin(cx, "dist_config") else {
        hf::replicate(run, BY);
        return;
    };
    match name.value.as_str() {
        // FSDPTurbo is FSDP2 with the experts spread over ranks as well.
        "fsdp2" | "fsdpturbo" => {
            if let Some(expert) = cx.written("dist_config.ep_size", count).filter(|n| n.value > 1) {
                run.parallelism.expert = expert;
            }
            let replicate = cx.written("mp_replicate_size", count).filter(|n| n.value > 1);
            let kind = if replicate.is_some() { DataParallel::Hsdp } else { DataParallel::Fsdp };
            let parallel = &mut run.parallelism;
            parallel.data_parallel = name.map(|_| kind);
            parallel.shard_group = cx.written("mp_shard_size", count);
            parallel.fsdp = Some(FsdpOptions {
                version: Setting::default_of(2, BY),
                reshard_after_forward: cx.or_default("dist_config.reshard_after_forward", flag, true, BY),
                reduce: Setting::default_of(Dtype::Fp32, BY),
                deferred_reduction: Setting::default_of(false, BY),
            });
            if let Some(on) = cx.written("dist_config.offload_params", flag).filter(|on| on.value) {
                parallel.offload_parameters = on.clone().map(|_| Offload::Cpu);
                parallel.offload_optimizer = on.map(|_| Offload::Cpu);
            }
            parallel.context = cx.or_default("cp_size", count, 1, BY);
            let computes = |v: Value<'_>| flag(v).map(|on| if on { Dtype::Bf16 } else { Dtype::Fp32 });
            run.compute = cx.or_default("bf16", computes, Dtype::Bf16, BY);
        }
        "deepspeed" => {
            if !deepspeed::follow(cx, run, "dist_config.config_file", &[]) {
                let why = "`dist_config` names DeepSpeed and no `config_file`";
                cx.missing("sharding", why, name.origin.location());
            }
        }
        other => {
            let why = format!("how `{other}` shards is not modelled; `fsdp2` and `deepspeed` are");
            cx.missing("sharding", why, name.origin.location());
        }
    }
}

/// Accumulation follows from the global batch, once the number of GPUs is known.
fn accumulate(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let Some(global) = cx.written("global_batch_size", count) else { return };
    let ranks =
        run.parallelism.gpus.as_ref().map_or(1, |gpus| gpus.value) / run.parallelism.context.value.max(1);
    let each = run.micro_batch_size.value.saturating_mul(ranks.max(1)).max(1);
    run.gradient_accumulation_steps = global.map(|n| (n / each).max(1));
}
