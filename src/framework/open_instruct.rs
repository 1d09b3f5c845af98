//! open-instruct's flat files: supervised fine-tuning and DPO over Accelerate with DeepSpeed.
//!
//! Facts: `finetune.py`, `dpo_utils.py`, `model_utils.py`, `olmo_core_utils.py` at commit e6c3044.

use super::baseline::{count, first, plain};
use super::training_arguments::{self as hf, flag};
use super::{Framework, Kind, Lowering, TextNumbers, UnknownKeys};
use crate::change::{Change, RANK, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Batching, Checkpointing, DataParallel, Dtype, Lora, LoraTargets, Loss, Method, ModelCode,
    Offload, Optimizer, OptimizerImplementation, Quantization, ReferenceModel, Setting, Task, TrainingRun,
};

/// open-instruct.
pub struct OpenInstruct;

const BY: &str = "open-instruct 2026-08";

const MARKS: &[&str] = &[
    "with_tracking",
    "checkpointing_steps",
    "use_slow_tokenizer",
    "dataset_mixer_list",
    "dataset_mix_dir",
    "use_qlora",
    "use_lora",
    "dataset_transform_fn",
    "max_train_steps",
    "preprocessing_num_workers",
    "keep_last_n_checkpoints",
];

const OTHERS: &[&str] =
    &["torch_dtype", "attn_implementation", "use_peft", "log_level", "hub_model_id", "dataset_mixture"];

/// LoRA goes to these layers whatever the file says.
const TARGETS: &[&str] = &["q_proj", "o_proj", "v_proj", "k_proj", "gate_proj", "up_proj", "down_proj"];

impl Framework for OpenInstruct {
    fn name(&self) -> &'static str {
        "open-instruct"
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
        let has = |keys: &[&str]| keys.iter().any(|key| root.get(key).is_some());
        root.get("model_name_or_path")?;
        (has(MARKS) && !has(OTHERS)).then_some(Kind::Run)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../schemas/open-instruct.schema.json"))
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
        match change {
            // Its scripts make torch's AdamW, whatever `optim` says; only QLoRA's may be paged.
            Change::Optimizer8bit | Change::PagedOptimizer8bit => None,
            Change::Lora => set([("use_lora", true.into()), ("lora_rank", RANK.into())]),
            Change::Qlora if !hf::may_quantise(run) => None,
            Change::Qlora if run.lora.is_some() => set([("use_qlora", true.into())]),
            Change::Qlora => {
                set([("use_lora", true.into()), ("use_qlora", true.into()), ("lora_rank", RANK.into())])
            }
            Change::SequenceLength(length) => set([("max_seq_length", length.into())]),
            Change::Shard(stage) => hf::shard(stage, root),
            _ => hf::steps(change, run, root),
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let model = hf::model(cx, "model_name_or_path")?;
        let preference = preference(cx);
        let micro = cx.or_default("per_device_train_batch_size", count, 8, BY);
        let length = match first(cx, &["max_seq_length", "max_token_length"], count) {
            Some(length) => length,
            None => {
                cx.missing(
                    "sequence length",
                    "`max_seq_length` is not there: the tokenizer's limit holds",
                    None,
                );
                Setting::assumed(4096, "the tokenizer's limit is not known")
            }
        };
        let mut run = plain(BY, model, ModelCode::Transformers, micro, length);
        run.gradient_accumulation_steps = cx.or_default("gradient_accumulation_steps", count, 1, BY);
        run.gradient_clipping =
            first(cx, &["clip_grad_norm", "max_grad_norm"], |v| v.to_float().map(|x| (x > 0.0).then_some(x)))
                .unwrap_or_else(|| Setting::default_of(None, BY));
        method(cx, &mut run, preference.is_some());
        run.activation_checkpointing = cx.or_default(
            "gradient_checkpointing",
            |v| Some(if flag(v)? { Checkpointing::Full } else { Checkpointing::None }),
            Checkpointing::None,
            BY,
        );
        let flash = |v: Value<'_>| Some(if flag(v)? { Attention::Flash } else { Attention::Sdpa });
        run.attention = cx.or_default("use_flash_attn", flash, Attention::Flash, BY);
        run.batching = cx.or_default(
            "packing",
            |v| Some(if flag(v)? { Batching::Packed } else { Batching::Padded }),
            Batching::Padded,
            BY,
        );
        hf::liger(cx, &mut run, Loss::Fused);
        if let Some(preference) = preference {
            // Reference log-probabilities are computed first and kept; no second model stays.
            run.task = preference;
            run.reference_model = Setting::default_of(ReferenceModel::None, BY);
        }
        run.parallelism.gpus = cx.declared_gpus.clone();
        sharding(cx, &mut run);
        Some(run)
    }
}

