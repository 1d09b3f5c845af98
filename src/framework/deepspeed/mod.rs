//! DeepSpeed's JSON: a fragment that another run refers to, and what it does to that run.
//!
//! Facts: DeepSpeed 0.19.8 `runtime/zero/config.py`, `precision_config.py`, `engine.py`;
//! transformers 5.23 `integrations/deepspeed.py`.

mod stock;

use super::training_arguments as hf;
use super::{Framework, Kind, Lowering, ReferenceError, UnknownKeys, lowering, schema};
use crate::document::{Dialect, Document, Syntax, Value};
use crate::rules::{self, deepspeed_conflicts_with_trainer::Difference};
use crate::run::{
    DataParallel, Dtype, HiddenBuffer, Offload, Optimizer, OptimizerImplementation, Origin, Setting,
    TrainingRun, ZeroBuffers,
};
use crate::source::Location;

/// DeepSpeed.
pub struct Deepspeed;

const RELEASE: &str = "deepspeed 0.19.8";

/// One of these beside a precision or optimizer section makes a file DeepSpeed's.
const MARKS: [&str; 13] = [
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
    "steps_per_print",
    "wall_clock_breakdown",
    "zero_allow_untested_optimizer",
    "zero_force_ds_cpu_optimizer",
    "prescale_gradients",
    "autotuning",
    "compression_training",
    "sparse_attention",
    "dump_state",
];

impl Framework for Deepspeed {
    fn name(&self) -> &'static str {
        "deepspeed"
    }

    fn release(&self) -> &'static str {
        RELEASE
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Json]
    }

    fn dialect(&self, _: Syntax) -> Dialect {
        Dialect::Json
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        if ["model_name_or_path", "base_model", "model"].iter().any(|key| root.get(key).is_some()) {
            return None;
        }
        let mapping = |key: &str| root.get(key).is_some_and(|v| v.is_mapping());
        if mapping("zero_optimization") {
            return Some(Kind::Fragment);
        }
        let marked = MARKS.iter().any(|key| root.get(key).is_some());
        let shaped = mapping("fp16")
            || mapping("bf16")
            || mapping("autotuning")
            || root.path("optimizer.type").is_some_and(|v| v.as_str().is_some());
        (marked && shaped).then_some(Kind::Fragment)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../../schemas/deepspeed.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        // In its sub-models; the schema leaves the top open, where it reads what it knows.
        UnknownKeys::Refused
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Option<TrainingRun> {
        None
    }
}

/// A pair that Hugging Face's Trainer insists on: DeepSpeed's path, the trainer's key, and the
/// trainer's value where its key is absent (`None`: not compared then).
pub type MustEqual = (&'static str, &'static str, Option<f64>);

/// The pairs under `TrainingArguments`' names.
pub const TRAINING_ARGUMENTS: &[MustEqual] = &[
    ("train_micro_batch_size_per_gpu", "per_device_train_batch_size", Some(8.0)),
    ("gradient_accumulation_steps", "gradient_accumulation_steps", Some(1.0)),
    ("gradient_clipping", "max_grad_norm", Some(1.0)),
    ("optimizer.params.lr", "learning_rate", None),
    ("optimizer.params.eps", "adam_epsilon", None),
    ("optimizer.params.weight_decay", "weight_decay", None),
    ("scheduler.params.warmup_max_lr", "learning_rate", None),
];

/// Follows the DeepSpeed file, stock name or mapping under `key` and applies it to `run`, which
/// must already have its method, adapters, precision and optimizer. False: the key is not there.
pub fn follow(cx: &mut Lowering<'_>, run: &mut TrainingRun, key: &str, pairs: &[MustEqual]) -> bool {
    let Some(value) = cx.root.path(key).filter(|v| {
        !v.is_null() && v.to_bool() != Some(false) && v.text().is_none_or(|text| !text.trim().is_empty())
    }) else {
        return false;
    };
    let at = lowering::here(value);
    if value.is_mapping() {
        let written = |v: Value<'_>| Origin::Written(lowering::here(v));
        conflicts(cx, value, &|v| lowering::here(v), pairs, false);
        apply(run, value, &written);
        return true;
    }
    if let Some(name) = value.as_str() {
        let placeholder = schema::is_placeholder(value);
        follow_file(cx, run, name, at, placeholder, pairs);
        return true;
    }
    cx.missing("sharding", format!("`{key}` names no DeepSpeed file"), Some(at));
    true
}

