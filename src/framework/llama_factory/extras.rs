//! LLaMA-Factory's less common ways: optimizers that it builds itself, PPO, and switches whose
//! cost is bounded rather than derived.
//!
//! Facts: `train/trainer_utils.py`, `train/ppo/`, `model/model_utils/{unsloth,mod}.py`,
//! `train/fp8_utils.py`, `hparams/{finetuning,generating}_args.py` at commit ff6d4d1.

use super::super::Lowering;
use super::super::baseline::count;
use super::super::training_arguments::{self as hf, flag, text};
use crate::document::Value;
use crate::run::layout;
use crate::run::{
    Attention, Batching, Checkpointing, Companion, DataParallel, Doubt, Dtype, Generator, ModelCode,
    Optimizer, OptimizerImplementation, PipelineSchedule, RecomputedModules, ReferenceModel, Role, Rollout,
    Setting, StageLayers, Task, TrainingRun,
};

fn on(cx: &Lowering<'_>, key: &str) -> Option<Setting<bool>> {
    cx.written(key, flag).filter(|on| on.value)
}

/// Optimizers that LLaMA-Factory builds itself, in the order of `create_custom_optimizer`.
pub(super) fn optimizer(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) {
    use OptimizerImplementation::{ForLoop, InBackward};
    let implementation = |layerwise: &str| match on(cx, layerwise) {
        Some(on) => on.map(|_| InBackward),
        None => Setting::default_of(ForLoop, by),
    };
    if let Some(on) = on(cx, "use_galore") {
        let small = matches!(run.optimizer.value, Optimizer::Adamw8bit | Optimizer::PagedAdamw8bit);
        run.optimizer = on.map(|_| if small { Optimizer::Galore8bit } else { Optimizer::Galore });
        run.optimizer_implementation = implementation("galore_layerwise");
        run.optimizer_rank = Some(cx.or_default("galore_rank", count, 16, by));
    } else if let Some(on) = on(cx, "use_apollo") {
        run.optimizer = on.map(|_| Optimizer::Apollo);
        run.optimizer_implementation = implementation("apollo_layerwise");
        run.optimizer_rank = Some(cx.or_default("apollo_rank", count, 16, by));
    } else if let Some(on) = on(cx, "use_badam") {
        badam(cx, run, on, by);
    } else if let Some(on) = on(cx, "use_adam_mini") {
        run.optimizer = on.map(|_| Optimizer::AdamMini);
        run.optimizer_implementation = Setting::default_of(ForLoop, by);
    } else if let Some(on) = on(cx, "use_muon") {
        run.optimizer = on.map(|_| Optimizer::Muon);
    }
}

/// Layer by layer: fp32 copies, gradients and moments of the block that is trained.
fn badam(cx: &mut Lowering<'_>, run: &mut TrainingRun, on: Setting<bool>, by: &str) {
    if cx.root.get("badam_mode").and_then(text).as_deref() == Some("ratio") {
        let why = "BAdam's `ratio` mode keeps sparse states, which are not modelled; `layer` is";
        cx.missing("optimizer", why, on.origin.location());
    }
    run.optimizer = on.map(|_| Optimizer::Badam);
    run.master_weights = Setting::default_of(run.weights.value != Dtype::Fp32, by);
    run.optimizer_state = Setting::default_of(Dtype::Fp32, by);
}

/// `stage: ppo`: the policy with a value head of one output, a reward model, and text generated
/// from prompts of `cutoff_len` tokens. The reference is the policy without its adapters.
pub(super) fn ppo(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) {
    let answer = cx.or_default("max_new_tokens", count, 1024, by);
    run.sequence_length = run.sequence_length.clone().map(|n| n.saturating_add(answer.value));
    if run.lora.is_none() {
        run.reference_model = match cx.written("ref_model", text) {
            Some(named) => named.map(|_| ReferenceModel::Resident),
            None => Setting::default_of(ReferenceModel::Resident, by),
        };
    }
    // An adapter of the policy's own, a model of its own, or a server.
    let kind = cx.or_default("reward_model_type", text, "lora".into(), by);
    if kind.value == "full" {
        let model = Setting::assumed(run.model.value.clone(), "the reward model is taken to be as large");
        run.beside.companions.push(Companion { role: Role::Reward, model, parameters: 0 });
    }
    run.task.value = Task::Rollout;
    run.beside.rollout =
        Some(Rollout::new(run.micro_batch_size.clone(), Setting::default_of(Generator::Model, by)));
}

/// What is bounded and not derived: the estimate takes the usual layers, and says how far they may
/// be off.
pub(super) fn bounded(cx: &mut Lowering<'_>, run: &mut TrainingRun) {
    let mut doubt = |why, below, above| run.beside.doubts.push(Doubt { why, below, above });
    if on(cx, "fp8").is_some() {
        // The products' inputs are kept in 16 bits by torchao and in 8 by Transformer Engine.
        doubt("fp8 matrix products may keep their inputs in 8 bits", 0.4, 0.05);
    }
    if cx.root.get("mixture_of_depths").is_some_and(|v| !v.is_null()) {
        // Every second layer sees one token in eight (`apply_mod_to_hf`).
        doubt("mixture of depths passes most tokens by every second layer", 0.45, 0.1);
    }
    if run.beside.spread_layers {
        doubt("frozen layers between trained ones keep less", 0.3, 0.0);
    }
    if run.beside.orthogonal_block.is_some() {
        doubt("orthogonal adapters are derived from PEFT's code, not traced", 0.25, 0.25);
    }
    if let Some(on) = on(cx, "use_kt") {
        doubt("experts computed on the host keep less on the card", 0.5, 0.1);
        run.beside.experts_on_host = Some(on);
    }
    if let Some(on) = on(cx, "use_unsloth") {
        hf::unsloth(run, on);
    }
    if let Some(on) = on(cx, "use_hyper_parallel") {
        cx.missing("use_hyper_parallel", "HyperParallel's sharding is not modelled", on.origin.location());
    }
}

