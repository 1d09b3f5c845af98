//! torchtitan's job files: TOML until 2026-02-23, Python since. Five spellings of the same
//! things are about, from 2024-06 to the last; all are read, and what a key leaves open is
//! filled with the default of the time the file's own keys belong to.

use super::baseline::{count, first, plain};
use super::lowering::here;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{
    Attention, Checkpointing, ContextExchange, DataParallel, Dtype, FsdpOptions, Loss, ModelCode, ModelRef,
    Offload, Optimizer, OptimizerImplementation, Origin, PipelineSchedule, Setting, StageLayers, TrainingRun,
};

/// torchtitan.
pub struct Torchtitan;

/// The last commit with TOML files.
const RELEASE: &str = "torchtitan 0.2.2";
/// Before `local_batch_size` (2025-06-05).
const EARLY: &str = "torchtitan 2024";

/// Models that are no language models.
const DIFFUSION: &[&str] = &["flux"];

impl Framework for Torchtitan {
    fn name(&self) -> &'static str {
        "torchtitan"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Toml]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::Toml
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let training = root.get("training").filter(Value::is_mapping)?;
        let sized = ["steps", "seq_len", "batch_size", "local_batch_size"]
            .iter()
            .any(|key| training.get(key).is_some_and(|v| v.as_int().is_some()));
        let flavor = root.path("model.flavor").is_some_and(|v| v.as_str().is_some());
        // Forks (flame) name a config.json instead of a flavor and keep the rest.
        let fork = root.path("model.config").is_some_and(|v| v.as_str().is_some())
            && (root.path("activation_checkpoint.mode").is_some()
                || training.get("tensor_parallel_degree").is_some()
                || root.path("parallelism.tensor_parallel_degree").is_some());
        (sized && (flavor || fork)).then_some(Kind::Run)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../schemas/torchtitan.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    /// `job.custom_config_module` merges a config class of the user's own into torchtitan's; a
    /// fork has its own.
    fn explains_key(&self, root: Value<'_>, _: &str) -> bool {
        if root.path("model.flavor").is_none() {
            return true;
        }
        const OWN: [&str; 2] = ["job.custom_config_module", "experimental.custom_args_module"];
        let own = |module: &str| !module.is_empty() && !module.starts_with("torchtitan.");
        OWN.iter().any(|key| root.path(key).and_then(|v| v.as_str()).is_some_and(own))
    }

    fn steps(&self, change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
        let parallel = &run.parallelism;
        let early = early(root);
        match change {
            // Accumulation follows from the global batch, which is one pass where nothing is said.
            Change::MicroBatch { size, accumulation } if !early && parallel.pipeline.value == 1 => {
                let model_ranks = parallel.tensor.value.saturating_mul(parallel.context.value).max(1);
                let data = parallel.gpus.as_ref()?.value / model_ranks;
                let global = size.checked_mul(accumulation)?.checked_mul(data)?;
                set([
                    ("training.local_batch_size", size.into()),
                    ("training.global_batch_size", global.into()),
                ])
            }
            Change::Checkpoint => set([("activation_checkpoint.mode", "full".into())]),
            Change::Shard(DataParallel::Fsdp) if !early => {
                set([("parallelism.data_parallel_shard_degree", (-1).into())])
            }
            Change::OffloadAll if !early => set([("training.enable_cpu_offload", true.into())]),
            Change::SequenceLength(length) => set([("training.seq_len", length.into())]),
            _ => None,
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let by = if early(cx.root) { EARLY } else { RELEASE };
        if let Some(name) = cx.root.path("model.name").and_then(|v| v.as_str().map(|s| (v, s)))
            && DIFFUSION.contains(&name.1)
        {
            cx.missing(
                "model",
                format!("`{}` is a diffusion model; only language models are estimated", name.1),
                Some(here(name.0)),
            );
            return None;
        }
        let model = model(cx, by);
        let local = first(cx, &["training.local_batch_size", "training.batch_size"], count)
            .unwrap_or_else(|| Setting::default_of(8, by));
        let sequence = cx.or_default("training.seq_len", count, 2048, by);
        let mut run = plain(by, model, ModelCode::Torchtitan, local, sequence);
        // Its run_train.sh sets the variable.
        run.expandable_segments.value = true;
        run.fused_norms = Setting::default_of(by != EARLY, by);
        let degrees = Degrees::read(cx, by);
        precision(cx, &mut run, &degrees, by);
        optimizer(cx, &mut run, by);
        activations(cx, &mut run, by);
        loss(cx, &mut run, &degrees, by);
        parallelism(cx, &mut run, &degrees, by);
        batches(cx, &mut run, &degrees, by);
        Some(run)
    }
}

