//! torchtune's recipes that keep more than one model: distillation, PPO, GRPO; and
//! quantisation-aware training. Facts: torchtune 0.7 `recipes/knowledge_distillation_*.py`,
//! `ppo_full_finetune_single_device.py`, `dev/grpo_full_finetune_distributed.py`,
//! `recipes/qat_*.py`.

use super::launch::Launch;
use super::{RELEASE, count, here, model_of};
use crate::document::Value;
use crate::framework::Lowering;
use crate::run::{
    Companion, FakeQuantization, Generator, Loss, ReferenceModel, Role, Rollout, SEQUENCE_LENGTH, Setting,
    Task, TrainingRun,
};

/// The teacher, if there is one.
pub(super) fn teacher(cx: &Lowering<'_>, run: &mut TrainingRun) {
    if let Some((_, model)) = model_of(cx, "teacher_model") {
        run.beside.companions.push(Companion { role: Role::Teacher, model, parameters: 0 });
    }
}

/// The quantiser serves evaluation too; a `qat` recipe trains with it.
pub(super) fn fake_quantization(cx: &Lowering<'_>, run: &mut TrainingRun, launch: Option<&Launch>) {
    let Some(quantizer) = cx.root.get("quantizer") else { return };
    if launch.is_some_and(|launch| !launch.recipe.starts_with("qat")) {
        return;
    }
    let name = quantizer.get("_component_").and_then(|v| v.as_str()).unwrap_or_default();
    // `Int8DynAct…` rounds the layers' inputs, too.
    let what = if name.contains("DynAct") {
        FakeQuantization::WeightsAndInputs
    } else if name.contains("QAT") {
        FakeQuantization::Weights
    } else {
        return;
    };
    run.beside.fake_quantization = Some(Setting::written(what, here(quantizer)));
}

/// PPO and GRPO: what is generated, with what batch, and the models that judge it.
pub(super) fn rollouts(cx: &mut Lowering<'_>, run: &mut TrainingRun, ppo: bool) {
    let answer = cx.or_default("max_generated_tokens", count, 0, RELEASE);
    // Prompts are cut to the tokenizer's limit; where there is none, the longest decides.
    let open = cx.unknown.iter().any(|unknown| unknown.what == SEQUENCE_LENGTH);
    if open {
        cx.unknown.retain(|unknown| unknown.what != SEQUENCE_LENGTH);
        let why = "the longest prompt of the data decides; 512 tokens are taken";
        run.sequence_length = Setting::assumed(crate::framework::rollout::PROMPT, why);
    }
    run.sequence_length = run.sequence_length.clone().map(|prompt| prompt.saturating_add(answer.value));
    let forward = cx.or_default("forward_batch_size", count, 1, RELEASE);
    let samples = if ppo { 1 } else { cx.or_default("grpo_samples", count, 1, RELEASE).value };
    // GRPO's step takes a whole batch's samples at once.
    run.micro_batch_size = match cx.written("ppo_batch_size", count) {
        Some(batch) if ppo => {
            let steps = cx.or_default("gradient_accumulation_steps", count, 1, RELEASE).value;
            batch.map(|n| (n / steps.max(1)).max(1))
        }
        _ => run.micro_batch_size.clone().map(|n| n.saturating_mul(samples)),
    };
    if let Some(reference) =
        ["ref_checkpointer", "ref_policy_checkpointer"].iter().find_map(|k| cx.root.get(k))
    {
        run.reference_model = Setting::written(ReferenceModel::Resident, here(reference));
    }
    if ppo && let Some((_, model)) = model_of(cx, "reward_and_value_model") {
        for role in [Role::Value, Role::Reward] {
            run.beside.companions.push(Companion { role, model: model.clone(), parameters: 0 });
        }
    }
    // `logits_to_logprobs` stays in the logits' dtype.
    run.loss = Setting::default_of(Loss::FullNoUpcast, RELEASE);
    run.task.value = Task::Rollout;
    run.beside.rollout = Some(Rollout::new(forward.map(|n| n.saturating_mul(samples)), generator(cx.root)));
}

/// Without `enable_kv_cache` the whole text goes through the model for each token.
fn generator(root: Value<'_>) -> Setting<Generator> {
    match root.get("enable_kv_cache") {
        Some(value) if value.as_bool() == Some(false) => {
            Setting::written(Generator::WithoutCache, here(value))
        }
        Some(value) => Setting::written(Generator::Model, here(value)),
        None => Setting::default_of(Generator::Model, RELEASE),
    }
}
