//! FSDP as transformers and Accelerate configure it: the same options in three places (the
//! `fsdp` and `fsdp_config` arguments, a JSON file, an Accelerate file), with and without the
//! `fsdp_` prefix.

use super::training_arguments::{Defaults, flag, text};
use super::{Lowering, ReferenceError};
use crate::document::{Syntax, Value};
use crate::rules;
use crate::run::{Checkpointing, DataParallel, Dtype, FsdpOptions, Offload, Origin, Setting, TrainingRun};
use crate::source::{Location, SourceId};

/// A mapping of options and the file it stands in.
#[derive(Clone, Copy)]
pub struct Options<'v> {
    /// The mapping.
    pub root: Value<'v>,
    /// Which file of the check.
    pub source: SourceId,
}

impl<'v> Options<'v> {
    /// An option, with or without the prefix.
    pub fn get<T>(&self, key: &str, read: impl Fn(Value<'v>) -> Option<T>) -> Option<Setting<T>> {
        let value = self.root.get(&format!("fsdp_{key}")).or_else(|| self.root.get(key))?;
        Some(Setting { value: read(value)?, origin: self.origin(value) })
    }

    /// Where a value of the mapping stands, as an origin.
    pub fn origin(&self, value: Value<'_>) -> Origin {
        let span = if value.span().is_empty() { value.key_span() } else { value.span() };
        let location = Location { source: self.source, span };
        if self.source == SourceId(0) { Origin::Written(location) } else { Origin::Referenced(location) }
    }
}

/// What is to be sharded, before options are read.
struct Strategy {
    data_parallel: DataParallel,
    reshard: Option<bool>,
    offload: bool,
}

/// `full_shard auto_wrap offload` in any of its spellings; accelerate's old numbers are
/// torch's `ShardingStrategy` values.
fn strategy(words: &str) -> Strategy {
    let mut found = Strategy { data_parallel: DataParallel::Fsdp, reshard: None, offload: false };
    for word in words.to_ascii_lowercase().split([' ', ',']) {
        match word {
            "full_shard" | "1" | "true" => found.reshard = Some(true),
            "shard_grad_op" | "2" => found.reshard = Some(false),
            "no_shard" | "3" => found.data_parallel = DataParallel::Ddp,
            "hybrid_shard" | "4" => {
                found.data_parallel = DataParallel::Hsdp;
                found.reshard = Some(true);
            }
            "hybrid_shard_zero2" | "5" => {
                found.data_parallel = DataParallel::Hsdp;
                found.reshard = Some(false);
            }
            "offload" => found.offload = true,
            _ => {}
        }
    }
    found
}

/// `fsdp` and `fsdp_config` among the Trainer's arguments. False: FSDP is not asked for.
pub fn from_training_arguments(cx: &mut Lowering<'_>, run: &mut TrainingRun, defaults: Defaults<'_>) -> bool {
    let Some(value) = cx.root.get("fsdp") else { return false };
    let words = match value.as_bool() {
        Some(on) => on.to_string(),
        None => text(value)
            .unwrap_or_else(|| value.items().filter_map(|i| i.as_str()).collect::<Vec<_>>().join(" ")),
    };
    if words.trim().is_empty() || words == "false" {
        return false;
    }
    let asked = Origin::Written(super::lowering::here(value));
    let config = cx.root.get("fsdp_config").filter(|v| !v.is_null());
    let path = config.and_then(text);
    let opened = path.as_deref().map(|name| cx.open(name));
    match (config, opened) {
        (Some(config), None) => {
            let options = config.is_mapping().then_some(Options { root: config, source: SourceId(0) });
            apply(run, &words, asked, options, defaults);
        }
        (Some(_), Some(Ok(file))) => {
            let root = file.root(super::training_arguments::dialect(Syntax::Json));
            let options = root.map(|root| Options { root, source: file.id });
            apply(run, &words, asked, options, defaults);
        }
        (Some(config), Some(Err(error))) => {
            missing_file(cx, config, path.as_deref().unwrap_or_default(), &error, "FSDP");
            apply(run, &words, asked, None, defaults);
        }
        (None, _) => apply(run, &words, asked, None, defaults),
    }
    true
}

/// Says that a file that decides memory was not found. Never says what is in it.
pub fn missing_file(cx: &mut Lowering<'_>, at: Value<'_>, name: &str, error: &ReferenceError, whose: &str) {
    let location = super::lowering::here(at);
    if super::schema::is_placeholder(at) {
        cx.missing("sharding", format!("the {whose} file is named by a placeholder"), Some(location));
        return;
    }
    let (finding, why) = match error {
        ReferenceError::OutsideRepository => {
            (rules::reference_outside_repository::finding(location, whose), "lies outside the repository")
        }
        ReferenceError::NotFound => {
            (rules::reference_not_found::finding(location, whose, name), "is not in the repository")
        }
        ReferenceError::Unreadable => {
            (rules::reference_not_found::finding(location, whose, name), "cannot be read")
        }
    };
    cx.findings.push(finding);
    cx.missing("sharding", format!("the {whose} file {why}"), Some(location));
}

/// FSDP with the given options.
pub fn apply(
    run: &mut TrainingRun,
    words: &str,
    asked: Origin,
    options: Option<Options<'_>>,
    defaults: Defaults<'_>,
) {
    let by = defaults.by;
    let found = strategy(words);
    let get_flag = |key: &str| options.and_then(|o| o.get(key, flag));
    let version = options
        .and_then(|o| o.get("version", |v| v.to_int().and_then(|n| u8::try_from(n).ok())))
        .unwrap_or_else(|| Setting::default_of(defaults.fsdp_version, by));
    let written = options.and_then(|o| o.get("reshard_after_forward", reshards));
    let reshard = match (written, found.reshard) {
        (Some(written), _) => written,
        (None, Some(reshard)) => Setting { value: reshard, origin: asked.clone() },
        (None, None) => Setting::default_of(true, by),
    };
    let offload = get_flag("offload_params")
        .or_else(|| get_flag("cpu_offload"))
        .filter(|on| on.value)
        .or_else(|| found.offload.then(|| Setting { value: true, origin: asked.clone() }));
    if let Some(on) = get_flag("activation_checkpointing").filter(|on| on.value) {
        run.activation_checkpointing = on.map(|_| Checkpointing::Full);
    }
    let parallel = &mut run.parallelism;
    parallel.data_parallel = Setting { value: found.data_parallel, origin: asked };
    if found.data_parallel == DataParallel::Ddp {
        return;
    }
    // Off unless asked for.
    if let Some(one) = options.and_then(|o| o.get("cpu_ram_efficient_loading", flag)) {
        parallel.one_loads = one;
    }
    if let Some(on) = offload {
        parallel.offload_parameters = on.clone().map(|_| Offload::Cpu);
        parallel.offload_optimizer = on.map(|_| Offload::Cpu);
    }
    let mixed = run.autocast.value;
    // Accelerate's policy reduces gradients in the mixed-precision dtype (`set_mixed_precision`).
    let reduce = if mixed { run.compute.clone() } else { run.weights.clone() };
    // Trainer accumulates under Accelerate's `no_sync`, which holds for FSDP too.
    let deferred_reduction = Setting::default_of(true, by);
    parallel.fsdp = Some(FsdpOptions { version, reshard_after_forward: reshard, reduce, deferred_reduction });
    if mixed {
        upcast(run);
    }
}

/// Accelerate raises trained low-precision weights to fp32 under FSDP with mixed precision
/// (`accelerator.py`, `fsdp_utils.py`); frozen ones and quantised ones stay.
fn upcast(run: &mut TrainingRun) {
    let by = "accelerate 1.15";
    let fp32 = || Setting::default_of(Dtype::Fp32, by);
    match &mut run.lora {
        Some(lora) => lora.dtype = fp32(),
        None => run.weights = fp32(),
    }
    run.gradients = fp32();
    run.optimizer_state = fp32();
    // FSDP casts as it gathers; there is no autocast copy beside it.
    run.master_weights = Setting::default_of(false, by);
}

/// Version 2 takes a flag, version 1 the strategy's name.
fn reshards(value: Value<'_>) -> Option<bool> {
    flag(value).or_else(|| strategy(value.as_str()?).reshard)
}

/// A JSON file of FSDP options, as `fsdp_config:` names one; ms-swift's presets put the
/// `fsdp` words beside it.
pub struct FsdpOptionsFile;

impl super::Framework for FsdpOptionsFile {
    fn name(&self) -> &'static str {
        "hf-fsdp-json"
    }

    fn release(&self) -> &'static str {
        "transformers 5.23"
    }

    fn syntaxes(&self) -> &'static [Syntax] {
        &[Syntax::Json, Syntax::Yaml]
    }

    fn dialect(&self, syntax: Syntax) -> crate::document::Dialect {
        super::training_arguments::dialect(syntax)
    }

    fn recognise(&self, root: Value<'_>) -> Option<super::Kind> {
        const RUNS: [&str; 6] = [
            "model",
            "model_name_or_path",
            "base_model",
            "datasets",
            "micro_batch_size",
            "per_device_train_batch_size",
        ];
        if RUNS.iter().any(|key| root.get(key).is_some()) {
            return None;
        }
        let preset = root.get("fsdp_config").is_some_and(|v| v.is_mapping())
            && root.get("fsdp").is_some_and(|v| v.as_str().is_some() || v.is_sequence());
        let wraps = ["transformer_layer_cls_to_wrap", "fsdp_transformer_layer_cls_to_wrap"]
            .iter()
            .any(|key| root.get(key).is_some());
        (preset || (wraps && root.fields().len() <= 20)).then_some(super::Kind::Fragment)
    }

    fn lower(&self, _: &mut Lowering<'_>) -> Option<TrainingRun> {
        None
    }
}