/// The same for a file that is named somewhere else (an Accelerate file's
/// `deepspeed_config_file`).
pub fn follow_file(
    cx: &mut Lowering<'_>,
    run: &mut TrainingRun,
    name: &str,
    at: Location,
    placeholder: bool,
    pairs: &[MustEqual],
) {
    if placeholder {
        cx.missing("sharding", "the DeepSpeed file is named by a placeholder", Some(at));
        return;
    }
    match cx.open(name) {
        Ok(file) => match file.root(Dialect::Json).filter(Value::is_mapping) {
            Some(root) => {
                let place = |v: Value<'_>| file.at(if v.span().is_empty() { v.key_span() } else { v.span() });
                conflicts(cx, root, &place, pairs, true);
                apply(run, root, &|v| Origin::Referenced(place(v)));
            }
            None => {
                cx.missing("sharding", "the DeepSpeed file does not parse as a JSON object", Some(at));
            }
        },
        Err(error) => {
            let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
            match stock::content(base) {
                Some((whose, text)) => {
                    let document = Document::parse(&crate::source::Source::new(base, text), Syntax::Json);
                    let reason = format!(
                        "the file is not in the repository; taken to be the `{base}` that {whose} ships"
                    );
                    if let Some(root) = document.root(Dialect::Json) {
                        apply(run, root, &|_| Origin::Assumed(reason.clone()));
                    }
                }
                None => not_followed(cx, run, at, name, error),
            }
        }
    }
}

/// A finding and an unknown for a file that could not be read.
/// A file that is not there still says by its name what people name it for.
fn not_followed(
    cx: &mut Lowering<'_>,
    run: &mut TrainingRun,
    at: Location,
    name: &str,
    error: ReferenceError,
) {
    let base = name.rsplit(['/', '\\']).next().unwrap_or(name);
    if error == ReferenceError::NotFound
        && let Some(text) = stock::by_name(base)
    {
        cx.findings.push(rules::reference_not_found::finding_by_name(at, "DeepSpeed", name));
        let reason = format!("`{base}` is not in the repository; its name is taken for its content");
        let document = Document::parse(&crate::source::Source::new(base, text), Syntax::Json);
        if let Some(root) = document.root(Dialect::Json) {
            apply(run, root, &|_| Origin::Assumed(reason.clone()));
        }
        return;
    }
    let why = match error {
        ReferenceError::OutsideRepository => {
            cx.findings.push(rules::reference_outside_repository::finding(at, "DeepSpeed"));
            "the DeepSpeed file lies outside the repository"
        }
        ReferenceError::NotFound => {
            cx.findings.push(rules::reference_not_found::finding(at, "DeepSpeed", name));
            "the DeepSpeed file is not in the repository"
        }
        ReferenceError::Unreadable => {
            cx.findings.push(rules::reference_not_found::finding(at, "DeepSpeed", name));
            "the DeepSpeed file cannot be read"
        }
    };
    cx.missing("sharding", why, Some(at));
}

