//! What lies between allocated bytes and what the card must hold: the allocator's rounding and
//! unused blocks, the CUDA context, communicators. Measured, not derived, and named as such.

use super::communicators;
use super::data_parallel::deferred;
use super::expression::group;
use super::ledger::{Component, Entry, PhaseSet};
use super::lines::{Line, Lines};
use super::plan::Plan;
use super::timeline::STEP;
use crate::run::{Checkpointing, TrainingRun};
use crate::units::{Bytes, GIB};

/// cuBLAS's workspace of one matrix product on sm80 to sm89 (PyTorch's default configuration,
/// `:4096:2:16:8`); 32 MiB on sm90.
pub(crate) const CUBLAS_WORKSPACE: f64 = 8_519_680.0;

/// CUDA context and kernels of a training process: readings from 0.13 (T4, lazy loading) over 0.47
/// (A100, lazy) to 0.92 GiB (A100, eager), out-of-memory messages of single GPUs 0.41 to 1.2 GiB.
const CONTEXT_GIB: f64 = 0.55;

/// Reserved over allocated where the replay does not describe the run: PyTorch's default allocator at
/// a constant shape from a cold start.
pub(crate) fn reserved_ratio(plan: &Plan<'_>) -> f64 {
    let checkpointed = !matches!(plan.run.activation_checkpointing.value, Checkpointing::None);
    if plan.live.is_some() && !plan.run.expandable_segments.value {
        // Medians of 38 traced ranks of FSDP's pipelines (1.15 to 1.31, one 1.38) and of 9 without (1.01 to 1.12).
        return if deferred(plan).is_some() { 1.22 } else { 1.08 };
    }
    match (plan.adapters.is_some(), checkpointed) {
        // Medians of traced runs above 2 GB, by stratum.
        (false, false) => 1.05,
        (false, true) => 1.11,
        (true, false) => 1.06,
        (true, true) => 1.15,
    }
}

/// The line for what blocks hold beyond their tensors: tensors of 10 MiB and more get segments
/// rounded to 2 MiB, and what is left up to 1 MiB is not split off.
pub(crate) fn rounding(slack: f64) -> Option<Entry> {
    (slack > 0.0).then(|| Entry {
        component: Component::Temporaries,
        name: "large tensors rounded up to whole blocks".into(),
        formula: "up to 1 MiB a tensor of 10 MiB or more".into(),
        numbers: group(slack as i64),
        bytes: Bytes::from_f64(slack),
        live: PhaseSet::of(STEP),
        drivers: Vec::new(),
        source: "PyTorch's caching allocator, its rules replayed over two steps",
    })
}

/// The lines outside the allocator: the CUDA context, a communicator for each process group.
pub(crate) fn outside(run: &TrainingRun, gpus: u64) -> Vec<Entry> {
    let mut lines = Lines::default();
    let context = Line {
        component: Component::Context,
        name: "CUDA context and kernels".into(),
        live: PhaseSet::ALL,
        drivers: &[],
        source: "measured: readings of 0.13 to 0.92 GiB, out-of-memory messages of 0.41 to 1.2 GiB",
    };
    match &run.cuda_context {
        Some(declared) => lines.worded(context, "as declared", declared.value.0 as f64),
        None => lines.worded(context, "0.55 GiB", CONTEXT_GIB * GIB),
    }
    communicators::lines(&communicators::groups(run, gpus), &mut lines);
    lines.finish().entries
}