/// True for files from before 2025-06, by keys that only they have.
fn early(root: Value<'_>) -> bool {
    let old = [
        "training.batch_size",
        "training.data_parallel_degree",
        "training.data_parallel_shard_degree",
        "training.tensor_parallel_degree",
        "experimental.pipeline_parallel_degree",
        "training.warmup_steps",
        "model.norm_type",
    ];
    old.iter().any(|key| root.path(key).is_some())
}

fn text<'a>(value: Value<'a>) -> Option<&'a str> {
    value.as_str()
}

/// `torchtitan:llama3:8B`, the Hugging Face id of the transformers backend, or a fork's file.
fn model(cx: &Lowering<'_>, by: &str) -> Setting<ModelRef> {
    if let Some(id) = cx.written("hf_transformers.model", |v| text(v).filter(|s| !s.is_empty())) {
        return id.map(|id| ModelRef::Id(id.to_owned()));
    }
    let name = cx.written("model.name", text).map_or("llama3", |s| s.value);
    match (cx.written("model.flavor", text), cx.written("model.config", text)) {
        (Some(flavor), _) => flavor.map(|flavor| ModelRef::Id(catalogue_name(name, flavor))),
        (None, Some(config)) => config.map(|path| ModelRef::Path(path.to_owned())),
        (None, None) => Setting::default_of(ModelRef::Id(format!("torchtitan:{name}:debugmodel")), by),
    }
}

/// A row of the model's size table. Llama 2 was dropped after 2024, with the sizes of Meta's; an
/// experiment of 0.1.0 has the Hugging Face id for a flavor.
fn catalogue_name(name: &str, flavor: &str) -> String {
    match (name, flavor) {
        ("llama2", "7B") => "meta-llama/Llama-2-7b-hf".into(),
        ("llama2", "13B") => "meta-llama/Llama-2-13b-hf".into(),
        ("llama2", "70B") => "meta-llama/Llama-2-70b-hf".into(),
        _ if flavor.contains('/') => flavor.to_owned(),
        _ => format!("torchtitan:{name}:{flavor}"),
    }
}

/// The parallel degrees under any era's key.
struct Degrees {
    replicate: Setting<u64>,
    /// `None`: `-1`, whatever GPUs are left.
    shard: Option<Setting<u64>>,
    tensor: Setting<u64>,
    pipeline: Setting<u64>,
    context: Setting<u64>,
    expert: Setting<u64>,
    /// All ranks: the product when every degree is given, else what the user declares.
    gpus: Option<Setting<u64>>,
}

impl Degrees {
    fn read(cx: &Lowering<'_>, by: &str) -> Degrees {
        let degree = |keys: &[&str]| first(cx, keys, count).unwrap_or_else(|| Setting::default_of(1, by));
        let replicate = degree(&[
            "parallelism.data_parallel_replicate_degree",
            "training.data_parallel_replicate_degree",
        ]);
        let tensor = degree(&["parallelism.tensor_parallel_degree", "training.tensor_parallel_degree"]);
        let pipeline = degree(&[
            "parallelism.pipeline_parallel_degree",
            "experimental.pipeline_parallel_degree",
            "training.pipeline_parallel_degree",
        ]);
        let context =
            degree(&["parallelism.context_parallel_degree", "experimental.context_parallel_degree"]);
        let expert = degree(&["parallelism.expert_parallel_degree"]);
        // `count` drops -1, which asks for the ranks that are left.
        let written = first(
            cx,
            &[
                "parallelism.data_parallel_shard_degree",
                "training.data_parallel_shard_degree",
                "training.data_parallel_degree",
            ],
            count,
        );
        let others = [&replicate, &tensor, &pipeline, &context]
            .iter()
            .fold(1u64, |product, degree| product.saturating_mul(degree.value));
        let gpus = match (&written, &cx.declared_gpus) {
            (_, Some(declared)) => Some(declared.clone()),
            (Some(shard), None) => Some(shard.clone().map(|n| n.saturating_mul(others))),
            (None, None) => None,
        };
        let shard = written.or_else(|| {
            let gpus = gpus.as_ref()?;
            Some(Setting { value: (gpus.value / others).max(1), origin: gpus.origin.clone() })
        });
        Degrees { replicate, shard, tensor, pipeline, context, expert, gpus }
    }

