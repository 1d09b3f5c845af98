//! What the memory rules share: which lines of the file drive the peak, what was assumed, and
//! which changes would fit.

use super::Checked;
use crate::finding::{Finding, Fix};
use crate::fit::Search;
use crate::memory::{Component, Driver, Entry, Estimate, Floor};
use crate::run::TrainingRun;
use crate::settings::Budget;
use crate::source::Location;
use crate::units::Bytes;

/// An entry smaller than this part of the peak is not worth a label.
const LEAST_SHARE: f64 = 0.03;

/// Most labels beside the primary one.
const LABELS: usize = 4;

/// Most assumptions named in a finding; `explain` lists them all.
const ASSUMPTIONS: usize = 5;

/// A line of a file and what it is responsible for at the peak.
struct Place<'a> {
    location: Location,
    /// People change it to save memory; the model they do not.
    changeable: bool,
    entries: Vec<&'a Entry>,
}

impl Place<'_> {
    fn bytes(&self) -> Bytes {
        self.entries.iter().map(|entry| entry.bytes).sum()
    }

    /// `saved for backward, 32 layers: 38.1 GiB`; several entries by their components.
    fn words(&self) -> String {
        let what = match self.entries.as_slice() {
            [entry] => entry.name.clone(),
            entries => {
                let mut components: Vec<Component> = entries.iter().map(|entry| entry.component).collect();
                components.sort_unstable();
                components.dedup();
                let names: Vec<&str> = components.iter().map(|component| component.as_str()).collect();
                match names.as_slice() {
                    [init @ .., last] if !init.is_empty() => format!("{} and {last}", init.join(", ")),
                    _ => names.concat(),
                }
            }
        };
        format!("{what}: {}", self.bytes())
    }
}

/// The entries that matter at the peak, largest first.
fn entries(estimate: &Estimate) -> Vec<&Entry> {
    let least = estimate.device * LEAST_SHARE;
    let mut entries: Vec<&Entry> = estimate
        .ledger
        .entries
        .iter()
        .filter(|entry| entry.component != Component::Context)
        .filter(|entry| entry.live.contains(estimate.phase) && entry.bytes > least)
        .collect();
    entries.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    entries
}

fn places<'a>(estimate: &'a Estimate, run: &TrainingRun) -> Vec<Place<'a>> {
    let mut places: Vec<Place<'a>> = Vec::new();
    for entry in entries(estimate) {
        let written =
            entry.drivers.iter().find_map(|driver| Some((*driver, driver.origin(run)?.location()?)));
        let Some((driver, location)) = written else { continue };
        match places.iter_mut().find(|place| place.location == location) {
            Some(place) => place.entries.push(entry),
            None => {
                let changeable = driver != Driver::Model;
                places.push(Place { location, changeable, entries: vec![entry] });
            }
        }
    }
    places.sort_by_key(|place| (std::cmp::Reverse(place.changeable), std::cmp::Reverse(place.bytes())));
    places
}

/// Points `finding` at the setting that drives the largest changeable entry, and labels the
/// settings that drive the next ones.
pub(super) fn point(mut finding: Finding, estimate: &Estimate, run: &TrainingRun) -> Finding {
    let mut places = places(estimate, run).into_iter();
    let Some(first) = places.next() else { return finding };
    finding.primary.location = first.location;
    finding = finding.at(first.words());
    for place in places.take(LABELS) {
        let words = place.words();
        finding = finding.label(place.location, words);
    }
    finding
}

/// The figure that budgets are compared with, and how far it may be off: `peak of 71.7 GiB (68.8
/// to 79.9 GiB)`. Names the rank where ranks differ.
pub(super) fn peak(estimate: &Estimate) -> String {
    let on = if estimate.ranks.len() > 1 { format!(" on {}", estimate.rank) } else { String::new() };
    format!("peak of {}{on} ({})", estimate.device, estimate.device_interval)
}

/// When and where the peak is, how wide the estimate is and why, and what was assumed.
pub(super) fn notes(mut finding: Finding, estimate: &Estimate, run: &TrainingRun) -> Finding {
    finding = finding.note(format!(
        "the peak is at {}, on {}: {} allocated, {} reserved by the allocator, {} on the device, which is \
         what the budget limits",
        estimate.phase.describe(),
        estimate.rank,
        estimate.allocated,
        estimate.reserved,
        estimate.device,
    ));
    finding = finding.note(interval(estimate));
    let assumed = assumptions(estimate, run);
    if !assumed.is_empty() {
        finding = finding.note(format!("not in the file, and it matters here: {}", assumed.join("; ")));
    }
    finding
}

