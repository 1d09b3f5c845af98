//! GPT-NeoX's files: YAML (usually one flow mapping) read by PyYAML, hyphens as good as
//! underscores, several files merged into one run. The architecture is spelled out; DeepSpeed's
//! settings stand inline.

pub(crate) mod model;

use super::baseline::{count, plain};
use super::lowering::here;
use super::{Framework, Kind, Lowering, TextNumbers, UnknownKeys};
use crate::change::{Change, Step};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Checkpointing, DataParallel, Dtype, Loss, ModelCode, Offload, Optimizer,
    OptimizerImplementation, Origin, ReferenceModel, Setting, Task, TrainingRun, ZeroBuffers,
};

/// GPT-NeoX.
pub struct GptNeox;

const RELEASE: &str = "gpt-neox 2.0";

impl Framework for GptNeox {
    fn name(&self) -> &'static str {
        "gpt-neox"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        if syntax == Syntax::Json { Dialect::Json } else { Dialect::PyYaml }
    }

    /// DeepSpeed's own names (`train_micro_batch_size_per_gpu`) prove nothing; the pipeline's
    /// size does, and so do the layers with the heads and the sequence.
    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let number = |key: &str| get(root, key).and_then(|v| v.as_int()).is_some();
        let shape = number("num_layers") && number("hidden_size");
        let pipeline = number("pipe_parallel_size");
        let trains = ["train_micro_batch_size_per_gpu", "train_batch_size"].iter().any(|key| number(key))
            || ["optimizer", "zero_optimization"]
                .iter()
                .any(|key| get(root, key).is_some_and(|v| v.is_mapping()));
        if !(pipeline || (shape && number("num_attention_heads") && number("seq_length") && trains)) {
            return overlay(root).then_some(Kind::Fragment);
        }
        let sweep = get(root, "autotuning").is_some() || get(root, "autotuning_config").is_some();
        Some(if shape && trains && !sweep { Kind::Run } else { Kind::Fragment })
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../../schemas/gpt-neox.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn text_numbers(&self) -> TextNumbers {
        TextNumbers::Fatal
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        // Top-level keys may be spelled with hyphens.
        let own = |key: &str| {
            let hyphens = key.replace('_', "-");
            if root.get(&hyphens).is_some() { hyphens } else { key.to_owned() }
        };
        let one = |key: &str, value: serde_json::Value| Some(vec![Step::Set(key.to_owned(), value)]);
        let zero = own("zero_optimization");
        let sections = get(root, "zero_optimization").is_some_and(|v| v.is_mapping());
        let stages = get(root, "pipe_parallel_size").and_then(|v| v.to_int()).unwrap_or(0);
        match change {
            Change::MicroBatch { size, accumulation } => {
                let micro = own("train_micro_batch_size_per_gpu");
                root.get(&micro)?;
                Some(vec![
                    Step::Set(micro, size.into()),
                    Step::Set(own("gradient_accumulation_steps"), accumulation.into()),
                ])
            }
            Change::Checkpoint => one(&own("checkpoint_activations"), true.into()),
            Change::Optimizer8bit if get(root, "optimizer").is_some() => {
                one(&own("use_bnb_optimizer"), true.into())
            }
            Change::Shard(DataParallel::Zero1) if sections => one(&format!("{zero}.stage"), 1.into()),
            // The pipeline engine takes no sharded gradients or weights.
            Change::Shard(DataParallel::Zero2) if sections && stages == 0 => {
                one(&format!("{zero}.stage"), 2.into())
            }
            Change::Shard(DataParallel::Zero3) if sections && stages == 0 => {
                one(&format!("{zero}.stage"), 3.into())
            }
            Change::SequenceLength(length) if run.sequence_length.origin.location().is_some() => {
                one(&own("seq_length"), length.into())
            }
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let model = model::read(cx)?;
        let micro = batch(cx);
        let sequence = written(cx, "seq_length", count).unwrap_or_else(|| {
            cx.missing("sequence length", "set `seq_length`", None);
            Setting::assumed(0, "missing")
        });
        let mut run = plain(RELEASE, model, ModelCode::GptNeox, micro, sequence);
        parallelism(cx, &mut run);
        precision(cx, &mut run);
        optimizer(cx, &mut run);
        activations(cx, &mut run);
        let accumulation = written(cx, "gradient_accumulation_steps", count);
        run.gradient_accumulation_steps =
            accumulation.or_else(|| written(cx, "gas", count)).unwrap_or_else(|| default(1));
        run.gradient_clipping =
            written(cx, "gradient_clipping", |v| v.to_float().map(|x| (x > 0.0).then_some(x)))
                .unwrap_or_else(|| default(Some(1.0)));
        if written(cx, "fp16_lm_cross_entropy", |v| v.as_bool()).is_some_and(|s| s.value) {
            run.loss = default(Loss::FullNoUpcast);
        }
        task(cx, &mut run);
        Some(run)
    }
}