    /// FSDP runs when there is anything to shard over: data-parallel or context ranks
    /// (`ParallelDims.fsdp_enabled`). With the shard degree open, FSDP is what is asked for.
    fn sharded(&self) -> bool {
        self.context.value > 1 || self.shard.as_ref().is_none_or(|shard| shard.value > 1)
    }

    fn data(&self) -> Option<u64> {
        self.shard.as_ref().map(|shard| shard.value.saturating_mul(self.replicate.value))
    }
}

fn dtype(value: Value<'_>) -> Option<Dtype> {
    match value.as_str()? {
        "float32" => Some(Dtype::Fp32),
        "bfloat16" => Some(Dtype::Bf16),
        "float16" => Some(Dtype::Fp16),
        _ => None,
    }
}

/// Weights, gradients and states are `training.dtype` (fp32); compute is `mixed_precision_param`,
/// under FSDP by its mixed-precision policy, on one GPU or under DDP by autocast (from 2025-06),
/// and not at all with tensor or pipeline ranks alone (`maybe_enable_amp`).
fn precision(cx: &Lowering<'_>, run: &mut TrainingRun, degrees: &Degrees, by: &str) {
    let stored = cx.or_default("training.dtype", dtype, Dtype::Fp32, by);
    run.gradients = stored.clone();
    run.optimizer_state = stored.clone();
    let mixed = cx.or_default("training.mixed_precision_param", dtype, Dtype::Bf16, by);
    let model_parallel = degrees.tensor.value > 1 || degrees.pipeline.value > 1;
    let applies = degrees.sharded() || (!model_parallel && by != EARLY);
    run.compute = if applies { mixed } else { Setting::default_of(stored.value, by) };
    // FSDP casts as it gathers; elsewhere it is autocast, over 16-bit weights too.
    run.autocast = run.compute.clone().map(|compute| applies && !degrees.sharded() && compute != Dtype::Fp32);
    run.weights = stored;
}

fn optimizer(cx: &Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let named = |v: Value<'_>| {
        Some(match v.as_str()? {
            "AdamW" => Optimizer::Adamw,
            "Adam" => Optimizer::Adam,
            "SGD" => Optimizer::Sgd,
            "Muon" => Optimizer::Muon,
            _ => Optimizer::Other,
        })
    };
    run.optimizer = cx.or_default("optimizer.name", named, Optimizer::Adamw, by);
    let implementation = |v: Value<'_>| match v.as_str()? {
        "fused" => Some(OptimizerImplementation::Fused),
        "foreach" => Some(OptimizerImplementation::Foreach),
        "for-loop" => Some(OptimizerImplementation::ForLoop),
        _ => None,
    };
    // A boolean `fused`, off by default, until 2025-02-24; `implementation = "fused"` since.
    let fused = |v: Value<'_>| {
        Some(if v.as_bool()? { OptimizerImplementation::Fused } else { OptimizerImplementation::Foreach })
    };
    let default = if by == EARLY { OptimizerImplementation::Foreach } else { OptimizerImplementation::Fused };
    run.optimizer_implementation = cx
        .written("optimizer.early_step_in_backward", |v| {
            v.as_bool().filter(|on| *on).map(|_| OptimizerImplementation::InBackward)
        })
        .or_else(|| cx.written("optimizer.implementation", implementation))
        .or_else(|| cx.written("optimizer.fused", fused))
        .unwrap_or_else(|| Setting::default_of(default, by));
    run.gradient_clipping =
        cx.or_default("training.max_norm", |v| v.as_float().map(|x| (x > 0.0).then_some(x)), Some(1.0), by);
}

