//! LLaMA-Factory's less common ways: optimizers that it builds itself, PPO, and switches whose
//! cost is bounded rather than derived.
//!
//! Facts: `train/trainer_utils.py`, `train/ppo/`, `model/model_utils/{unsloth,mod}.py`,
//! `train/fp8_utils.py`, `hparams/{finetuning,generating}_args.py` at commit ff6d4d1.

use super::super::Lowering;
use super::super::baseline::count;
use super::super::lowering::here;
use super::super::training_arguments::{self as hf, flag, text};
use crate::run::{
    Companion, Doubt, Dtype, Generator, Optimizer, OptimizerImplementation, ReferenceModel, Role, Rollout,
    Setting, Task, TrainingRun,
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
    run.beside.rollout = Some(Rollout {
        sequences: run.micro_batch_size.clone(),
        generator: Setting::default_of(Generator::Model, by),
        share: None,
        reserved: 0,
        sleeps: false,
    });
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
    megatron(cx);
}

fn megatron(cx: &mut Lowering<'_>) {
    if let Some(on) = on(cx, "use_hyper_parallel") {
        cx.missing("use_hyper_parallel", "HyperParallel's sharding is not modelled", on.origin.location());
    }
    let keys = [
        "tensor_model_parallel_size",
        "pipeline_model_parallel_size",
        "expert_model_parallel_size",
        "recompute_granularity",
    ];
    if let Some(value) = keys.iter().find_map(|key| cx.root.get(key)).filter(|v| !v.is_null()) {
        cx.missing(
            "parallelism",
            "with Megatron's keys the run goes through Megatron (USE_MCA=1), which is not modelled for these files",
            Some(here(value)),
        );
    }
}
