//! llmlint's own format: the documented meaning of [`TrainingRun`].

pub mod format;
mod rollout;

use serde::de::DeserializeOwned;

use super::lowering::here;
use super::{Framework, Kind, Lowering, UnknownKeys};
use crate::change::{Change, Step, set};
use crate::document::{Dialect, Syntax, Value};
use crate::framework::baseline::undeclared;
use crate::run::layout;
use crate::run::lengths::{Overlong, SequenceLengths};
use crate::run::{
    Attention, Batching, Beside, Checkpointing, ContextExchange, DataParallel, Dtype, FsdpOptions,
    KeptBuffers, Kernels, Lora, LoraTargets, Loss, Method, ModelCode, ModelRef, Offload, Optimizer,
    OptimizerImplementation, Parallelism, PipelineSchedule, Quantization, ReferenceModel, Setting,
    StageLayers, Task, TrainingRun, ZeroBuffers,
};
use crate::settings::BudgetTable;
use crate::source::Span;
use crate::units::Bytes;

/// Who the defaults below belong to.
const BY: &str = "llmlint 1";

/// The native format.
pub struct Native;

impl Framework for Native {
    fn name(&self) -> &'static str {
        "llmlint"
    }

    fn release(&self) -> &'static str {
        BY
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Toml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        match syntax {
            Syntax::Yaml => Dialect::Core12,
            Syntax::Toml => Dialect::Toml,
            Syntax::Json => Dialect::Json,
        }
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        (root.get("llmlint")?.as_int().is_some() && root.get("model").is_some()).then_some(Kind::Run)
    }

    fn schema(&self, kind: Kind) -> Option<&'static str> {
        (kind == Kind::Run).then_some(include_str!("../../../schemas/llmlint.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    fn budget(&self, root: Value<'_>) -> Option<(BudgetTable, Span)> {
        let table = root.get("budget")?;
        let text = |key: &str| table.get(key).and_then(|v| v.text()).map(str::to_owned);
        let budget = BudgetTable {
            gpu: text("gpu"),
            gpus: table.get("gpus").and_then(positive),
            memory: text("memory"),
            host_memory: text("host_memory"),
        };
        let span =
            table.get("gpu").or_else(|| table.get("memory")).map_or_else(|| table.key_span(), |v| v.span());
        Some((budget, span))
    }

    fn steps(&self, change: Change, run: &TrainingRun, _: Value<'_>) -> Option<Vec<Step>> {
        match change {
            Change::MicroBatch { size, accumulation } => set([
                ("training.micro_batch_size", size.into()),
                ("training.gradient_accumulation_steps", accumulation.into()),
            ]),
            Change::Checkpoint => set([("training.activation_checkpointing", "full".into())]),
            // Fusing is said as easily.
            Change::ChunkLoss(_) => None,
            Change::FuseLoss => set([("training.loss", "fused".into())]),
            Change::Liger => set([("training.kernels", "liger".into()), ("training.loss", "fused".into())]),
            Change::Optimizer8bit | Change::PagedOptimizer8bit => {
                let now = change.apply(run)?.optimizer.value;
                set([("training.optimizer", serde_json::to_value(now).ok()?)])
            }
            Change::Shard(stage) => set([("parallelism.data_parallel", serde_json::to_value(stage).ok()?)]),
            Change::OffloadOptimizer => set([("parallelism.offload.optimizer", "cpu".into())]),
            Change::OffloadAll => set([
                ("parallelism.offload.optimizer", "cpu".into()),
                ("parallelism.offload.parameters", "cpu".into()),
            ]),
            Change::Lora => set([("training.method", "lora".into())]),
            Change::Qlora => {
                set([("training.method", "qlora".into()), ("training.quantization", "nf4-double".into())])
            }
            Change::SequenceLength(length) => set([("training.sequence_length", length.into())]),
            Change::Gpus(gpus) => {
                let steps = change.apply(run)?.gradient_accumulation_steps.value;
                set([
                    ("parallelism.gpus", gpus.into()),
                    ("training.gradient_accumulation_steps", steps.into()),
                ])
            }
        }
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Option<TrainingRun> {
        let model = model(cx)?;
        let method = or(cx, "training.method", Method::Full);
        let lora = matches!(method.value, Method::Lora | Method::Qlora).then(|| lora(cx));
        let weights = or(cx, "training.weights", Dtype::Bf16);
        let trained = lora.as_ref().map_or_else(|| weights.value, |lora| lora.dtype.value);
        let base_quantization =
            if method.value == Method::Qlora { Quantization::Nf4 } else { Quantization::None };
        let optimizer_state = or(cx, "training.optimizer_state", trained);
        let sequence_length = match cx.written("training.sequence_length", positive) {
            Some(length) => length,
            None => {
                cx.missing("sequence length", "set `training.sequence_length`", None);
                Setting::assumed(0, "missing")
            }
        };
        let compute = or(cx, "training.compute", weights.value);
        let autocast = or(cx, "training.autocast", compute.value != weights.value);
        let parallelism = parallelism(cx, weights.value, compute.value);
        let generates = cx.root.path("training.rollout").is_some();
        let micro_batch_size = cx.or_default("training.micro_batch_size", positive, 1, BY);
        Some(TrainingRun {
            stand_in: None,
            taken_for: None,
            model,
            model_code: or(cx, "training.model_code", ModelCode::Transformers),
            task: or(cx, "training.task", if generates { Task::Rollout } else { Task::CausalLm }),
            trainable_layers: (method.value == Method::Freeze)
                .then(|| cx.or_default("training.trainable_layers", positive, 2, BY)),
            method,
            lora,
            quantization: or(cx, "training.quantization", base_quantization),
            prepare_kbit: or(cx, "training.prepare_kbit", false),
            quantized_inputs_kept: or(cx, "training.quantized_inputs_kept", false),
            quantized_experts: or(cx, "training.quantized_experts", false),
            fused_experts: or(cx, "training.fused_experts", false),
            compute,
            autocast,
            master_weights: or(cx, "training.master_weights", false),
            gradients: or(cx, "training.gradients", trained),
            weights,
            optimizer: or(cx, "training.optimizer", Optimizer::Adamw),
            optimizer_rank: cx.written("training.optimizer_rank", positive),
            optimizer_state: optimizer_state.clone(),
            optimizer_implementation: or(
                cx,
                "training.optimizer_implementation",
                OptimizerImplementation::Foreach,
            ),
            beside: if generates { rollout::beside(cx, &micro_batch_size) } else { Beside::default() },
            micro_batch_size,
            global_batch_size: cx.written("training.global_batch_size", positive),
            gradient_accumulation_steps: cx.or_default(
                "training.gradient_accumulation_steps",
                positive,
                1,
                BY,
            ),
            gradient_clipping: cx.or_default("training.gradient_clipping", nullable, None, BY),
            sequence_length,
            batching: or(cx, "training.batching", Batching::Fixed),
            sequence_lengths: sequence_lengths(cx),
            overlong: Overlong::Truncated,
            target_length: cx.written("training.target_length", positive),
            activation_checkpointing: or(cx, "training.activation_checkpointing", Checkpointing::None),
            reentrant_checkpointing: or(cx, "training.reentrant_checkpointing", false),
            activation_offload: or(cx, "training.activation_offload", false),
            attention: or(cx, "training.attention", Attention::Sdpa),
            kernels: or(cx, "training.kernels", Kernels::Torch),
            loss: or(cx, "training.loss", Loss::Full),
            keep_logits: or(cx, "training.keep_logits", false),
            expandable_segments: or(cx, "training.expandable_segments", false),
            head_in_chunks: or(cx, "training.head_in_chunks", false),
            fused_norms: or(cx, "training.fused_norms", false),
            // States in less than fp32 are what it is for.
            precision_aware: or(
                cx,
                "training.precision_aware_optimizer",
                optimizer_state.value != Dtype::Fp32,
            ),
            wide_embedding_states: Setting::default_of(false, BY),
            dropout: cx.or_default("training.dropout", nullable, None, BY),
            reference_model: or(cx, "training.reference_model", ReferenceModel::None),
            reference_weights: None,
            compile: or(cx, "training.compile", false),
            eval_batch_size: cx.written("training.eval_batch_size", positive),
            cuda_context: cuda_context(cx),
            parallelism,
            unknown: Vec::new(),
        })
    }
}

/// A value read through serde: the enumerations know their own spellings.
fn typed<T: DeserializeOwned>(value: Value<'_>) -> Option<T> {
    serde_json::from_value(value.to_json()?).ok()
}

/// A written value, or the format's default.
fn or<T: DeserializeOwned>(cx: &Lowering<'_>, key: &str, default: T) -> Setting<T> {
    cx.or_default(key, typed, default, BY)
}

/// The declared law of lengths.
fn sequence_lengths(cx: &mut Lowering<'_>) -> Setting<Option<SequenceLengths>> {
    let Some(law) = cx.written("training.sequence_lengths", typed::<SequenceLengths>) else {
        return undeclared();
    };
    if let Err(why) = law.value.check() {
        cx.missing("sequence lengths", &why, cx.root.path("training.sequence_lengths").map(here));
    }
    law.map(Some)
}

/// The declared size of the CUDA context.
fn cuda_context(cx: &mut Lowering<'_>) -> Option<Setting<Bytes>> {
    let text = cx.written("training.cuda_context", |v| v.text().map(str::to_owned))?;
    match Bytes::parse(&text.value) {
        Ok(bytes) => Some(text.map(|_| bytes)),
        Err(why) => {
            cx.missing("CUDA context", why, text.origin.location());
            None
        }
    }
}

fn positive(value: Value<'_>) -> Option<u64> {
    u64::try_from(value.as_int()?).ok().filter(|n| *n > 0)
}

fn nullable(value: Value<'_>) -> Option<Option<f64>> {
    if value.is_null() { Some(None) } else { value.as_float().map(Some) }
}

fn elements(value: Value<'_>) -> Option<u64> {
    value.as_float().filter(|n| *n >= 0.0).map(|n| n as u64)
}

/// The `config.json` name of a key of `model:`; the single letters are the seed guide's.
fn config_key(key: &str) -> &str {
    match key {
        "architecture" => "model_type",
        "V" => "vocab_size",
        "N" => "num_hidden_layers",
        "h" => "num_attention_heads",
        "L" => "max_position_embeddings",
        other => other,
    }
}

/// The model: an id or path, a config.json, or dimensions (which replace those of an id).
fn model(cx: &mut Lowering<'_>) -> Option<Setting<ModelRef>> {
    let table = cx.root.get("model")?;
    if let Some(id) = table.as_str() {
        return Some(Setting::written(ModelRef::Id(id.to_owned()), here(table)));
    }
    let mut dimensions = serde_json::Map::new();
    for field in table.fields() {
        if !matches!(field.key, "id" | "config") {
            let key = config_key(field.key);
            dimensions.insert(key.to_owned(), field.value.to_json()?);
        }
    }
    if let Some(id) = table.get("id") {
        let name = id.as_str().unwrap_or_default().to_owned();
        let model =
            if dimensions.is_empty() { ModelRef::Id(name) } else { ModelRef::IdWith(name, dimensions) };
        return Some(Setting::written(model, here(id)));
    }
    let Some(config) = table.get("config") else {
        return Some(Setting::written(
            ModelRef::Config(dimensions),
            crate::source::Location::primary(table.key_span()),
        ));
    };
    if let Some(path) = config.as_str() {
        let model = if dimensions.is_empty() {
            ModelRef::Path(path.to_owned())
        } else {
            ModelRef::IdWith(path.to_owned(), dimensions)
        };
        return Some(Setting::written(model, here(config)));
    }
    let serde_json::Value::Object(mut content) = config.to_json()? else { return None };
    content.extend(dimensions);
    Some(Setting::written(ModelRef::Config(content), crate::source::Location::primary(config.key_span())))
}

fn lora(cx: &Lowering<'_>) -> Lora {
    let targets = |value: Value<'_>| {
        let one = |text: &str| match text {
            "all-linear" => LoraTargets::AllLinear,
            name => LoraTargets::Modules(vec![name.to_owned()]),
        };
        value.as_str().map(one).or_else(|| typed(value).map(LoraTargets::Modules))
    };
    Lora {
        rank: cx.or_default("training.lora.rank", positive, 16, BY),
        targets: cx.or_default("training.lora.targets", targets, LoraTargets::AllLinear, BY),
        dropout: cx.or_default("training.lora.dropout", |v| v.as_float(), 0.0, BY),
        dtype: or(cx, "training.lora.dtype", Dtype::Fp32),
        dora: or(cx, "training.lora.dora", false),
        modules_to_save: or(cx, "training.lora.modules_to_save", Vec::new()),
    }
}

