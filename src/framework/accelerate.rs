//! Accelerate's launch files: how many processes, what precision, how states are sharded. A
//! fragment by itself; followed from a run that names it.
//!
//! Facts: accelerate 1.15 `commands/config/config_args.py`, `commands/launch.py`,
//! `utils/dataclasses.py`; TRL 1.16 `accelerate_configs/`.

use super::baseline::count;
use super::fsdp::{self, Options};
use super::training_arguments::{self as hf, Defaults, text};
use super::{Framework, Kind, Lowering, ReferenceError, UnknownKeys, deepspeed};
use crate::document::{Dialect, Syntax, Value};
use crate::run::{ContextExchange, DataParallel, Offload, Origin, Setting, TrainingRun};
use crate::source::{Location, SourceId};

/// Accelerate.
pub struct Accelerate;

impl Framework for Accelerate {
    fn name(&self) -> &'static str {
        "accelerate"
    }

    fn release(&self) -> &'static str {
        "accelerate 1.15"
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Yaml, Syntax::Json]
    }

    fn dialect(&self, syntax: Syntax) -> Dialect {
        hf::dialect(syntax)
    }

    fn recognise(&self, root: Value<'_>) -> Option<Kind> {
        let environment = root.get("compute_environment").and_then(|v| v.as_str());
        let launched = matches!(environment, Some("LOCAL_MACHINE" | "AMAZON_SAGEMAKER"));
        (launched || root.get("distributed_type").is_some()).then_some(Kind::Fragment)
    }

    fn schema(&self, _: Kind) -> Option<&'static str> {
        Some(include_str!("../../schemas/accelerate.schema.json"))
    }

    fn unknown_keys(&self) -> UnknownKeys {
        UnknownKeys::Refused
    }

    /// Values go to environment variables as they are.
    fn checks_types(&self) -> bool {
        false
    }

    /// Sharding and precision without a model: nothing to lower.
    fn lower(&self, _: &mut Lowering<'_>) -> Option<TrainingRun> {
        None
    }
}

/// What a stock file of TRL's `accelerate_configs/` says: all have bf16 and 8 processes but the
/// single-GPU one.
fn stock(name: &str) -> Option<(DataParallel, u8)> {
    let base = name.rsplit('/').next().unwrap_or(name);
    let base = base.strip_suffix(".yaml").or_else(|| base.strip_suffix(".yml")).unwrap_or(base);
    Some(match base {
        "single_gpu" => (DataParallel::None, 0),
        "multi_gpu" => (DataParallel::Ddp, 0),
        "zero1" | "deepspeed_zero1" => (DataParallel::Zero1, 0),
        "zero2" | "deepspeed_zero2" => (DataParallel::Zero2, 0),
        "zero3" | "deepspeed_zero3" => (DataParallel::Zero3, 0),
        "fsdp1" => (DataParallel::Fsdp, 1),
        "fsdp2" => (DataParallel::Fsdp, 2),
        _ => return None,
    })
}

/// Follows the Accelerate file that `key` of the checked file names.
pub fn follow(cx: &mut Lowering<'_>, run: &mut TrainingRun, key: &str, defaults: Defaults<'_>) {
    let Some(at) = cx.root.get(key) else { return };
    let Some(name) = text(at) else { return };
    match cx.open(&name) {
        Ok(file) => {
            let dialect = hf::dialect(file.document.syntax);
            match file.root(dialect) {
                Some(root) => apply(cx, run, root, file.id, defaults),
                None => {
                    fsdp::missing_file(cx, at, &name, &ReferenceError::Unreadable, "Accelerate");
                }
            }
        }
        Err(error) => match stock(&name) {
            Some((kind, version)) => {
                let origin = Origin::Written(super::lowering::here(at));
                run.parallelism.gpus = run.parallelism.gpus.take().or_else(|| {
                    let default = if kind == DataParallel::None { 1 } else { 8 };
                    Some(Setting::default_of(default, "TRL's stock launch file"))
                });
                match kind {
                    DataParallel::Fsdp => {
                        fsdp::apply(
                            run,
                            "full_shard",
                            origin,
                            None,
                            Defaults { fsdp_version: version, ..defaults },
                        );
                        one_loads(run);
                    }
                    DataParallel::None | DataParallel::Ddp => {
                        run.parallelism.data_parallel = Setting { value: kind, origin };
                    }
                    _ => zero(run, kind, origin),
                }
            }
            None => fsdp::missing_file(cx, at, &name, &error, "Accelerate"),
        },
    }
}