/// A setup file: paths, logging, profiling, under names that nobody else has together.
fn overlay(root: Value<'_>) -> bool {
    const OWN: [&str; 18] = [
        "vocab_file",
        "merge_file",
        "tensorboard_dir",
        "checkpoint_validation_with_forward_pass",
        "wandb_team",
        "wandb_host",
        "deepspeed_slurm",
        "no_ssh_check",
        "text_gen_type",
        "maximum_tokens",
        "sample_input_file",
        "sample_output_file",
        "profile_step_start",
        "profile_step_stop",
        "memory_profiling_path",
        "deepspeed_extra_args",
        "comet_experiment_name",
        "distributed_backend",
    ];
    let scalar = |key: &&str| get(root, key).is_some_and(|v| v.text().is_some() || v.is_mapping());
    let sparse = ["sparsity_config", "attention_config"].iter().all(|key| get(root, key).is_some());
    sparse || OWN.iter().filter(|key| scalar(key)).count() >= 2
}

fn default<T>(value: T) -> Setting<T> {
    Setting::default_of(value, RELEASE)
}

/// A key under either spelling; the loader replaces hyphens at the top level.
pub(crate) fn get<'a>(root: Value<'a>, key: &str) -> Option<Value<'a>> {
    root.get(key).or_else(|| key.contains('_').then(|| root.get(&key.replace('_', "-"))).flatten())
}

fn written<'a, T>(
    cx: &Lowering<'a>,
    key: &str,
    read: impl FnOnce(Value<'a>) -> Option<T>,
) -> Option<Setting<T>> {
    let value = get(cx.root, key)?;
    read(value).map(|v| Setting::written(v, here(value)))
}

/// The micro-batch, written or from the whole batch where the GPUs are known.
fn batch(cx: &mut Lowering<'_>) -> Setting<u64> {
    if let Some(micro) =
        written(cx, "train_micro_batch_size_per_gpu", count).or_else(|| written(cx, "batch_size", count))
    {
        return micro;
    }
    let accumulation = written(cx, "gradient_accumulation_steps", count).map_or(1, |s| s.value);
    let model_ranks = ["model_parallel_size", "pipe_parallel_size"]
        .iter()
        .filter_map(|key| get(cx.root, key).and_then(count))
        .fold(1u64, u64::saturating_mul);
    let gpus = cx.declared_gpus.as_ref().map(|g| (g.value / model_ranks).max(1));
    match (written(cx, "train_batch_size", count), gpus) {
        (Some(whole), Some(data)) => whole.map(|n| (n / accumulation.saturating_mul(data).max(1)).max(1)),
        (whole, _) => {
            cx.missing(
                "micro-batch size",
                "set `train_micro_batch_size_per_gpu`, or declare the GPUs beside `train_batch_size`",
                whole.and_then(|w| w.origin.location()),
            );
            Setting::assumed(1, "missing")
        }
    }
}