/// What a DeepSpeed mapping does to a run. `origin` says where a value of the mapping stands.
pub fn apply(run: &mut TrainingRun, root: Value<'_>, origin: &dyn Fn(Value<'_>) -> Origin) {
    let zero = root.get("zero_optimization").filter(Value::is_mapping);
    let of = |value: Value<'_>| origin(value);
    let by = RELEASE;
    let stage_value = zero.and_then(|z| z.get("stage"));
    let stage = stage_value.and_then(|v| v.to_int()).unwrap_or(0);
    let strategy = match stage {
        0 => DataParallel::Ddp,
        1 => DataParallel::Zero1,
        2 => DataParallel::Zero2,
        _ => DataParallel::Zero3,
    };
    run.parallelism.data_parallel = Setting {
        value: strategy,
        origin: stage_value.or(zero).map_or(Origin::Default { by: by.into() }, of),
    };
    if let Some(zero) = zero {
        offload(run, zero, stage, &of);
        run.parallelism.zero = Some(buffers(zero, stage, &of));
        groups(run, zero, &of);
    } else {
        run.parallelism.zero = None;
    }
    if let Some(size) = root.path("tensor_parallel.autotp_size").filter(|v| v.to_int().is_some_and(|n| n > 1))
    {
        let degree = size.to_int().and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
        run.parallelism.tensor = Setting { value: degree, origin: of(size) };
    }
    optimizer(run, root, &of);
    precision(run, root, &of);
    if let Some(clipping) = root.get("gradient_clipping").filter(|v| v.to_float().is_some()) {
        let norm = clipping.to_float().filter(|x| *x > 0.0);
        run.gradient_clipping = Setting { value: norm, origin: of(clipping) };
    }
}

fn offload(run: &mut TrainingRun, zero: Value<'_>, stage: i64, of: &dyn Fn(Value<'_>) -> Origin) {
    let device = |section: &str, legacy: &str| {
        if let Some(device) = zero.path(&format!("{section}.device")) {
            let place = match device.as_str() {
                Some("cpu") => Offload::Cpu,
                Some("nvme") => Offload::Nvme,
                _ => Offload::None,
            };
            return Some(Setting { value: place, origin: of(device) });
        }
        let old = zero.get(legacy).filter(|v| v.to_bool() == Some(true))?;
        Some(Setting { value: Offload::Cpu, origin: of(old) })
    };
    if let Some(place) = device("offload_optimizer", "cpu_offload").filter(|_| stage >= 1) {
        run.parallelism.offload_optimizer = place;
    }
    // Below stage 3 it has no effect: `offload-needs-zero-stage` speaks of that.
    if let Some(place) = device("offload_param", "cpu_offload_param").filter(|_| stage >= 3) {
        run.parallelism.offload_parameters = place;
    }
}