/// What a floor counts, and what it leaves out.
pub(super) fn floor(floor: &Floor) -> String {
    format!(
        "{} of weights, {} of gradients and {} of optimizer states on each GPU: a floor and no estimate; activations, \
         buffers and the CUDA context come on top",
        floor.weights, floor.gradients, floor.optimizer,
    )
}

/// `about nine runs in ten need 94.3 to 102.8 GiB: what the allocator reserves (-2.4, +4.0 GiB), …`.
pub(super) fn interval(estimate: &Estimate) -> String {
    let mut causes: Vec<_> = estimate.causes.iter().collect();
    causes.sort_by_key(|cause| std::cmp::Reverse(cause.below + cause.above));
    let causes: Vec<String> = causes
        .iter()
        .take(3)
        .map(|cause| format!("{} (-{}, +{})", cause.what, cause.below, cause.above))
        .collect();
    let why = if causes.is_empty() { String::new() } else { format!(": {}", causes.join(", ")) };
    format!("about nine runs in ten need {}{why}", estimate.device_interval)
}

/// The settings that drive the peak and that nobody wrote: `micro_batch_size 8 (default of
/// llama-factory 0.9)`.
fn assumptions(estimate: &Estimate, run: &TrainingRun) -> Vec<String> {
    let settings = run.settings();
    let mut seen: Vec<Driver> = Vec::new();
    let mut words = Vec::new();
    for driver in entries(estimate).iter().flat_map(|entry| &entry.drivers).copied() {
        let assumed = driver.origin(run).is_some_and(|origin| origin.is_assumption());
        if !assumed || seen.contains(&driver) {
            continue;
        }
        seen.push(driver);
        let found = settings.iter().find(|(name, _, _)| setting(driver) == Some(*name));
        if let Some((name, value, origin)) = found {
            words.push(format!("{name} {value} ({})", origin.describe()));
        }
    }
    let more = words.len().saturating_sub(ASSUMPTIONS);
    words.truncate(ASSUMPTIONS);
    if more > 0 {
        words.push(format!("{more} more in `llmlint explain`"));
    }
    words
}

/// The setting's name in [`TrainingRun::settings`].
fn setting(driver: Driver) -> Option<&'static str> {
    Some(match driver {
        Driver::Model => "model",
        Driver::Method => "method",
        Driver::LoraRank => "lora.rank",
        Driver::LoraTargets => "lora.targets",
        Driver::Quantization => "quantization",
        Driver::Weights => "weights",
        Driver::Compute => "compute",
        Driver::Gradients => "gradients",
        Driver::Optimizer => "optimizer",
        Driver::OptimizerImplementation => "optimizer_implementation",
        Driver::MicroBatchSize => "micro_batch_size",
        Driver::GradientAccumulation => "gradient_accumulation_steps",
        Driver::SequenceLength => "sequence_length",
        Driver::Checkpointing => "activation_checkpointing",
        Driver::ActivationOffload => "activation_offload",
        Driver::Attention => "attention",
        Driver::Kernels => "kernels",
        Driver::Loss => "loss",
        Driver::ReferenceModel => "reference_model",
        Driver::Companions => "companions",
        Driver::Rollout => "rollout.generator",
        Driver::EvalBatchSize => "eval_batch_size",
        Driver::DataParallel => "data_parallel",
        Driver::Gpus => "gpus",
        Driver::Tensor => "tensor",
        Driver::Pipeline => "pipeline",
        Driver::Context => "context",
        Driver::Expert => "expert",
        Driver::Offload => "offload.optimizer",
        Driver::ZeroBuffers => "zero.reduce_bucket_size",
    })
}

/// The changes that fit, each with the peak it leads to: as edits where the framework's keys can
/// say it, in words otherwise.
pub(super) fn suggest(
    mut finding: Finding,
    file: &Checked<'_>,
    run: &TrainingRun,
    budget: &Budget,
) -> Finding {
    let (Some(architecture), Some(framework), Some(root), Some(source)) =
        (file.architecture, file.framework, file.root, file.sources.first())
    else {
        return finding;
    };
    let search = Search { run, architecture, budget, framework, source, root, again: file.again };
    let found = search.suggestions();
    for suggestion in &found {
        let title = format!("{}: {}", suggestion.title(), suggestion.estimate.device);
        let safety = suggestion.safety();
        match suggestion.edits.clone().filter(|_| suggestion.is_writable()) {
            Some(edits) => finding.fixes.push(Fix { title, safety, edits }),
            None if suggestion.by_hand.is_empty() => finding = finding.help(title),
            None => finding = finding.help(format!("{title} ({})", suggestion.by_hand.join("; "))),
        }
    }
    if found.is_empty() {
        finding = finding.help(
            "no set of changes that can be made here fits; `llmlint fit` lists what each of them saves",
        );
    }
    finding
}
