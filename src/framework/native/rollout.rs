//! `training.rollout`: texts generated between steps, and the models that judge them.

use super::{BY, Lowering, or, positive};
use crate::run::{Beside, Companion, Generator, ModelRef, Role, Rollout, Setting};

/// TRL's `vllm_gpu_memory_utilization` (0.18 to 1.16).
const SHARE: f64 = 0.3;

pub(super) fn beside(cx: &Lowering<'_>, micro_batch: &Setting<u64>) -> Beside {
    let key = |name: &str| format!("training.rollout.{name}");
    let sequences = cx.or_default(&key("sequences"), positive, micro_batch.value, BY);
    let generator = or(cx, &key("generator"), Generator::Model);
    let share = cx.or_default(&key("vllm_share"), |v| v.as_float(), SHARE, BY);
    let rollout = Rollout {
        share: (generator.value == Generator::Colocated).then_some(share),
        sleeps: or(cx, &key("vllm_sleeps"), false).value,
        gathers: or(cx, &key("gather_for_generation"), true),
        value_apart: or(cx, &key("value_model_apart"), false).value,
        ..Rollout::new(sequences, generator)
    };
    let companions = [(Role::Reward, "reward_model"), (Role::Value, "value_model")]
        .into_iter()
        .filter_map(|(role, name)| {
            let model = cx.written(&key(name), |v| v.as_str().map(|id| ModelRef::Id(id.to_owned())))?;
            Some(Companion { role, model, parameters: 0 })
        })
        .collect();
    Beside { companions, rollout: Some(rollout), ..Beside::default() }
}