/// DPO files mix preferences; the key that says so.
fn preference(cx: &Lowering<'_>) -> Option<Setting<Task>> {
    let keys = ["dpo_loss_type", "dpo_beta", "loss_type", "beta", "concatenated_forward", "mixer_list"];
    keys.iter()
        .find_map(|key| cx.root.get(key))
        .map(|value| Setting::written(Task::Preference, super::lowering::here(value)))
}

/// Weights are always loaded in bf16.
fn method(cx: &mut Lowering<'_>, run: &mut TrainingRun, preference: bool) {
    let bf16 = || Setting::default_of(Dtype::Bf16, BY);
    hf::precision(run, bf16(), Setting::default_of(Some(Dtype::Bf16), BY));
    run.optimizer_implementation = cx.or_default(
        "fused_optimizer",
        |v| Some(if flag(v)? { OptimizerImplementation::Fused } else { OptimizerImplementation::Foreach }),
        if preference { OptimizerImplementation::Foreach } else { OptimizerImplementation::Fused },
        BY,
    );
    let quantised = cx.written("use_qlora", flag).filter(|on| on.value);
    let adapters = first(cx, &["use_lora", "use_peft"], flag).filter(|on| on.value);
    if let Some(on) = &quantised {
        run.quantization = on.clone().map(|_| Quantization::Nf4Double);
        run.prepare_kbit = Setting::default_of(true, BY);
        let small = cx.written("use_8bit_optimizer", flag).is_some_and(|on| on.value);
        run.optimizer =
            on.clone().map(|_| if small { Optimizer::PagedAdamw8bit } else { Optimizer::PagedAdamw32bit });
    }
    let Some(on) = quantised.clone().or(adapters) else { return };
    run.method = on.map(|_| if quantised.is_some() { Method::Qlora } else { Method::Lora });
    let targets = TARGETS.iter().map(|name| (*name).to_owned()).collect();
    run.lora = Some(Lora {
        rank: first(cx, &["lora_rank", "lora_r"], count).unwrap_or_else(|| Setting::default_of(64, BY)),
        targets: Setting::default_of(LoraTargets::Modules(targets), BY),
        dropout: cx.or_default("lora_dropout", |v| v.to_float(), 0.1, BY),
        dtype: Setting::default_of(Dtype::Fp32, BY),
        dora: Setting::default_of(false, BY),
        modules_to_save: Setting::default_of(Vec::new(), BY),
    });
    run.gradients = Setting::default_of(Dtype::Fp32, BY);
    run.optimizer_state = Setting::default_of(Dtype::Fp32, BY);
}

/// `zero_stage` and the offload switches of the DPO files; the SFT files leave sharding to the
/// launch command, which no key names.
fn sharding(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let stage = first(cx, &["zero_stage", "deepspeed_stage"], |v| v.to_int());
    let Some(stage) = stage else {
        hf::replicate(run, BY);
        let several = run.parallelism.gpus.as_ref().is_some_and(|gpus| gpus.value > 1);
        if several {
            let what = "open-instruct is launched with an Accelerate file that this file does not name";
            run.parallelism.data_parallel =
                Setting::assumed(DataParallel::Zero3, format!("{what}; its own use stage 3"));
            hf::under_deepspeed(run);
        }
        return;
    };
    run.parallelism.data_parallel = stage.map(|stage| match stage {
        1 => DataParallel::Zero1,
        2 => DataParallel::Zero2,
        3 => DataParallel::Zero3,
        _ => DataParallel::Ddp,
    });
    if run.parallelism.data_parallel.value != DataParallel::Ddp {
        hf::under_deepspeed(run);
    }
    let cpu = |v: Value<'_>| flag(v).filter(|on| *on).map(|_| Offload::Cpu);
    if let Some(place) = first(cx, &["offload_optimizer", "deepspeed_offload_optimizer"], cpu) {
        run.parallelism.offload_optimizer = place;
    }
    if let Some(place) = first(cx, &["offload_param", "deepspeed_offload_param"], cpu) {
        run.parallelism.offload_parameters = place;
    }
}