/// Where the chunks of a written layout start.
fn chunk_starts(cx: &mut Lowering<'_>) -> Option<Setting<Vec<u64>>> {
    let written = cx.root.path("parallelism.pipeline_layout")?;
    let starts = cx.written("parallelism.pipeline_layout", |v| layout::chunk_starts(v.as_str()?));
    if starts.is_none() {
        let why = "`pipeline_layout` is none of Megatron's layouts, such as \"Et|(tt|)*30mL\"";
        cx.missing("pipeline parallel", why, Some(here(written)));
    }
    starts
}

fn parallelism(cx: &mut Lowering<'_>, stored: Dtype, compute: Dtype) -> Parallelism {
    let starts = chunk_starts(cx);
    let casts = compute.bytes() < stored.bytes();
    let key = |name: &str| format!("parallelism.{name}");
    let gpus = cx
        .written(&key("gpus"), positive)
        .or_else(|| cx.declared_gpus.clone())
        .or_else(|| cx.written("budget.gpus", positive));
    let several = gpus.as_ref().is_some_and(|g| g.value > 1);
    let data_parallel =
        or(cx, &key("data_parallel"), if several { DataParallel::Ddp } else { DataParallel::None });
    let zero = matches!(data_parallel.value, DataParallel::Zero1 | DataParallel::Zero2 | DataParallel::Zero3);
    let fsdp = matches!(data_parallel.value, DataParallel::Fsdp | DataParallel::Hsdp);
    let tensor = cx.or_default(&key("tensor"), positive, 1, BY);
    Parallelism {
        gpus,
        shard_group: cx.written(&key("shard_group"), positive),
        sequence_parallel: or(cx, &key("sequence_parallel"), false),
        vocab_parallel_loss: or(cx, &key("vocab_parallel_loss"), tensor.value > 1),
        ddp_bucket_view: or(cx, &key("ddp_bucket_view"), false),
        tensor,
        pipeline: cx.or_default(&key("pipeline"), positive, 1, BY),
        pipeline_schedule: or(cx, &key("schedule"), PipelineSchedule::OneForwardOneBackward),
        virtual_stages: cx.or_default(&key("virtual_stages"), positive, 1, BY),
        microbatch_group: cx.written(&key("microbatch_group"), positive),
        stage_layers: StageLayers {
            first: cx.written(&key("first_stage_layers"), positive),
            last: cx.written(&key("last_stage_layers"), positive),
            embedding: cx.written(&key("embedding_counts_for"), elements),
            head: cx.written(&key("head_counts_for"), elements),
            starts,
            ..StageLayers::default()
        },
        context: cx.or_default(&key("context"), positive, 1, BY),
        context_exchange: or(cx, &key("context_exchange"), ContextExchange::Ring),
        expert: cx.or_default(&key("expert"), positive, 1, BY),
        expert_tensor: cx.written(&key("expert_tensor"), positive),
        expert_capacity: cx.written(&key("expert_capacity"), |v| v.as_float().filter(|c| *c > 0.0)),
        offload_optimizer: or(cx, &key("offload.optimizer"), Offload::None),
        offload_parameters: or(cx, &key("offload.parameters"), Offload::None),
        zero: zero.then(|| zero_buffers(cx, data_parallel.value)),
        one_loads: or(cx, &key("one_loads"), false),
        ends_apart: or(cx, &key("fsdp.ends_apart"), false),
        kept_buffers: if fsdp {
            or(cx, &key("fsdp.kept_buffers"), KeptBuffers::None).value
        } else {
            KeptBuffers::None
        },
        checkpoints_around_units: or(cx, &key("fsdp.checkpoints_around_units"), false),
        fsdp: fsdp.then(|| FsdpOptions {
            version: or(cx, &key("fsdp.version"), 2),
            reshard_after_forward: or(cx, &key("fsdp.reshard_after_forward"), true),
            reduce: or(cx, &key("fsdp.reduce"), if casts { Dtype::Fp32 } else { stored }),
            deferred_reduction: or(cx, &key("fsdp.deferred_reduction"), false),
        }),
        data_parallel,
    }
}

