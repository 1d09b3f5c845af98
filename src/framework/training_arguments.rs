//! The keys of transformers' `TrainingArguments`, which TRL, LLaMA-Factory and thousands of
//! private scripts share, and what the Trainer does when they are absent.
//!
//! Facts: transformers 5.23 `training_args.py`, accelerate 1.15 `accelerator.py` and
//! `utils/fsdp_utils.py`.

use super::baseline::{count, first};
use super::{Lowering, deepspeed, fsdp};
use crate::change::{Change, Step, by_hand, set};
use crate::document::{Dialect, Value};
use crate::run::lengths::SequenceLengths;
use crate::run::{
    Attention, Checkpointing, DataParallel, Doubt, Dtype, Kernels, Loss, ModelRef, Optimizer,
    OptimizerImplementation, Quantization, Setting, TrainingRun, ZeroBuffers,
};

/// What differs between the frameworks that build on the Trainer.
#[derive(Clone, Copy, Debug)]
pub struct Defaults<'a> {
    /// Whose defaults they are, with the version: `trl 1.16`.
    pub by: &'a str,
    /// `gradient_checkpointing` when absent.
    pub checkpointing: bool,
    /// `bf16` when neither it nor `fp16` is given.
    pub bf16: bool,
    /// FSDP's version when `fsdp_config` does not say (1 before transformers 5.10).
    pub fsdp_version: u8,
}

/// Names that only `TrainingArguments` has: two of them beside a model make a Trainer file.
pub const NAMES: &[&str] = &[
    "output_dir",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "gradient_checkpointing_kwargs",
    "num_train_epochs",
    "max_steps",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_ratio",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "bf16",
    "fp16",
    "tf32",
    "logging_steps",
    "logging_strategy",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "eval_strategy",
    "evaluation_strategy",
    "eval_steps",
    "report_to",
    "push_to_hub",
    "hub_model_id",
    "hub_strategy",
    "do_eval",
    "do_train",
    "ddp_timeout",
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "dataloader_num_workers",
    "remove_unused_columns",
    "overwrite_output_dir",
];

/// How many of [`NAMES`] a file has.
pub fn names_in(root: Value<'_>) -> usize {
    NAMES.iter().filter(|name| root.get(name).is_some()).count()
}

/// A flag, also as text that argparse takes for one.
pub fn flag(value: Value<'_>) -> Option<bool> {
    value.to_bool()
}