fn activations(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let mode = cx.written("activation_checkpoint.mode", text);
    let option = cx.written("activation_checkpoint.selective_ac_option", |v| {
        v.as_str().map(str::to_owned).or_else(|| v.as_int().map(|n| n.to_string()))
    });
    let selective = |written: Option<Setting<String>>| {
        written.unwrap_or_else(|| Setting::default_of("2".to_owned(), by)).map(|option| {
            match option.trim().parse::<u32>() {
                // Every n-th layer in full; 0 and 1 are every layer (`_apply_layer_sac`).
                Ok(0 | 1) => Checkpointing::Full,
                Ok(every) => Checkpointing::Every { every },
                Err(_) => Checkpointing::Selective,
            }
        })
    };
    run.activation_checkpointing = match mode {
        None => selective(option),
        Some(mode) => match mode.value {
            "none" => mode.map(|_| Checkpointing::None),
            "full" => mode.map(|_| Checkpointing::Full),
            "memory_budget" => {
                cx.missing(
                    "activation checkpointing",
                    "with `mode = \"memory_budget\"` the compiler decides what is saved; \
                     use `full`, `selective` or `none` for an estimate",
                    mode.origin.location(),
                );
                mode.map(|_| Checkpointing::Selective)
            }
            // The option decides how much; the mode is where to turn it.
            _ => {
                let origin = mode.origin;
                let chosen = selective(option);
                if matches!(chosen.origin, Origin::Written(_)) {
                    chosen
                } else {
                    Setting { origin, ..chosen }
                }
            }
        },
    };
    let flavor = cx.root.path("model.flavor").and_then(text).unwrap_or("");
    let flex = cx.root.path("model.use_flex_attn").is_some_and(|v| v.as_bool() == Some(true));
    run.attention = Setting::default_of(
        if flex || flavor.contains("flex") || flavor.contains("irope") {
            Attention::Flex
        } else if flavor.contains("varlen") {
            Attention::Flash
        } else if run.compute.value == Dtype::Fp32 {
            // Of cuDNN, FlashAttention and plain products, only the last take fp32.
            Attention::SdpaMath
        } else {
            Attention::Sdpa
        },
        by,
    );
}

/// Cross-entropy upcasts all logits; compiled, the upcast is fused away.
fn loss(cx: &Lowering<'_>, run: &mut TrainingRun, degrees: &Degrees, by: &str) {
    run.compile = first(cx, &["compile.enable", "training.compile"], |v| v.as_bool())
        .unwrap_or_else(|| Setting::default_of(false, by));
    let compiles = |what: &str| {
        cx.root
            .path("compile.components")
            .is_none_or(|list| list.items().any(|item| item.as_str() == Some(what)))
    };
    // Compiled with the model since 2025-04-02, and from 2024-10-22 to 2024-12-18 (`turning off compile
    // on loss function`), which no key tells from the months around it.
    if run.compile.value && compiles("loss") && by != EARLY {
        run.loss = run.compile.clone().map(|_| Loss::FullNoUpcast);
    }
    if !compiles("model") {
        run.compile.value = false;
    }
    let loss_parallel =
        first(cx, &["parallelism.disable_loss_parallel", "training.disable_loss_parallel"], |v| {
            v.as_bool().map(|off| !off)
        })
        .or_else(|| cx.written("training.enable_loss_parallel", |v| v.as_bool()))
        .unwrap_or_else(|| Setting::default_of(true, by));
    run.parallelism.vocab_parallel_loss = loss_parallel.map(|on| on && degrees.tensor.value > 1);
}

