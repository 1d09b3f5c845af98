//! From a lowered run and its model to an estimate, or to what is missing for one.

use crate::catalog::Architecture;
use crate::catalog::models::{self, Lookup, NotFound, Resolved};
use crate::memory::parameters::Inventory;
use crate::memory::{Cause, Estimate, Floor, Interval, estimate, floor};
use crate::run::{
    DataParallel, Generator, Method, Quantization, SEQUENCE_LENGTH, Setting, TrainingRun, Unknown,
};
use crate::settings::Budget;

/// Tokens a sequence where a file leaves the length to its data. Not a measurement: most
/// instruction data has samples of a few hundred to a few thousand tokens, so the estimate is
/// made for the middle and its interval spans the ends.
const OPEN_LENGTH: [u64; 3] = [512, 2048, 8192];

/// Without a GPU count, a run that shards nothing needs the same on each GPU; one that shards
/// has no answer.
pub(super) fn settle_gpus(run: &mut TrainingRun, unknown: &mut Vec<Unknown>) {
    if run.parallelism.gpus.is_some() {
        return;
    }
    let degrees = [&run.parallelism.tensor, &run.parallelism.pipeline, &run.parallelism.context];
    let spread = degrees.iter().any(|degree| degree.value > 1);
    match run.parallelism.data_parallel.value {
        DataParallel::None | DataParallel::Ddp if !spread => {
            run.parallelism.gpus = Some(Setting::assumed(1, "no GPU count is declared"));
        }
        _ => unknown.push(Unknown {
            what: "gpus".into(),
            why: "states are divided over the GPUs, and nothing says how many there are: \
                  give `--gpus`, or `gpus` under `[budget]` in llmlint.toml"
                .into(),
            location: run.parallelism.data_parallel.origin.location(),
        }),
    }
}

/// A checkpoint that is stored quantised stays so under adapters, where the run says nothing else.
pub(super) fn settle_checkpoint(run: &mut TrainingRun, architecture: &Architecture) {
    let Some(format) = architecture.quantized.as_deref() else { return };
    if run.quantization.value != Quantization::None || run.lora.is_none() {
        return;
    }
    if let Some(stored) = Quantization::of_format(format) {
        run.quantization = Setting::assumed(stored, format!("the checkpoint is stored so ({format})"));
        if run.method.value == Method::Lora {
            run.method.value = Method::Qlora;
        }
    }
}

/// What a run needs to know of other models and of the card before it can be estimated: the sizes
/// of the models beside the trained one, and the bytes of a colocated vLLM's share. Without a card
/// vLLM's weights are all that is certain.
pub(super) fn settle_beside(
    run: &mut TrainingRun,
    architecture: &Architecture,
    lookup: &Lookup,
    budget: Option<&Budget>,
    unknown: &mut Vec<Unknown>,
) {
    let size = |architecture: &Architecture| Inventory::of(architecture).map(|all| all.total());
    for companion in &mut run.beside.companions {
        let found = models::resolve(&companion.model.value, lookup).map_err(|not_found| not_found.why);
        match found.and_then(|resolved| size(&resolved.architecture)) {
            Ok(parameters) => companion.parameters = parameters,
            Err(why) => unknown.push(Unknown {
                what: companion.role.describe().into(),
                why,
                location: companion.model.origin.location(),
            }),
        }
    }
    let Some(rollout) = &mut run.beside.rollout else { return };
    if rollout.generator.value != Generator::Colocated {
        return;
    }
    let weights = size(architecture).unwrap_or(0).saturating_mul(run.compute.value.bytes());
    let card = budget.map(|budget| budget.memory.0 as f64);
    let share = rollout.share.as_ref().map(|share| share.value.clamp(0.0, 1.0));
    rollout.reserved = match (share, card) {
        (Some(share), Some(card)) => (share * card) as u64,
        _ => weights,
    };
}

/// Estimates, if nothing but perhaps the sequence length is missing.
pub(super) fn answer(
    run: &mut TrainingRun,
    architecture: &Architecture,
    unknown: &mut Vec<Unknown>,
    answer: &mut Option<Estimate>,
) {
    if let Some(zero) = &mut run.parallelism.zero {
        zero.settle(architecture.hidden_size);
    }
    let open = unknown.iter().any(|u| u.what == SEQUENCE_LENGTH);
    if unknown.iter().any(|u| u.what != SEQUENCE_LENGTH) {
        return;
    }
    let result = if open { over_open_lengths(run, architecture) } else { estimate(run, architecture) };
    match result {
        Ok(estimate) => {
            *answer = Some(estimate);
            unknown.clear();
        }
        Err(missing) => *unknown = missing,
    }
}

/// What leaves a run's states certain while it is unknown.
const STATES_KNOWN: [&str; 3] = ["model", SEQUENCE_LENGTH, "gpus"];

/// The floor of a run that has no estimate, where what is missing is no matter of its states.
pub(super) fn at_least(
    run: &TrainingRun,
    found: &Result<Resolved, NotFound>,
    unknown: &[Unknown],
) -> Option<Floor> {
    if unknown.iter().any(|u| !STATES_KNOWN.contains(&u.what.as_str())) {
        return None;
    }
    let (parameters, language) = match found {
        Ok(resolved) => {
            let all = Inventory::of(&resolved.architecture).ok()?;
            (all.total(), all.language())
        }
        Err(missing) => (missing.parameters?, missing.parameters?),
    };
    floor(run, parameters, language)
}

/// One estimate for a length that the file leaves to its data: the middle of [`OPEN_LENGTH`],
/// with an interval from the low end of the shortest to the high end of the longest.
fn over_open_lengths(run: &mut TrainingRun, architecture: &Architecture) -> Result<Estimate, Vec<Unknown>> {
    let positions = if architecture.max_positions > 0 { architecture.max_positions } else { u64::MAX };
    let mut at = |length: u64| {
        run.sequence_length =
            Setting::assumed(length.min(positions), "the file leaves it to the longest sample of the data");
        estimate(run, architecture)
    };
    let (shortest, longest) = (at(OPEN_LENGTH[0])?, at(OPEN_LENGTH[2])?);
    let mut middle = at(OPEN_LENGTH[1])?;
    middle.causes.push(Cause {
        what: format!(
            "the file leaves the sequence length open: {} to {} tokens",
            OPEN_LENGTH[0], OPEN_LENGTH[2]
        ),
        below: middle.device - shortest.device,
        above: longest.device - middle.device,
    });
    let over = |of: fn(&Estimate) -> Interval| Interval { low: of(&shortest).low, high: of(&longest).high };
    middle.allocated_interval = over(|e| e.allocated_interval);
    middle.reserved_interval = over(|e| e.reserved_interval);
    middle.device_interval =
        Interval { low: shortest.device_interval.low, high: longest.device_interval.high };
    Ok(middle)
}