/// Text that is not empty.
pub fn text(value: Value<'_>) -> Option<String> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A list of names, or one text with commas between them.
pub fn names(value: Value<'_>) -> Option<Vec<String>> {
    let list: Vec<String> = match value.as_str() {
        Some(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
        None => value.items().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
    };
    let list: Vec<String> = list.into_iter().filter(|name| !name.is_empty()).collect();
    (!list.is_empty()).then_some(list)
}

/// The model under `key`; local paths and hub ids are told apart when it is looked up.
pub fn model(cx: &mut Lowering<'_>, key: &str) -> Option<Setting<ModelRef>> {
    let named = cx.written(key, |value| text(value).map(ModelRef::Id));
    if named.is_none() {
        let location = cx.root.get(key).map(super::lowering::here);
        cx.missing("model", format!("`{key}` names no model"), location);
    }
    named
}

/// A dtype's name as `torch_dtype` and its like take it.
pub fn dtype(value: Value<'_>) -> Option<Dtype> {
    match value.as_str()?.trim_start_matches("torch.") {
        "bfloat16" | "bf16" => Some(Dtype::Bf16),
        "float16" | "fp16" | "half" => Some(Dtype::Fp16),
        "float32" | "fp32" | "float" => Some(Dtype::Fp32),
        _ => None,
    }
}

/// The autocast dtype: `bf16`, `fp16`, else the default. `None`: no autocast.
pub fn mixed(cx: &Lowering<'_>, defaults: Defaults<'_>) -> Setting<Option<Dtype>> {
    let bf16 = cx.written("bf16", flag);
    let fp16 = cx.written("fp16", flag);
    match (bf16, fp16) {
        (Some(on), _) if on.value => on.map(|_| Some(Dtype::Bf16)),
        (_, Some(on)) if on.value => on.map(|_| Some(Dtype::Fp16)),
        (Some(off), _) => off.map(|_| None),
        (None, Some(off)) if !defaults.bf16 => off.map(|_| None),
        _ => Setting::default_of(defaults.bf16.then_some(Dtype::Bf16), defaults.by),
    }
}

/// Trained weights in `weights`, computed with under autocast in `mixed`.
pub fn precision(run: &mut TrainingRun, weights: Setting<Dtype>, mixed: Setting<Option<Dtype>>) {
    run.gradients = weights.clone();
    run.optimizer_state = weights.clone();
    run.autocast = mixed.clone().map(|dtype| dtype.is_some());
    run.compute = match mixed.value {
        Some(dtype) => mixed.map(|_| dtype),
        None => weights.clone(),
    };
    run.weights = weights;
}

/// `attn_implementation` and its like.
pub fn attention(name: &str) -> Option<Attention> {
    Some(match name {
        "eager" => Attention::Eager,
        "sdpa" => Attention::Sdpa,
        "flex_attention" => Attention::Flex,
        _ if name.contains("flash") => Attention::Flash,
        _ => return None,
    })
}

/// Everything the Trainer itself reads, on top of what the framework has already set.
pub fn lower(cx: &mut Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) {
    let by = defaults.by;
    run.micro_batch_size = micro_batch(cx, by);
    run.gradient_accumulation_steps = cx.or_default("gradient_accumulation_steps", count, 1, by);
    run.gradient_clipping =
        cx.or_default("max_grad_norm", |v| v.to_float().map(|x| (x > 0.0).then_some(x)), Some(1.0), by);
    run.compile = cx.or_default("torch_compile", flag, false, by);
    optimizer(cx, run, by);
    checkpointing(cx, run, defaults);
    evaluation(cx, run, by);
    if first(cx, &["use_liger_kernel", "use_liger"], flag).is_some_and(|on| on.value) {
        liger(cx, run, Loss::Fused);
    }
    run.parallelism.gpus = first(cx, &["num_processes"], count).or_else(|| cx.declared_gpus.clone());
}

/// Sharding comes last: it changes what precision means.
pub fn distribution(cx: &mut Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) {
    if !deepspeed::follow(cx, run, "deepspeed", deepspeed::TRAINING_ARGUMENTS)
        && !fsdp::from_training_arguments(cx, run, defaults)
    {
        replicate(run, defaults.by);
    }
}

/// More than one GPU without sharding is DDP.
pub fn replicate(run: &mut TrainingRun, by: &str) {
    let several = run.parallelism.gpus.as_ref().is_some_and(|gpus| gpus.value > 1);
    run.parallelism.data_parallel =
        Setting::default_of(if several { DataParallel::Ddp } else { DataParallel::None }, by);
}

/// `per_device_train_batch_size`, or its name of 2019.
pub fn micro_batch(cx: &Lowering<'_>, by: &str) -> Setting<u64> {
    first(cx, &["per_device_train_batch_size", "per_gpu_train_batch_size"], count)
        .unwrap_or_else(|| Setting::default_of(8, by))
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let named = cx.written("optim", |v| v.as_str().map(optimizer_named));
    let adafactor = cx.written("adafactor", flag).filter(|on| on.value);
    let chosen = named
        .or_else(|| adafactor.map(|on| on.map(|_| (Optimizer::Adafactor, OptimizerImplementation::ForLoop))))
        .unwrap_or_else(|| Setting::default_of((Optimizer::Adamw, OptimizerImplementation::Fused), by));
    run.optimizer = chosen.clone().map(|(optimizer, _)| optimizer);
    run.optimizer_implementation = chosen.map(|(_, implementation)| implementation);
    // `Trainer.create_optimizer` overrides `optim_bits` to 32 for each `nn.Embedding`.
    run.wide_embedding_states = Setting::default_of(true, by);
}

fn checkpointing(cx: &Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) {
    let word = |on: bool| if on { Checkpointing::Full } else { Checkpointing::None };
    run.activation_checkpointing = first(cx, &["gradient_checkpointing", "activation_checkpointing"], flag)
        .unwrap_or_else(|| Setting::default_of(defaults.checkpointing, defaults.by))
        .map(word);
    // transformers' own default is false from 5 on, and TRL's before (`gradient_checkpointing_enable`).
    let reentrant = cx.written("gradient_checkpointing_kwargs.use_reentrant", flag);
    run.reentrant_checkpointing = reentrant.unwrap_or_else(|| Setting::default_of(false, defaults.by));
    if let Some(on) = cx.written("activation_offloading", flag) {
        run.activation_offload = on;
    }
}

/// The evaluation batch, when the file evaluates during training.
fn evaluation(cx: &Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let strategy = first(cx, &["eval_strategy", "evaluation_strategy"], |v| v.as_str().map(str::to_owned));
    let evaluates = match strategy {
        Some(strategy) => strategy.value != "no",
        None => cx.root.get("do_eval").and_then(flag) == Some(true),
    };
    if evaluates {
        run.eval_batch_size = Some(
            first(cx, &["per_device_eval_batch_size", "per_gpu_eval_batch_size"], count)
                .unwrap_or_else(|| Setting::default_of(8, by)),
        );
    }
}

/// Liger's kernels, with the given loss.
pub fn liger(cx: &Lowering<'_>, run: &mut TrainingRun, loss: Loss) {
    let keys = ["use_liger_kernel", "use_liger", "enable_liger_kernel"];
    if let Some(on) = first(cx, &keys, flag) {
        run.kernels = on.clone().map(|_| Kernels::Liger);
        run.loss = on.map(|_| loss);
    }
}

/// Unsloth's kernels fuse as Liger's do; its checkpoints go to the host.
pub fn unsloth(run: &mut TrainingRun, on: Setting<bool>) {
    run.beside.doubts.push(Doubt {
        why: "Unsloth's kernels are not traced: Liger's stand in",
        below: 0.35,
        above: 0.25,
    });
    run.kernels = on.clone().map(|_| Kernels::Liger);
    run.loss = on.clone().map(|_| Loss::Fused);
    if run.activation_checkpointing.value == Checkpointing::Full {
        run.activation_offload = on;
    }
}

/// DeepSpeed's engine: weights and gradients in the mixed-precision dtype, fp32 master copies
/// and states, no autocast; its buffers at their defaults.
pub fn under_deepspeed(run: &mut TrainingRun) {
    let by = "deepspeed 0.19";
    if run.autocast.value {
        let dtype = run.compute.value;
        let of = |dtype: Dtype| Setting::default_of(dtype, by);
        adapters_under_deepspeed(run, of(dtype), by);
        run.weights = of(dtype);
        run.gradients = of(dtype);
        run.optimizer_state = of(Dtype::Fp32);
        run.master_weights = Setting::default_of(true, by);
        run.autocast = Setting::default_of(false, by);
    }
    let stage3 = run.parallelism.data_parallel.value == DataParallel::Zero3;
    run.parallelism.zero = Some(ZeroBuffers::defaults(stage3, by));
}

/// The engine casts adapters like everything else. A model that was made under `zero.Init` it leaves
/// as it is since 0.19.2 (`_cast_module_mixed_precision`), and PEFT makes adapters in fp32; a
/// quantised model transformers does not make so.
pub fn adapters_under_deepspeed(run: &mut TrainingRun, dtype: Setting<Dtype>, by: &'static str) {
    let stage3 = run.parallelism.data_parallel.value == DataParallel::Zero3;
    let as_made = stage3 && run.quantization.value == Quantization::None;
    if let Some(lora) = &mut run.lora {
        lora.dtype = if as_made { Setting::default_of(Dtype::Fp32, by) } else { dtype };
    }
}

/// `OptimizerNames`, by what each keeps per parameter.
pub fn optimizer_named(name: &str) -> (Optimizer, OptimizerImplementation) {
    use OptimizerImplementation::{ForLoop, Foreach, Fused};
    match name {
        "adamw_torch_fused" | "adamw_torch_npu_fused" | "adamw_apex_fused" => (Optimizer::Adamw, Fused),
        "adamw_torch" | "adamw_torch_xla" => (Optimizer::Adamw, Foreach),
        "adamw_hf" => (Optimizer::Adamw, ForLoop),
        "adamw_8bit" | "adamw_bnb_8bit" | "adamw_torch_8bit" => (Optimizer::Adamw8bit, Fused),
        "adamw_torch_4bit" => (Optimizer::Adamw4bit, Fused),
        "paged_adamw" | "paged_adamw_32bit" => (Optimizer::PagedAdamw32bit, Fused),
        "paged_adamw_8bit" => (Optimizer::PagedAdamw8bit, Fused),
        "adafactor" => (Optimizer::Adafactor, ForLoop),
        "sgd" => (Optimizer::Sgd, Foreach),
        "adagrad" => (Optimizer::Adagrad, Foreach),
        "rmsprop" => (Optimizer::Rmsprop, Foreach),
        "lion" | "lion_32bit" => (Optimizer::Lion, Fused),
        "lion_8bit" => (Optimizer::Lion8bit, Fused),
        "paged_lion" | "paged_lion_32bit" => (Optimizer::PagedLion32bit, Fused),
        "paged_lion_8bit" => (Optimizer::PagedLion8bit, Fused),
        "galore_adamw" => (Optimizer::Galore, ForLoop),
        "galore_adamw_layerwise" => (Optimizer::Galore, OptimizerImplementation::InBackward),
        "galore_adamw_8bit" => (Optimizer::Galore8bit, ForLoop),
        "galore_adamw_8bit_layerwise" => (Optimizer::Galore8bit, OptimizerImplementation::InBackward),
        "schedule_free_adamw" => (Optimizer::ScheduleFreeAdamw, Foreach),
        _ => (Optimizer::Other, Foreach),
    }
}

/// What carries out a change that the Trainer's own keys can say.
pub fn steps(change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
    let adamw = run.optimizer.value == Optimizer::Adamw;
    // bitsandbytes' kernels take no sharded tensors.
    let bitsandbytes = adamw && run.parallelism.fsdp.is_none();
    match change {
        Change::MicroBatch { size, accumulation } => {
            let old = "per_gpu_train_batch_size";
            let key = if root.get(old).is_some() { old } else { "per_device_train_batch_size" };
            set([(key, size.into()), ("gradient_accumulation_steps", accumulation.into())])
        }
        Change::Checkpoint => set([("gradient_checkpointing", true.into())]),
        Change::Liger => set([("use_liger_kernel", true.into())]),
        Change::Optimizer8bit if bitsandbytes => set([("optim", "adamw_bnb_8bit".into())]),
        Change::PagedOptimizer8bit if bitsandbytes => set([("optim", "paged_adamw_8bit".into())]),
        Change::OffloadOptimizer | Change::OffloadAll if run.parallelism.zero.is_some() => {
            offload_in_deepspeed(change)
        }
        Change::OffloadAll if root.get("fsdp_config").is_some_and(|v| v.is_mapping()) => {
            set([("fsdp_config.offload_params", true.into())])
        }
        Change::OffloadAll => by_hand("set `fsdp_offload_params: true` in the launch file"),
        _ => None,
    }
}

/// Sharding where the file only takes a DeepSpeed file of the user's own.
pub fn shard(stage: DataParallel, root: Value<'_>) -> Option<Vec<Step>> {
    let number = match stage {
        DataParallel::Zero1 => 1,
        DataParallel::Zero2 => 2,
        DataParallel::Zero3 => 3,
        _ => return None,
    };
    match root.get("deepspeed").and_then(|v| v.as_str()) {
        Some(_) => by_hand(format!("set `zero_optimization.stage: {number}` in the DeepSpeed file")),
        None => by_hand(format!("launch with a DeepSpeed file of stage {number}")),
    }
}

/// Offload is said in DeepSpeed's file, not in the run's.
pub fn offload_in_deepspeed(change: Change) -> Option<Vec<Step>> {
    let mut steps = by_hand("set `zero_optimization.offload_optimizer.device: cpu` in the DeepSpeed file")?;
    if change == Change::OffloadAll {
        steps.extend(by_hand("set `zero_optimization.offload_param.device: cpu` in the DeepSpeed file")?);
    }
    Some(steps)
}

/// A quantised base goes with every way of sharding but ZeRO stage 3, which gathers weights that
/// bitsandbytes has packed.
pub fn may_quantise(run: &TrainingRun) -> bool {
    run.parallelism.data_parallel.value != DataParallel::Zero3
}

/// How the files of the Trainer family are typed.
pub fn dialect(syntax: crate::document::Syntax) -> Dialect {
    match syntax {
        crate::document::Syntax::Json => Dialect::Json,
        _ => Dialect::PyYaml,
    }
}

/// transformers' length-grouped sampler puts the longest batch first, so that a run that will not fit
/// says so at once (`get_length_grouped_indices` in trainer_pt_utils.py).
pub fn order_of_rows(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let grouped = cx
        .written("group_by_length", |v| v.as_bool())
        .or_else(|| cx.written("train_sampling_strategy", |v| v.as_str().map(|s| s == "group_by_length")));
    if let Some(on) = grouped.filter(|on| on.value) {
        run.sequence_lengths = on.map(|_| Some(SequenceLengths::LONGEST_FIRST));
    }
}
