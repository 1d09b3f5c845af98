//! How an Axolotl run is spread over GPUs. Facts: utils/schemas/validation.py (FSDP versions),
//! monkeypatch/accelerate/fsdp2.py, utils/distributed.py.

use super::RELEASE;
use super::lower::since;
use crate::document::Value;
use crate::framework::baseline::{count, first};
use crate::framework::fsdp::{self, Options};
use crate::framework::lowering::here;
use crate::framework::training_arguments::{self as hf, Defaults, flag};
use crate::framework::{Lowering, deepspeed};
use crate::run::{
    Batching, Checkpointing, ContextExchange, DataParallel, FsdpOptions, Offload, Origin, Setting,
    TrainingRun,
};
use crate::source::SourceId;

/// The degrees, then whoever divides the states.
pub(super) fn lower(cx: &mut Lowering<'_>, run: &mut TrainingRun, pairs: &[deepspeed::MustEqual]) {
    let degree = |keys: &[&str]| first(cx, keys, count).filter(|degree| degree.value > 1);
    if let Some(tensor) = degree(&["tensor_parallel_size"]) {
        run.parallelism.tensor = tensor;
    }
    if let Some(context) = degree(&["context_parallel_size", "sequence_parallel_degree"]) {
        // `varlen_llama3` where samples are packed (`schemas/validation.py`).
        let of = |name: &str| match name {
            "varlen_llama3" => ContextExchange::GatherByHead,
            _ => ContextExchange::Ring,
        };
        let packed = run.batching.value == Batching::Packed;
        let default = if packed { ContextExchange::GatherByHead } else { ContextExchange::Ring };
        run.parallelism.context_exchange =
            cx.or_default("ring_attn_func", |v| v.as_str().map(of), default, RELEASE);
        run.parallelism.context = context;
    }
    if let Some(expert) = degree(&["expert_parallel_size"]) {
        run.parallelism.expert = expert;
    }
    world(cx, run);
    if !deepspeed::follow(cx, run, "deepspeed", pairs) && !fully_sharded(cx, run) {
        hf::replicate(run, RELEASE);
    }
}

/// `dp_shard_size` written beside the other degrees says how many GPUs there are.
fn world(cx: &Lowering<'_>, run: &mut TrainingRun) {
    if run.parallelism.gpus.is_some() {
        return;
    }
    let Some(shard) = cx.written("dp_shard_size", count) else { return };
    let replicate = cx.written("dp_replicate_size", count).map_or(1, |n| n.value);
    let others = run.parallelism.tensor.value.saturating_mul(run.parallelism.context.value);
    run.parallelism.gpus = Some(shard.map(|n| n.saturating_mul(replicate).saturating_mul(others)));
}

fn fully_sharded(cx: &mut Lowering<'_>, run: &mut TrainingRun) -> bool {
    let config = cx.root.get("fsdp_config").filter(|v| v.is_mapping() && !v.fields().is_empty());
    let list = cx.root.get("fsdp").filter(|v| v.items().next().is_some() || v.as_str().is_some());
    let Some(at) = config.or(list) else { return false };
    let version = version(cx, config, list);
    let options = config.map(|root| Options { root, source: SourceId(0) });
    if version.value == 1 {
        let words = list.map_or_else(String::new, |list| match list.as_str() {
            Some(words) => words.to_owned(),
            None => list.items().filter_map(|i| i.as_str()).collect::<Vec<_>>().join(" "),
        });
        let sharding = options.and_then(|o| o.get("sharding_strategy", |v| v.text().map(str::to_owned)));
        let words = match sharding {
            Some(written) => format!("{words} {}", written.value),
            None => words,
        };
        let defaults = Defaults { by: RELEASE, checkpointing: false, bf16: true, fsdp_version: 1 };
        fsdp::apply(run, &words, Origin::Written(here(at)), options, defaults);
        if let Some(fsdp) = &mut run.parallelism.fsdp {
            fsdp.version = version;
        }
    } else {
        version_2(run, at, options, version);
    }
    if let (Some(replicate), true) =
        (cx.written("dp_replicate_size", count).filter(|n| n.value > 1), run.parallelism.fsdp.is_some())
    {
        run.parallelism.data_parallel = replicate.map(|_| DataParallel::Hsdp);
        run.parallelism.shard_group = cx.written("dp_shard_size", count);
    }
    true
}

/// Axolotl 0.20 dropped version 1, which was the default before. A file with the `fsdp` list
/// belongs to such a release.
fn version(cx: &Lowering<'_>, config: Option<Value<'_>>, list: Option<Value<'_>>) -> Setting<u8> {
    let read = |v: Value<'_>| v.to_int().and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0);
    let inner = || {
        let value = config.and_then(|c| c.get("fsdp_version").or_else(|| c.get("version")))?;
        Some(Setting::written(read(value)?, here(value)))
    };
    cx.written("fsdp_version", read).or_else(inner).unwrap_or_else(|| {
        if list.is_some() {
            Setting::assumed(1, "the `fsdp` list belongs to releases before axolotl 0.20")
        } else if since(cx, "0.20") {
            Setting::default_of(2, RELEASE)
        } else {
            Setting::default_of(1, format!("axolotl {}", cx.declared_version.as_deref().unwrap_or_default()))
        }
    })
}

/// Axolotl's own `fsdp2_prepare_model` shards weights in the dtype they were loaded in;
/// Accelerate's, which it replaces, would raise them to fp32.
fn version_2(run: &mut TrainingRun, at: Value<'_>, options: Option<Options<'_>>, version: Setting<u8>) {
    let get = |key: &str| options.and_then(|o| o.get(key, flag));
    run.parallelism.data_parallel = Setting::written(DataParallel::Fsdp, here(at));
    // utils/trainer.py sets FSDP_RESHARD_AFTER_FORWARD only where it is true; Accelerate's own
    // default is true.
    let reshard = get("reshard_after_forward").unwrap_or_else(|| Setting::default_of(true, RELEASE));
    if let Some(on) = get("offload_params").filter(|on| on.value) {
        run.parallelism.offload_parameters = on.clone().map(|_| Offload::Cpu);
        run.parallelism.offload_optimizer = on.map(|_| Offload::Cpu);
    }
    if let Some(on) = get("activation_checkpointing").filter(|on| on.value) {
        run.activation_checkpointing = on.map(|_| Checkpointing::Full);
    }
    if let Some(one) = get("cpu_ram_efficient_loading") {
        run.parallelism.one_loads = one;
    }
    let reduce = run.compute.clone();
    // Trainer accumulates under Accelerate's `no_sync`, which holds for FSDP too.
    let deferred_reduction = Setting::default_of(true, RELEASE);
    run.parallelism.fsdp =
        Some(FsdpOptions { version, reshard_after_forward: reshard, reduce, deferred_reduction });
}