fn parallelism(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let parallel = &mut run.parallelism;
    parallel.gpus = cx.declared_gpus.clone();
    let degree = |key: &str| written(cx, key, count).unwrap_or_else(|| default(1));
    parallel.tensor = degree("model_parallel_size");
    // 0 and 1 both mean one stage.
    parallel.pipeline = degree("pipe_parallel_size");
    parallel.vocab_parallel_loss = parallel.tensor.clone().map(|n| n > 1);
    parallel.sequence_parallel =
        written(cx, "sequence_parallel", |v| v.as_bool()).unwrap_or_else(|| default(false));
    let Some(zero) = get(cx.root, "zero_optimization").filter(|v| v.is_mapping()) else {
        parallel.data_parallel = default(DataParallel::Ddp);
        return;
    };
    let stage = zero.get("stage");
    parallel.data_parallel = match stage.and_then(|v| v.to_int().map(|n| (n, here(v)))) {
        Some((1, at)) => Setting::written(DataParallel::Zero1, at),
        Some((2, at)) => Setting::written(DataParallel::Zero2, at),
        Some((3, at)) => Setting::written(DataParallel::Zero3, at),
        Some((_, at)) => Setting::written(DataParallel::Ddp, at),
        None => default(DataParallel::Ddp),
    };
    let offload = |key: &str| {
        let device = zero.get(key)?.get("device")?;
        let kind = match device.as_str()? {
            "cpu" => Offload::Cpu,
            "nvme" => Offload::Nvme,
            _ => Offload::None,
        };
        Some(Setting::written(kind, here(device)))
    };
    let old = zero
        .get("cpu_offload")
        .and_then(|v| v.as_bool().filter(|on| *on).map(|_| Setting::written(Offload::Cpu, here(v))));
    if let Some(setting) = offload("offload_optimizer").or(old) {
        parallel.offload_optimizer = setting;
    }
    if let Some(setting) = offload("offload_param") {
        parallel.offload_parameters = setting;
    }
    fn number(zero: Value<'_>, key: &str, default: u64) -> Setting<u64> {
        zero.get(key)
            .and_then(|v| v.to_float().filter(|n| *n >= 0.0).map(|n| Setting::written(n as u64, here(v))))
            .unwrap_or_else(|| Setting::default_of(default, "DeepSpeed"))
    }
    let stage3 = parallel.data_parallel.value == DataParallel::Zero3;
    // DeepSpeed's defaults: deepspeed/runtime/zero/config.py.
    parallel.zero = Some(ZeroBuffers {
        reduce_bucket: number(zero, "reduce_bucket_size", 500_000_000),
        allgather_bucket: number(zero, "allgather_bucket_size", 500_000_000),
        overlap_comm: zero
            .get("overlap_comm")
            .and_then(|v| v.as_bool().map(|on| Setting::written(on, here(v))))
            .unwrap_or_else(|| Setting::default_of(stage3, "DeepSpeed")),
        prefetch_bucket: number(zero, "stage3_prefetch_bucket_size", 50_000_000),
        max_live_parameters: number(zero, "stage3_max_live_parameters", 1_000_000_000),
        persistence_threshold: number(zero, "stage3_param_persistence_threshold", 100_000),
        sub_group: number(zero, "sub_group_size", 1_000_000_000),
        ..ZeroBuffers::defaults(stage3, "DeepSpeed")
    });
}