fn parallelism(cx: &Lowering<'_>, run: &mut TrainingRun, degrees: &Degrees, by: &str) {
    let parallel = &mut run.parallelism;
    let keep_logits = &mut run.keep_logits;
    let replicate = degrees.replicate.value;
    parallel.data_parallel = if degrees.sharded() {
        let origin = degrees.shard.as_ref().map_or(Origin::Default { by: by.into() }, |s| s.origin.clone());
        Setting { value: if replicate > 1 { DataParallel::Hsdp } else { DataParallel::Fsdp }, origin }
    } else if replicate > 1 {
        degrees.replicate.clone().map(|_| DataParallel::Ddp)
    } else {
        Setting::default_of(DataParallel::None, by)
    };
    if degrees.sharded() {
        // The FSDP mesh covers the context-parallel ranks too.
        parallel.shard_group =
            degrees.shard.clone().map(|s| s.map(|n| n.saturating_mul(degrees.context.value)));
        let reshard = first(
            cx,
            &["parallelism.fsdp_reshard_after_forward", "training.fsdp_reshard_after_forward"],
            |v| match v.as_str()? {
                "always" => Some(true),
                "never" => Some(false),
                _ => None,
            },
        )
        .unwrap_or_else(|| Setting::default_of(degrees.pipeline.value == 1, by));
        parallel.ends_apart = Setting::default_of(by != EARLY, by);
        parallel.fsdp = Some(FsdpOptions {
            version: Setting::default_of(2, by),
            reshard_after_forward: reshard,
            reduce: cx.or_default("training.mixed_precision_reduce", dtype, Dtype::Fp32, by),
            // PyTorch's pipeline stages reduce with their last micro-batch.
            deferred_reduction: Setting::default_of(degrees.pipeline.value > 1, by),
        });
    }
    parallel.tensor = degrees.tensor.clone();
    // Tensor parallelism always comes with sequence parallelism (`apply_tp`).
    parallel.sequence_parallel = degrees.tensor.clone().map(|n| n > 1);
    parallel.pipeline = degrees.pipeline.clone();
    parallel.context = degrees.context.clone();
    parallel.expert = degrees.expert.clone();
    parallel.expert_tensor = cx
        .written("parallelism.expert_tensor_parallel_degree", |v| u64::try_from(v.as_int()?).ok())
        .filter(|n| n.value > 0 && degrees.expert.value > 1);
    if degrees.pipeline.value > 1 {
        parallel.pipeline_schedule = first(cx, SCHEDULE, |v| v.as_str().map(schedule))
            .unwrap_or_else(|| Setting::default_of(PipelineSchedule::OneForwardOneBackward, by));
        // GPipe and 1F1B have one stage a rank, the others two unless something says otherwise.
        let single = ["1f1b", "gpipe"].iter().any(|name| written_schedule(cx).eq_ignore_ascii_case(name));
        parallel.virtual_stages = Setting::default_of(if single { 1 } else { 2 }, by);
        parallel.stage_layers = stage_layers(cx, by);
        // Since 2025-10 the step is told to return no outputs (`Update PP to release memory earlier`).
        *keep_logits = Setting::default_of(by == EARLY, by);
    }
    let exchange = |v: Value<'_>| {
        Some(if v.as_str()? == "alltoall" { ContextExchange::Ring } else { ContextExchange::AllGather })
    };
    parallel.context_exchange = first(
        cx,
        &["parallelism.context_parallel_rotate_method", "experimental.context_parallel_rotate_method"],
        exchange,
    )
    .unwrap_or_else(|| Setting::default_of(ContextExchange::AllGather, by));
    let offload = cx.or_default(
        "training.enable_cpu_offload",
        |v| v.as_bool().map(|on| if on { Offload::Cpu } else { Offload::None }),
        Offload::None,
        by,
    );
    parallel.offload_optimizer = offload.clone();
    parallel.offload_parameters = offload;
    parallel.gpus = degrees.gpus.clone();
}

/// PyTorch's classes without their `Schedule`, in any case (`get_schedule_class`).
fn schedule(name: &str) -> PipelineSchedule {
    match name.to_ascii_lowercase().as_str() {
        "1f1b" => PipelineSchedule::OneForwardOneBackward,
        "gpipe" | "loopedbfs" => PipelineSchedule::AllForwardAllBackward,
        "interleavedzerobubble" => PipelineSchedule::InterleavedZeroBubble,
        "zbvzerobubble" => PipelineSchedule::ZeroBubbleV,
        "dualpipev" => PipelineSchedule::DualPipeV,
        _ => PipelineSchedule::Interleaved,
    }
}

