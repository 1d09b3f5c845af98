//! autotrain-advanced's files, of which the language-model tasks are lowered: TRL's trainers
//! behind keys of its own.
//!
//! Facts: autotrain-advanced 0.8.36 `parser.py`, `trainers/clm/{params,utils}.py`,
//! `trainers/clm/train_clm_*.py`.

use super::baseline::{count, plain};
use super::training_arguments::{self as hf, flag, names, text};
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, RANK, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, Dtype, Lora, LoraTargets, Method, ModelCode, Quantization,
    ReferenceModel, Setting, Task, TrainingRun,
};

/// autotrain-advanced.
pub struct Autotrain;

const BY: &str = "autotrain 0.8.36";

impl Framework for Autotrain {
    fn name(&self) -> &'static str {
        "autotrain"
    }

    fn release(&self) -> &'static str {
        BY
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::PyYaml
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let task = root.get("task")?.as_str()?;
        root.get("base_model")?.as_str()?;
        root.get("params").filter(Value::is_mapping)?;
        Some(if task.starts_with("llm") { Kind::Run } else { Kind::Other })
    }

    fn schema(&self, kind: Kind) -> Option<&'static str> {
        // The keys of vision and tabular tasks are others.
        (kind == Kind::Run).then_some(include_str!("../../schemas/autotrain.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Dropped
    }

    fn steps(&self, change: Change, run: &TrainingRun, _: Value<'_>) -> Option<Vec<Step>> {
        let adamw = run.optimizer.value == crate::run::Optimizer::Adamw;
        match change {
            Change::MicroBatch { size, accumulation } => set([
                ("params.batch_size", size.into()),
                ("params.gradient_accumulation", accumulation.into()),
            ]),
            Change::Checkpoint => set([("params.disable_gradient_checkpointing", false.into())]),
            Change::Optimizer8bit if adamw => set([("params.optimizer", "adamw_bnb_8bit".into())]),
            Change::PagedOptimizer8bit if adamw => set([("params.optimizer", "paged_adamw_8bit".into())]),
            // Without `quantization` it is int4.
            Change::Lora => set([
                ("params.peft", true.into()),
                ("params.quantization", serde_json::Value::Null),
                ("params.lora_r", RANK.into()),
            ]),
            Change::Qlora if run.lora.is_some() => set([("params.quantization", "int4".into())]),
            Change::Qlora => set([
                ("params.peft", true.into()),
                ("params.quantization", "int4".into()),
                ("params.lora_r", RANK.into()),
            ]),
            Change::SequenceLength(length) => set([("params.block_size", length.into())]),
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let model = hf::model(cx, "base_model")?;
        let micro = cx.or_default("params.batch_size", count, 2, BY);
        // -1 and nothing at all mean the tokenizer's limit, 1024 at most (`configure_block_size`).
        let length = cx.or_default("params.block_size", count, 1024, BY);
        let mut run = plain(BY, model, ModelCode::Transformers, micro, length);
        run.gradient_accumulation_steps = cx.or_default("params.gradient_accumulation", count, 4, BY);
        run.gradient_clipping =
            cx.or_default("params.max_grad_norm", |v| v.to_float().map(Some), Some(1.0), BY);
        let chosen = cx.or_default(
            "params.optimizer",
            |v| v.as_str().map(hf::optimizer_named),
            hf::optimizer_named("adamw_torch"),
            BY,
        );
        run.optimizer = chosen.clone().map(|(optimizer, _)| optimizer);
        run.optimizer_implementation = chosen.map(|(_, implementation)| implementation);
        // transformers' `Trainer.create_optimizer`.
        run.wide_embedding_states = Setting::default_of(true, BY);
        run.activation_checkpointing = cx.or_default(
            "params.disable_gradient_checkpointing",
            |v| Some(if flag(v)? { Checkpointing::None } else { Checkpointing::Full }),
            Checkpointing::Full,
            BY,
        );
        run.attention = cx.or_default(
            "params.use_flash_attention_2",
            |v| Some(if flag(v)? { Attention::Flash } else { Attention::Sdpa }),
            Attention::Sdpa,
            BY,
        );
        method(cx, &mut run);
        task(cx, &mut run);
        if cx.root.path("data.valid_split").is_some_and(|v| !v.is_null()) {
            run.eval_batch_size = Some(run.micro_batch_size.clone());
        }
        if let Some(on) = cx.written("params.unsloth", flag).filter(|on| on.value) {
            hf::unsloth(&mut run, on);
        }
        run.parallelism.gpus = cx.declared_gpus.clone();
        if cx.root.path("params.distributed_backend").and_then(text).as_deref() == Some("deepspeed") {
            let at = cx.root.path("params.distributed_backend").map(super::lowering::here);
            cx.missing("sharding", "autotrain launches DeepSpeed with a file of its own", at);
        }
        hf::replicate(&mut run, BY);
        Some(run)
    }
}

/// Weights are loaded as `from_pretrained` does by itself: fp32, beside quantised ones fp16.
fn method(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let mixed = cx.or_default(
        "params.mixed_precision",
        |v| match v.as_str()? {
            "bf16" => Some(Some(Dtype::Bf16)),
            "fp16" => Some(Some(Dtype::Fp16)),
            _ => Some(None),
        },
        None,
        BY,
    );
    let adapters = cx.or_default("params.peft", flag, false, BY);
    if !adapters.value {
        hf::precision(run, Setting::default_of(Dtype::Fp32, BY), mixed);
        return;
    }
    // `quantization: null` is written to switch it off; absent, it is int4.
    run.quantization = cx
        .written("params.quantization", |v| match v.as_str() {
            Some("int4") => Some(Quantization::Nf4),
            Some("int8") => Some(Quantization::Int8),
            _ => Some(Quantization::None),
        })
        .unwrap_or_else(|| Setting::default_of(Quantization::Nf4, BY));
    let quantised = run.quantization.value != Quantization::None;
    let stored = if quantised { Dtype::Fp16 } else { Dtype::Fp32 };
    // Embeddings and head are cast back under bf16 (TRL's `peft_module_casting_to_bf16`).
    run.prepare_kbit = Setting::default_of(quantised && mixed.value != Some(Dtype::Bf16), BY);
    hf::precision(run, Setting::default_of(stored, BY), mixed);
    run.gradients = Setting::default_of(Dtype::Fp32, BY);
    run.optimizer_state = Setting::default_of(Dtype::Fp32, BY);
    run.method = adapters.map(|_| if quantised { Method::Qlora } else { Method::Lora });
    let targets = |v: Value<'_>| {
        let list = names(v)?;
        Some(if list == ["all-linear"] { LoraTargets::AllLinear } else { LoraTargets::Modules(list) })
    };
    run.lora = Some(Lora {
        rank: cx.or_default("params.lora_r", count, 16, BY),
        targets: cx.or_default("params.target_modules", targets, LoraTargets::AllLinear, BY),
        dropout: cx.or_default("params.lora_dropout", |v| v.to_float(), 0.05, BY),
        dtype: Setting::default_of(Dtype::Fp32, BY),
        dora: Setting::default_of(false, BY),
        modules_to_save: Setting::default_of(Vec::new(), BY),
    });
}

/// The trainer is in the task's name.
fn task(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let Some(task) = cx.written("task", text) else { return };
    let resident = task.value == "llm-dpo" && run.lora.is_none();
    run.task = task.clone().map(|task| match task.as_str() {
        "llm-dpo" | "llm-orpo" | "llm-reward" => Task::Preference,
        _ => Task::CausalLm,
    });
    run.batching = task.clone().map(|task| match task.as_str() {
        "llm-dpo" | "llm-orpo" | "llm-reward" => Batching::Padded,
        // Supervised fine-tuning always packs, and the plain trainer joins texts into blocks.
        _ => Batching::Packed,
    });
    if resident {
        run.reference_model = task.map(|_| ReferenceModel::Resident);
    }
}
