//! Axolotl's ways of learning from generated answers: GRPO, GDPO, and EBFT, which scores answers
//! by the hidden states of a frozen copy. Facts: axolotl 0.21.0 `core/trainers/{grpo,ebft}/`,
//! `train.py`, `utils/schemas/{config,trl}.py`; it installs TRL 1.14.

use super::RELEASE;
use crate::framework::Lowering;
use crate::framework::baseline::count;
use crate::framework::rollout::{self, Facts};
use crate::run::{Companion, Generator, Loss, ReferenceModel, Role, Rollout, Setting, TrainingRun};

const FACTS: Facts<'_> = Facts {
    by: RELEASE,
    prefix: "trl.",
    share: "vllm.gpu_memory_utilization",
    beta: 0.0,
    completion: 512,
    server: true,
    whole_step: true,
    liger_loss: true,
};

/// GRPO and GDPO. `sequence_len` cuts nothing here; it is taken for prompt and answer together,
/// where it holds the answer at all.
pub(super) fn lower(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let answer = rollout::completion(cx, FACTS).value;
    if run.sequence_length.value <= answer {
        let why = "nothing cuts prompts, so the longest decides: 512 tokens are taken beside the answer's";
        run.sequence_length = Setting::assumed(answer.saturating_add(rollout::PROMPT), why);
    }
    rollout::lower(cx, run, FACTS);
}

/// EBFT. Structured data go through GRPO's step; in the strided mode blocks are generated all over
/// a text, behind which they are appended.
pub(super) fn features(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let strided = cx.root.path("ebft.mode").and_then(|v| v.as_str()) == Some("strided");
    if strided {
        blocks(cx, run);
    } else {
        lower(cx, run);
    }
    let one = run.parallelism.gpus.as_ref().is_none_or(|gpus| gpus.value <= 1);
    // A copy of the model, unless adapters on a single GPU can be switched off.
    if run.lora.is_none() || !one {
        run.beside.companions.push(Companion {
            role: Role::Features,
            model: run.model.clone(),
            parameters: 0,
        });
    }
}

/// `strided.py`, `compute_loss`: a block of `generate_max_len` tokens each `stride` tokens,
/// `n_samples_per_prompt` times over; all of them wait for one backward.
fn blocks(cx: &Lowering<'_>, run: &mut TrainingRun) {
    let key = |name: &str, default| cx.or_default(&format!("ebft.{name}"), count, default, RELEASE);
    let (stride, length, context) = (key("stride", 8), key("generate_max_len", 8), key("context_length", 8));
    let samples = key("n_samples_per_prompt", 4);
    let text = run.sequence_length.value;
    let blocks = text.saturating_sub(length.value.saturating_add(context.value)) / stride.value.max(1) + 1;
    let generated = blocks.saturating_mul(length.value);
    let sequences = run.micro_batch_size.clone().map(|n| n.saturating_mul(samples.value));
    run.sequence_length = run.sequence_length.clone().map(|n| n.saturating_add(generated));
    run.target_length = Some(length.map(|_| generated));
    run.micro_batch_size = sequences.clone();
    run.reference_model = Setting::default_of(ReferenceModel::None, RELEASE);
    // The head runs over 256 tokens at a time.
    let chunks = u32::try_from(generated.saturating_mul(sequences.value).div_ceil(256)).unwrap_or(u32::MAX);
    run.loss = Setting::default_of(Loss::Chunked { chunked: chunks.max(1) }, RELEASE);
    run.beside.rollout = Some(Rollout::new(sequences, Setting::default_of(Generator::WithoutCache, RELEASE)));
}