/// The defaults are DeepSpeed's own (`runtime/zero/config.py`).
fn zero_buffers(cx: &Lowering<'_>, stage: DataParallel) -> ZeroBuffers {
    let size = |name: &str, default: u64| {
        cx.or_default(&format!("parallelism.zero.{name}"), elements, default, "DeepSpeed 0.18")
    };
    ZeroBuffers {
        reduce_bucket: size("reduce_bucket_size", 500_000_000),
        allgather_bucket: size("allgather_bucket_size", 500_000_000),
        overlap_comm: cx.or_default(
            "parallelism.zero.overlap_comm",
            |v| v.as_bool(),
            stage == DataParallel::Zero3,
            "DeepSpeed 0.18",
        ),
        prefetch_bucket: size("stage3_prefetch_bucket_size", 50_000_000),
        max_live_parameters: size("stage3_max_live_parameters", 1_000_000_000),
        persistence_threshold: size("stage3_param_persistence_threshold", 100_000),
        sub_group: size("sub_group_size", 1_000_000_000),
        secondary: size("zero_hpz_partition_size", 1),
        quantized_weights: or(cx, "parallelism.zero.zero_quantized_weights", false),
        quantized_gradients: or(cx, "parallelism.zero.zero_quantized_gradients", false),
        ..ZeroBuffers::defaults(stage == DataParallel::Zero3, "DeepSpeed 0.18")
    }
}

/// The schema of the format, as `schemas/llmlint.schema.json` holds it.
pub fn derived_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(format::NativeConfig).to_value();
    if let Some(model) = schema.pointer_mut("/$defs/Model/properties").and_then(|p| p.as_object_mut()) {
        for key in ["model_type", "d_model", "d_ff", "n_heads", "n_layers", "max_seq_len", "V", "h", "N", "L"]
            .iter()
            .chain(format::CONFIG_JSON_KEYS)
        {
            model.entry(*key).or_insert_with(|| serde_json::json!({}));
        }
    }
    schema
}