fn buffers(zero: Value<'_>, stage: i64, of: &dyn Fn(Value<'_>) -> Origin) -> ZeroBuffers {
    let mut from_hidden = Vec::new();
    let written = |keys: &[&str]| keys.iter().find_map(|key| zero.get(key));
    let mut size = |keys: &[&str], default: u64, auto: Option<HiddenBuffer>| {
        let Some(value) = written(keys) else { return Setting::default_of(default, RELEASE) };
        if value.as_str() == Some("auto") {
            match auto {
                // What stays `auto` is dropped, and DeepSpeed's default holds.
                Some(HiddenBuffer::Prefetch | HiddenBuffer::Persistence) if stage < 3 => {}
                Some(buffer) => from_hidden.push(buffer),
                None => {}
            }
            return Setting { value: default, origin: of(value) };
        }
        let elements = value.to_float().filter(|x| *x >= 0.0 && *x < 1e18).map(|x| x as u64);
        Setting { value: elements.unwrap_or(default), origin: of(value) }
    };
    let reduce_bucket = size(&["reduce_bucket_size"], 500_000_000, Some(HiddenBuffer::Reduce));
    let allgather_bucket = size(&["allgather_bucket_size"], 500_000_000, None);
    let prefetch_bucket = size(
        &["stage3_prefetch_bucket_size", "prefetch_bucket_size"],
        50_000_000,
        Some(HiddenBuffer::Prefetch),
    );
    let max_live_parameters =
        size(&["stage3_max_live_parameters", "max_live_parameters"], 1_000_000_000, None);
    let persistence_threshold = size(
        &["stage3_param_persistence_threshold", "param_persistence_threshold"],
        100_000,
        Some(HiddenBuffer::Persistence),
    );
    let sub_group = size(&["sub_group_size"], 1_000_000_000, None);
    let overlap_comm = match zero.get("overlap_comm").and_then(|v| v.to_bool().map(|on| (v, on))) {
        Some((value, on)) => Setting { value: on, origin: of(value) },
        None => Setting::default_of(stage >= 3, RELEASE),
    };
    let whole = |path: &str| zero.path(path).and_then(|v| Some((v, u64::try_from(v.to_int()?).ok()?)));
    let secondary = whole("zero_hpz_partition_size")
        .filter(|(_, ranks)| *ranks > 1 && stage >= 3)
        .map(|(value, ranks)| Setting { value: ranks, origin: of(value) });
    let flag =
        |path: &str| zero.path(path).and_then(|v| Some(Setting { value: v.to_bool()?, origin: of(v) }));
    let defaults = ZeroBuffers::defaults(stage >= 3, RELEASE);
    ZeroBuffers {
        reduce_bucket,
        allgather_bucket,
        overlap_comm,
        prefetch_bucket,
        max_live_parameters,
        persistence_threshold,
        sub_group,
        from_hidden,
        secondary: secondary.unwrap_or(defaults.secondary),
        quantized_weights: flag("zero_quantized_weights").unwrap_or(defaults.quantized_weights),
        quantized_gradients: flag("zero_quantized_gradients").unwrap_or(defaults.quantized_gradients),
        pinned: flag("offload_optimizer.pin_memory").unwrap_or(defaults.pinned),
        nvme_parameters: nvme_parameters(zero, of).unwrap_or(defaults.nvme_parameters),
        nvme_in_cpu: zero
            .path("offload_param.max_in_cpu")
            .and_then(|v| Some((v, v.to_float().filter(|x| *x >= 0.0 && *x < 1e18)?)))
            .map_or(defaults.nvme_in_cpu, |(v, x)| Setting { value: x as u64, origin: of(v) }),
        nvme_states: whole("offload_optimizer.buffer_count")
            .map_or(defaults.nvme_states, |(value, count)| Setting { value: count, origin: of(value) }),
    }
}

/// Elements of the buffers through which weights on NVMe pass. `None`: both keys are absent.
fn nvme_parameters(zero: Value<'_>, of: &dyn Fn(Value<'_>) -> Origin) -> Option<Setting<u64>> {
    let written = |key: &str| zero.path(&format!("offload_param.{key}")).filter(|v| v.to_float().is_some());
    let number = |key: &str, default: f64| written(key).and_then(|v| v.to_float()).unwrap_or(default);
    let at = written("buffer_size").or_else(|| written("buffer_count"))?;
    let elements = number("buffer_count", 5.0) * number("buffer_size", 1e8);
    Some(Setting { value: elements.clamp(0.0, 1e18) as u64, origin: of(at) })
}

/// MiCS shards within a group, replicas between groups. With `mics_hierarchical_params_gather` weights
/// are gathered in the same buffer, between nodes first (`zero/mics.py`).
fn groups(run: &mut TrainingRun, zero: Value<'_>, of: &dyn Fn(Value<'_>) -> Origin) {
    let number = |key: &str| zero.get(key).and_then(|v| v.to_int().map(|n| (v, n)));
    if let Some((value, n)) = number("mics_shard_size").filter(|(_, n)| *n > 0) {
        run.parallelism.shard_group = Some(Setting { value: n as u64, origin: of(value) });
    }
}

/// An `optimizer` section replaces the trainer's optimizer.
fn optimizer(run: &mut TrainingRun, root: Value<'_>, of: &dyn Fn(Value<'_>) -> Origin) {
    let Some(kind) = root.path("optimizer.type").filter(|v| v.as_str().is_some()) else { return };
    let name = kind.as_str().unwrap_or_default().to_ascii_lowercase();
    let chosen = match name.as_str() {
        "adam" => Optimizer::Adam,
        "adamw" => Optimizer::Adamw,
        "lion" => Optimizer::Lion,
        "muon" => Optimizer::Muon,
        "adagrad" => Optimizer::Adagrad,
        "sgd" => Optimizer::Sgd,
        _ => Optimizer::Other,
    };
    run.optimizer = Setting { value: chosen, origin: of(kind) };
    // FusedAdam and its like, or DeepSpeed's CPU kernels.
    run.optimizer_implementation = Setting { value: OptimizerImplementation::Fused, origin: of(kind) };
}