/// The keys that send a run through Megatron: MCA's (`USE_MCA=1`) and Megatron-Bridge's.
const MEGATRON: &[&str] = &[
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "expert_model_parallel_size",
    "recompute_granularity",
];

/// Has the file one of them?
pub(super) fn goes_through_megatron(root: Value<'_>) -> bool {
    MEGATRON.iter().any(|key| root.get(key).is_some_and(|v| !v.is_null()))
}

/// Layers that are computed again, or the modules of each (`recompute_modules`). The block method takes
/// the first `recompute_num_layers` of a stage, the uniform one keeps one input for so many.
fn recomputed(cx: &Lowering<'_>, by: &str) -> Setting<Checkpointing> {
    let granularity = cx.or_default(
        "recompute_granularity",
        |v| match v.as_str()? {
            "full" => Some(Checkpointing::Full),
            "selective" => Some(Checkpointing::Selective),
            _ => None,
        },
        Checkpointing::None,
        by,
    );
    let modules = |v: Value<'_>| {
        let modules = serde_json::from_value::<RecomputedModules>(v.to_json()?).ok()?;
        Some(Checkpointing::Modules { modules })
    };
    let block = cx.root.get("recompute_method").and_then(|v| v.as_str()) == Some("block");
    let first = |v: Value<'_>| {
        let first = u32::try_from(count(v)?).ok()?;
        Some(Checkpointing::First { first })
    };
    let closer = match granularity.value {
        Checkpointing::Selective => cx.written("recompute_modules", modules),
        Checkpointing::Full if block => cx.written("recompute_num_layers", first),
        _ => None,
    };
    closer.unwrap_or(granularity)
}

/// Megatron instead of the Trainer: bf16 weights, fp32 gradients, masters and moments, its own
/// layers and loss. True: that is how this file runs. Facts: `hparams/megatron_bridge_args.py`;
/// ROLL's `mcore_adapter/training_args.py`.
pub(super) fn megatron(cx: &mut Lowering<'_>, run: &mut TrainingRun, by: &str) -> bool {
    if !goes_through_megatron(cx.root) {
        return false;
    }
    let of = |dtype: Dtype| Setting::default_of(dtype, by);
    run.model_code = Setting::default_of(ModelCode::Megatron, by);
    run.weights = of(Dtype::Bf16);
    run.compute = of(Dtype::Bf16);
    run.autocast = Setting::default_of(false, by);
    run.gradients = of(Dtype::Fp32);
    run.optimizer_state = of(Dtype::Fp32);
    run.master_weights = Setting::default_of(true, by);
    // Transformer Engine's or Apex' FusedAdam.
    run.optimizer_implementation = Setting::default_of(OptimizerImplementation::Fused, by);
    run.attention = Setting::default_of(Attention::Flash, by);
    // Samples are padded to the full length.
    run.batching = Setting::default_of(Batching::Fixed, by);
    run.activation_checkpointing = recomputed(cx, by);
    let degree = |key: &str| cx.or_default(key, count, 1, by);
    let parallel = &mut run.parallelism;
    parallel.tensor = degree("tensor_model_parallel_size");
    parallel.pipeline = degree("pipeline_model_parallel_size");
    let counts = |key: &str| cx.written(key, |v| flag(v).filter(|on| *on).map(|_| 1));
    parallel.stage_layers = StageLayers {
        embedding: counts("account_for_embedding_in_pipeline_split"),
        head: counts("account_for_loss_in_pipeline_split"),
        ..StageLayers::default()
    };
    parallel.expert_capacity =
        cx.written("moe_expert_capacity_factor", |v| v.to_float().filter(|c| *c > 0.0));
    parallel.context = degree("context_parallel_size");
    parallel.expert = degree("expert_model_parallel_size");
    parallel.expert_tensor = cx.written("expert_tensor_parallel_size", count);
    parallel.virtual_stages = degree("virtual_pipeline_model_parallel_size");
    if parallel.virtual_stages.value > 1 {
        parallel.pipeline_schedule = Setting::default_of(PipelineSchedule::Interleaved, by);
    }
    parallel.sequence_parallel = cx.or_default("sequence_parallel", flag, false, by);
    parallel.vocab_parallel_loss = parallel.tensor.clone().map(|n| n > 1);
    let divides =
        |v: Value<'_>| Some(if flag(v)? { DataParallel::MegatronDistributed } else { DataParallel::Ddp });
    parallel.data_parallel = cx.or_default("use_distributed_optimizer", divides, DataParallel::Ddp, by);
    parallel.zero = None;
    parallel.fsdp = None;
    let written = cx.root.get("pipeline_model_parallel_layout").filter(|v| !v.is_null());
    if let Some(written) = written {
        let starts = cx.written("pipeline_model_parallel_layout", |v| layout::chunk_starts(v.as_str()?));
        if starts.is_none() {
            let why = "a layout says which stage has which layers, and this one is not understood";
            cx.missing("pipeline parallel", why, Some(crate::framework::lowering::here(written)));
        }
        run.parallelism.stage_layers.starts = starts;
    }
    true
}