/// 16-bit weights with an fp32 copy under DeepSpeed's own optimizers, else fp32.
fn precision(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let named = written(cx, "precision", |v| match v.as_str()? {
        "fp16" => Some(Dtype::Fp16),
        "bfloat16" => Some(Dtype::Bf16),
        "fp32" => Some(Dtype::Fp32),
        _ => None,
    });
    let block = |key: &str, dtype: Dtype| {
        let table = get(cx.root, key)?;
        table.get("enabled").and_then(|v| v.as_bool()).filter(|on| *on)?;
        // `fp16: {type: bfloat16}` is how bf16 was asked for before it had a block of its own.
        let other = table.get("type").and_then(|v| v.as_str()) == Some("bfloat16");
        Some(Setting::written(if other { Dtype::Bf16 } else { dtype }, here(table)))
    };
    let dtype = named
        .or_else(|| block("bf16", Dtype::Bf16))
        .or_else(|| block("fp16", Dtype::Fp16))
        .unwrap_or_else(|| default(Dtype::Fp32));
    run.master_weights = dtype.clone().map(|d| d != Dtype::Fp32);
    let accumulated = get(cx.root, "data_types").and_then(|v| v.get("grad_accum_dtype")).and_then(|v| {
        let dtype = match v.as_str()? {
            "fp32" => Dtype::Fp32,
            "bf16" => Dtype::Bf16,
            "fp16" => Dtype::Fp16,
            _ => return None,
        };
        Some(Setting::written(dtype, here(v)))
    });
    run.gradients = accumulated.unwrap_or_else(|| dtype.clone());
    run.compute = dtype.clone();
    run.weights = dtype;
    run.optimizer_state = default(Dtype::Fp32);
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let kind = get(cx.root, "optimizer").and_then(|table| table.get("type"));
    let Some((name, at)) = kind.and_then(|v| v.as_str().map(|name| (name, here(v)))) else { return };
    let eight_bit = written(cx, "use_bnb_optimizer", |v| v.as_bool()).is_some_and(|s| s.value);
    let optimizer = match name.to_ascii_lowercase().as_str() {
        "adam" | "adamw" if eight_bit => Optimizer::Adamw8bit,
        "adam" | "adamw" | "cpu_adam" | "cpu_torch_adam" | "onebitadam" | "mup" | "muadam" => Optimizer::Adam,
        "sgd" => Optimizer::Sgd,
        "lion" => Optimizer::Lion,
        "sm3" => Optimizer::Adagrad,
        _ => Optimizer::Other,
    };
    run.optimizer = Setting::written(optimizer, at);
    if name.to_ascii_lowercase().starts_with("cpu_") {
        run.parallelism.offload_optimizer = Setting::written(Offload::Cpu, at);
    }
    // apex's or DeepSpeed's FusedAdam.
    run.optimizer_implementation = default(OptimizerImplementation::Fused);
}

fn activations(cx: &Lowering<'_>, run: &mut TrainingRun) {
    // `checkpoint_num_layers` layers share one checkpoint; each still keeps at most its input.
    run.activation_checkpointing = written(cx, "checkpoint_activations", |v| {
        v.as_bool().map(|on| if on { Checkpointing::Full } else { Checkpointing::None })
    })
    .unwrap_or_else(|| default(Checkpointing::None));
    run.activation_offload =
        written(cx, "checkpoint_in_cpu", |v| v.as_bool()).unwrap_or_else(|| default(false));
    let flash = get(cx.root, "attention_config").map(|list| (holds_word(list, "flash", 0), here(list)));
    run.attention = match flash {
        Some((true, at)) => Setting::written(Attention::Flash, at),
        Some((false, at)) => Setting::written(Attention::Eager, at),
        // `[[["global"], layers]]`: scores and probabilities are tensors.
        None => default(Attention::Eager),
    };
    let rate = |key: &str| get(cx.root, key).and_then(|v| v.to_float().map(|rate| (rate, here(v))));
    let dropout = [rate("hidden_dropout"), rate("attention_dropout")].into_iter().flatten();
    run.dropout = dropout
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(|| default(Some(0.0)), |(rate, at)| Setting::written(Some(rate), at));
}

/// Does a nested list hold this word?
pub(super) fn holds_word(value: Value<'_>, word: &str, depth: usize) -> bool {
    value.as_str() == Some(word) || (depth < 4 && value.items().any(|item| holds_word(item, word, depth + 1)))
}

fn task(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let Some((name, at)) = get(cx.root, "train_impl").and_then(|v| v.as_str().map(|name| (name, here(v))))
    else {
        return;
    };
    match name {
        "dpo" | "rm" | "kto" => {
            run.task = Setting::written(Task::Preference, at);
            let free = written(cx, "dpo_reference_free", |v| v.as_bool()).is_some_and(|s| s.value);
            if name != "rm" && !free {
                run.reference_model =
                    Setting { value: ReferenceModel::Resident, origin: Origin::Written(at) };
            }
        }
        // Another process generates the answers; the copy is there unless nothing is compared.
        "reinforce" => {
            let distance = written(cx, "kl_div_beta", |v| v.to_float());
            if distance.is_none_or(|beta| beta.value > 0.0) {
                run.reference_model =
                    Setting { value: ReferenceModel::Resident, origin: Origin::Written(at) };
            }
        }
        _ => {}
    }
}