/// The engine's dtypes. `auto` takes the trainer's: its compute dtype.
fn precision(run: &mut TrainingRun, root: Value<'_>, of: &dyn Fn(Value<'_>) -> Origin) {
    let section = |names: &[&str]| names.iter().find_map(|name| root.path(&format!("{name}.enabled")));
    let (bf16, fp16) = (section(&["bf16", "bfloat16"]), section(&["fp16"]));
    let wanted = |value: Option<Value<'_>>, dtype: Dtype| -> Option<Setting<Dtype>> {
        let value = value?;
        match value.as_str() {
            Some("auto") => (run.compute.value == dtype)
                .then(|| Setting { value: dtype, origin: run.compute.origin.clone() }),
            _ => (value.to_bool() == Some(true)).then(|| Setting { value: dtype, origin: of(value) }),
        }
    };
    let low = wanted(bf16, Dtype::Bf16).or_else(|| wanted(fp16, Dtype::Fp16));
    let by = RELEASE;
    if root.path("torch_autocast.enabled").and_then(|v| v.to_bool()) == Some(true) {
        // Weights stay as they were loaded; torch casts.
        return;
    }
    let dtype = low.unwrap_or_else(|| Setting::default_of(Dtype::Fp32, by));
    hf::adapters_under_deepspeed(run, dtype.clone(), by);
    let flag = |path: &str| root.path(path).filter(|v| v.to_bool() == Some(true));
    let low_masters =
        flag("bf16.bf16_master_weights_and_grads").or(flag("fp16.fp16_master_weights_and_grads"));
    run.master_weights = match low_masters {
        Some(value) => Setting { value: false, origin: of(value) },
        None => Setting::default_of(dtype.value != Dtype::Fp32, by),
    };
    run.optimizer_state = match flag("bf16.bf16_optimizer_states") {
        Some(value) => Setting { value: dtype.value, origin: of(value) },
        None if low_masters.is_some() && dtype.value == Dtype::Fp16 => dtype.clone(),
        None => Setting::default_of(Dtype::Fp32, by),
    };
    let accumulate = root.path("data_types.grad_accum_dtype");
    run.gradients = match accumulate.and_then(|v| v.as_str()) {
        Some("fp32") => accumulate.map(|v| Setting { value: Dtype::Fp32, origin: of(v) }),
        Some("bf16") => accumulate.map(|v| Setting { value: Dtype::Bf16, origin: of(v) }),
        Some("fp16") => accumulate.map(|v| Setting { value: Dtype::Fp16, origin: of(v) }),
        _ => None,
    }
    .unwrap_or_else(|| dtype.clone());
    run.autocast = Setting::default_of(false, by);
    run.weights = dtype.clone();
    run.compute = dtype;
}

/// Values that the Trainer compares with its own, and stops where they differ.
fn conflicts(
    cx: &mut Lowering<'_>,
    root: Value<'_>,
    place: &dyn Fn(Value<'_>) -> Location,
    pairs: &[MustEqual],
    file: bool,
) {
    for (theirs, ours, default) in pairs {
        let Some(value) = root.path(theirs) else { continue };
        let Some(number) = value.as_float() else { continue };
        let own = cx.root.path(ours).filter(|v| !v.is_null());
        if own.is_some_and(schema::is_placeholder) {
            continue;
        }
        let (trainer, at) = match own {
            Some(own) => (own.to_float(), Some(lowering::here(own))),
            None => (*default, None),
        };
        let Some(trainer) = trainer.filter(|t| (t - number).abs() > 1e-12 * t.abs().max(1e-30)) else {
            continue;
        };
        let difference = Difference { theirs: (theirs, number, place(value)), ours: (ours, trainer, at) };
        cx.findings.push(rules::deepspeed_conflicts_with_trainer::finding(&difference, file));
    }
}
