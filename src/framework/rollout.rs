//! GRPO and its kin as TRL trains them, alone and under Axolotl: each step learns from answers
//! that were generated before it.
//!
//! Facts: TRL 0.14 to 1.16 `trainer/grpo_{config,trainer}.py`, read release by release.

use super::Lowering;
use super::baseline::count;
use super::training_arguments::flag;
use crate::run::{Generator, Loss, ReferenceModel, Rollout, Setting, Task, TrainingRun};

/// What differs between the frameworks and their releases.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Whose defaults they are, with the version.
    pub by: &'a str,
    /// What stands before TRL's names: nothing, or `trl.`.
    pub prefix: &'a str,
    /// The key of vLLM's share of the card.
    pub share: &'a str,
    /// The weight of the distance from the reference, when absent: 0.04 before TRL 0.19, then 0.
    pub beta: f64,
    /// `max_completion_length` when absent: 256, from TRL 1.10 on 512.
    pub completion: u64,
    /// `vllm_mode` when absent: a server before TRL 1.0.
    pub server: bool,
    /// From TRL 0.18 on a whole step's answers are generated at once.
    pub whole_step: bool,
    /// Liger's switch fuses this loss too (from TRL 0.27).
    pub liger_loss: bool,
}

/// The part of the card that TRL leaves vLLM, when nothing says (0.18 to 1.16).
const SHARE: f64 = 0.3;

/// Tokens of a prompt that are taken where nothing cuts prompts: TRL's own limit until 0.25.
pub const PROMPT: u64 = 512;

/// Tokens of an answer.
pub fn completion(cx: &Lowering<'_>, facts: Facts<'_>) -> Setting<u64> {
    cx.or_default(&format!("{}max_completion_length", facts.prefix), count, facts.completion, facts.by)
}

/// Sets everything but the sequence length, which is prompt and answer together.
pub fn lower(cx: &Lowering<'_>, run: &mut TrainingRun, facts: Facts<'_>) {
    let key = |name: &str| format!("{}{name}", facts.prefix);
    let on = |name: &str| cx.written(&key(name), flag).filter(|on| on.value);
    run.target_length = Some(completion(cx, facts));
    // Logits of the answer's tokens come in fp32 and are kept so; the fused loss never makes them.
    let liger = on("use_liger_loss").or_else(|| {
        let kernel = cx.written("use_liger_kernel", flag).filter(|on| on.value);
        kernel.filter(|_| facts.liger_loss)
    });
    run.loss = match liger {
        Some(on) => on.map(|_| Loss::Fused),
        None => Setting::default_of(Loss::Full, facts.by),
    };
    let beta = cx.or_default(&key("beta"), |v| v.to_float(), facts.beta, facts.by);
    let compares = beta.value != 0.0 && run.lora.is_none();
    run.reference_model =
        beta.map(|_| if compares { ReferenceModel::Resident } else { ReferenceModel::None });
    let micro = run.micro_batch_size.value;
    let gpus = run.parallelism.gpus.as_ref().map_or(1, |gpus| gpus.value.max(1));
    let sequences = cx
        .written(&key("generation_batch_size"), count)
        .map(|all| all.map(|n| (n / gpus).max(1)))
        .or_else(|| {
            cx.written(&key("steps_per_generation"), count).map(|n| n.map(|n| n.saturating_mul(micro)))
        })
        .unwrap_or_else(|| {
            let steps = if facts.whole_step { run.gradient_accumulation_steps.value } else { 1 };
            Setting::default_of(micro.saturating_mul(steps), facts.by)
        });
    let generator = match on("use_vllm") {
        None => Setting::default_of(Generator::Model, facts.by),
        Some(on) => {
            let mode = cx.written(&key("vllm_mode"), |v| match v.as_str()? {
                "colocate" => Some(Generator::Colocated),
                "server" => Some(Generator::Elsewhere),
                _ => None,
            });
            let usual = if facts.server { Generator::Elsewhere } else { Generator::Colocated };
            mode.unwrap_or_else(|| on.map(|_| usual))
        }
    };
    let share = cx.or_default(facts.share, |v| v.to_float(), SHARE, facts.by);
    run.task.value = Task::Rollout;
    run.beside.rollout = Some(Rollout {
        share: (generator.value == Generator::Colocated).then_some(share),
        sleeps: on("vllm_enable_sleep_mode").is_some(),
        gathers: cx.or_default(&key("ds3_gather_for_generation"), flag, true, facts.by),
        ..Rollout::new(sequences, generator)
    });
}