const SCHEDULE: &[&str] =
    &["parallelism.pipeline_parallel_schedule", "experimental.pipeline_parallel_schedule"];

fn written_schedule<'a>(cx: &Lowering<'a>) -> &'a str {
    first(cx, SCHEDULE, |v| v.as_str()).map_or("1F1B", |name| name.value)
}

/// Cut where the file says, else evenly, with embedding and head counted as a layer each since
/// 2025-05 (`pipeline_parallel_first_stage_less_layers`).
fn stage_layers(cx: &Lowering<'_>, by: &str) -> StageLayers {
    let less = |key: &str| {
        let key = format!("parallelism.pipeline_parallel_{key}_stage_less_layers");
        let written = cx.written(&key, |v| v.to_int().and_then(|n| u64::try_from(n).ok()));
        written.or_else(|| (by != EARLY).then(|| Setting::default_of(1, by)))
    };
    // `layers.8` is the first of its part; a part that has none begins where the next one does.
    let layer = |name: &str| name.strip_prefix("layers.").and_then(|n| n.parse::<u64>().ok());
    let points = |v: Value<'_>| {
        let starts: Vec<u64> = v.items().filter_map(|item| layer(item.as_str()?)).collect();
        (!starts.is_empty()).then_some(starts)
    };
    let parts = |v: Value<'_>| {
        let firsts = v.items().skip(1).map(|part| part.items().filter_map(|m| layer(m.as_str()?)).min());
        let starts: Vec<u64> = firsts.map(|start| start.unwrap_or(u64::MAX)).collect();
        (!starts.is_empty()).then_some(starts)
    };
    // Before, what is left over went to the stages after the first, one layer each.
    let early = || (by == EARLY).then(|| Setting::default_of(1, by));
    StageLayers {
        embedding: less("first").or_else(early),
        head: less("last"),
        each: cx.written("parallelism.pipeline_parallel_layers_per_stage", count),
        starts: cx.written("parallelism.module_fqns_per_model_part", parts).or_else(|| {
            first(
                cx,
                &[
                    "parallelism.pipeline_parallel_split_points",
                    "experimental.pipeline_parallel_split_points",
                ],
                points,
            )
        }),
        ..StageLayers::default()
    }
}

/// Accumulation from the global batch, and the micro-batches that a pipeline cuts a batch into.
fn batches(cx: &Lowering<'_>, run: &mut TrainingRun, degrees: &Degrees, by: &str) {
    let local = run.micro_batch_size.value;
    let mut steps = Setting::default_of(1, by);
    if let (Some(global), Some(data)) = (cx.written("training.global_batch_size", count), degrees.data()) {
        steps = global.map(|n| (n / local.saturating_mul(data).max(1)).max(1));
    }
    if degrees.pipeline.value > 1 {
        let size = cx.written("parallelism.pipeline_parallel_microbatch_size", count).or_else(|| {
            first(
                cx,
                &[
                    "parallelism.pipeline_parallel_microbatches",
                    "experimental.pipeline_parallel_microbatches",
                ],
                count,
            )
            .map(|n| n.map(|n| (local / n).max(1)))
        });
        // One sequence from 2025-04-07; before, as many micro-batches as stages.
        let default = if by == EARLY { (local / degrees.pipeline.value).max(1) } else { 1 };
        let size = size.unwrap_or_else(|| Setting::default_of(default, by));
        steps = Setting { value: steps.value.saturating_mul((local / size.value).max(1)), ..steps };
        run.micro_batch_size = size;
    }
    run.gradient_accumulation_steps = steps;
    let validates = ["validation.enable", "validation.enabled"]
        .iter()
        .any(|key| cx.root.path(key).is_some_and(|v| v.as_bool() == Some(true)));
    if validates {
        run.eval_batch_size = Some(cx.or_default("validation.local_batch_size", count, 8, by));
    }
}