/// Applies an Accelerate file to a run.
pub fn apply(
    cx: &mut Lowering<'_>,
    run: &mut TrainingRun,
    root: Value<'_>,
    source: SourceId,
    defaults: Defaults<'_>,
) {
    let origin = |value: Value<'_>| {
        let span = if value.span().is_empty() { value.key_span() } else { value.span() };
        Origin::Referenced(Location { source, span })
    };
    if let Some(value) = root.get("num_processes")
        && let Some(n) = count(value)
    {
        run.parallelism.gpus = run
            .parallelism
            .gpus
            .take()
            .filter(|gpus| matches!(gpus.origin, Origin::Written(_) | Origin::Declared(_)))
            .or_else(|| Some(Setting { value: n, origin: origin(value) }));
    }
    let Some(kind) = root.get("distributed_type") else { return };
    let asked = origin(kind);
    match kind.as_str() {
        Some("FSDP") => {
            let section = root.get("fsdp_config").filter(Value::is_mapping);
            let options = section.map(|root| Options { root, source });
            let words = options
                .and_then(|o| o.get("sharding_strategy", |v| v.text().map(str::to_owned)))
                .map_or_else(|| "full_shard".to_owned(), |s| s.value);
            // Accelerate takes version 1 when the file does not say.
            fsdp::apply(run, &words, asked, options, Defaults { fsdp_version: 1, ..defaults });
            one_loads(run);
        }
        Some("DEEPSPEED") => zero_or_file(cx, run, root, source, asked),
        Some("NO") => run.parallelism.data_parallel = Setting { value: DataParallel::None, origin: asked },
        Some(kind) if kind.starts_with("MULTI_") => {
            run.parallelism.data_parallel = Setting { value: DataParallel::Ddp, origin: asked };
        }
        _ => {
            let why = "how this launch type spreads the model is not modelled";
            cx.missing("sharding", why, asked.location());
        }
    }
    degrees(run, root, source);
}

/// `accelerate launch` has one process read the checkpoint unless told otherwise
/// (`--fsdp_cpu_ram_efficient_loading`).
fn one_loads(run: &mut TrainingRun) {
    let one = &mut run.parallelism.one_loads;
    if one.origin.is_assumption() {
        *one = Setting::default_of(true, "accelerate 1.15");
    }
}

fn zero_or_file(
    cx: &mut Lowering<'_>,
    run: &mut TrainingRun,
    root: Value<'_>,
    source: SourceId,
    asked: Origin,
) {
    let section = root.get("deepspeed_config").filter(Value::is_mapping);
    let options = section.map(|root| Options { root, source });
    if let Some(path) = options.and_then(|o| o.get("deepspeed_config_file", text)) {
        let at = path.origin.location().unwrap_or_default();
        deepspeed::follow_file(cx, run, &path.value, at, false, deepspeed::TRAINING_ARGUMENTS);
        return;
    }
    // The plugin's default is stage 2 (`ACCELERATE_DEEPSPEED_ZERO_STAGE`).
    let stage = options
        .and_then(|o| o.get("zero_stage", |v| v.to_int()))
        .unwrap_or(Setting { value: 2, origin: asked });
    let kind = match stage.value {
        1 => DataParallel::Zero1,
        2 => DataParallel::Zero2,
        3 => DataParallel::Zero3,
        _ => DataParallel::Ddp,
    };
    zero(run, kind, stage.origin);
    let place = |v: Value<'_>| match v.as_str()?.to_ascii_lowercase().as_str() {
        "cpu" => Some(Offload::Cpu),
        "nvme" => Some(Offload::Nvme),
        _ => None,
    };
    if let Some(place) = options.and_then(|o| o.get("offload_optimizer_device", place)) {
        run.parallelism.offload_optimizer = place;
    }
    if let Some(place) = options.and_then(|o| o.get("offload_param_device", place))
        && kind == DataParallel::Zero3
    {
        run.parallelism.offload_parameters = place;
    }
}

/// ZeRO under the Trainer with 16-bit precision: 16-bit weights and gradients, fp32 master
/// copies and states, DeepSpeed's default buffers.
fn zero(run: &mut TrainingRun, kind: DataParallel, origin: Origin) {
    run.parallelism.data_parallel = Setting { value: kind, origin };
    if kind == DataParallel::Ddp {
        return;
    }
    hf::under_deepspeed(run);
}

/// `parallelism_config`: the degrees beside data parallelism.
fn degrees(run: &mut TrainingRun, root: Value<'_>, source: SourceId) {
    let Some(section) = root.get("parallelism_config").filter(Value::is_mapping) else { return };
    let options = Options { root: section, source };
    let get =
        |key: &str| options.get(&format!("parallelism_config_{key}_size"), count).filter(|n| n.value > 1);
    if let Some(tensor) = get("tp") {
        run.parallelism.tensor = tensor;
    }
    // PyTorch's own gathers keys and values unless told to rotate them; `sp` is DeepSpeed's Ulysses.
    let strategy = |v: Value<'_>| {
        Some(if v.as_str()? == "alltoall" { ContextExchange::Ring } else { ContextExchange::AllGather })
    };
    if let Some(context) = get("cp") {
        run.parallelism.context_exchange = options
            .get("parallelism_config_cp_comm_strategy", strategy)
            .unwrap_or_else(|| Setting::default_of(ContextExchange::AllGather, "accelerate 1.15"));
        run.parallelism.context = context;
    } else if let Some(context) = get("sp") {
        run.parallelism.context_exchange = context.clone().map(|_| ContextExchange::AllToAll);
        run.parallelism.context = context;
    }
    if get("dp_replicate").is_some() && run.parallelism.data_parallel.value == DataParallel::Fsdp {
        run.parallelism.data_parallel.value = DataParallel::Hsdp;
    }
    run.parallelism.shard_group = get("dp_shard");
}
