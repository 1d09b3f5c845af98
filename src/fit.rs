//! The smallest changes that bring a run under its budget, found by estimating again.

use std::ops::RangeInclusive;

use crate::catalog::Architecture;
use crate::change::Change;
use crate::check::Verdict;
use crate::finding::Safety;
use crate::memory::{Estimate, estimate};
use crate::run::{DataParallel, Method, TrainingRun};
use crate::settings::Budget;

/// Changes that together make a run fit (or that come nearest to it).
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// What to change, cheapest first.
    pub changes: Vec<Change>,
    /// The run after them.
    pub run: TrainingRun,
    /// What it then needs.
    pub estimate: Estimate,
    /// Whether it then fits.
    pub verdict: Verdict,
    /// The sum of [`Change::cost`]; a rank, not a time.
    pub cost: u32,
}

impl Suggestion {
    /// In words: `activation checkpointing and a fused loss`.
    pub fn title(&self) -> String {
        let parts: Vec<String> = self.changes.iter().map(|change| change.describe()).collect();
        match parts.as_slice() {
            [] => "no change".into(),
            [one] => one.clone(),
            [init @ .., last] => format!("{} and {last}", init.join(", ")),
        }
    }

    /// Unsafe as soon as one of the changes is.
    pub fn safety(&self) -> Safety {
        if self.changes.iter().all(|change| change.safety() == Safety::Safe) {
            Safety::Safe
        } else {
            Safety::Unsafe
        }
    }
}

/// The ways to turn each knob of this run; an empty choice keeps it.
fn knobs(run: &TrainingRun) -> Vec<Vec<Change>> {
    let (batch, accumulation) = (run.micro_batch_size.value, run.gradient_accumulation_steps.value);
    let batches = std::iter::successors(Some(batch / 2), |size| Some(size / 2))
        .take_while(|size| *size > 0)
        // Only sizes that keep the global batch exactly.
        .filter(|size| (batch * accumulation) % size == 0)
        .map(|size| Change::MicroBatch { size, accumulation: batch * accumulation / size })
        .collect();
    let method = if run.method.value == Method::Full {
        vec![Change::Lora, Change::Qlora]
    } else {
        vec![Change::Qlora]
    };
    let length = run.sequence_length.value;
    let lengths =
        [length / 2, length / 4].into_iter().filter(|l| *l >= 512).map(Change::SequenceLength).collect();
    vec![
        vec![Change::FuseLoss, Change::Liger],
        batches,
        vec![Change::Checkpoint],
        vec![
            Change::Shard(DataParallel::Zero1),
            Change::Shard(DataParallel::Zero2),
            Change::Shard(DataParallel::Zero3),
        ],
        vec![Change::Optimizer8bit, Change::PagedOptimizer8bit],
        vec![Change::OffloadOptimizer],
        method,
        lengths,
    ]
}

/// Every combination of as many changes as `sizes` says, with what the run then needs.
/// Combinations that cannot be estimated are left out.
fn combinations(
    run: &TrainingRun,
    architecture: &Architecture,
    budget: &Budget,
    sizes: RangeInclusive<usize>,
    allowed: &dyn Fn(Change) -> bool,
) -> Vec<Suggestion> {
    let knobs = knobs(run);
    let mut found = Vec::new();
    // Depth-first over the knobs; each is turned once or left.
    let mut stack: Vec<(usize, Vec<Change>, TrainingRun)> = vec![(0, Vec::new(), run.clone())];
    while let Some((knob, changes, changed)) = stack.pop() {
        let Some(choices) = knobs.get(knob) else {
            if !sizes.contains(&changes.len()) {
                continue;
            }
            if let Ok(needs) = estimate(&changed, architecture) {
                let verdict = Verdict::of(Some(&needs), Some(budget));
                let cost = changes.iter().map(|change| change.cost()).sum();
                found.push(Suggestion { changes, run: changed, estimate: needs, verdict, cost });
            }
            continue;
        };
        if changes.len() < *sizes.end() {
            for choice in choices.iter().filter(|choice| allowed(**choice)) {
                if let Some(next) = choice.apply(&changed) {
                    let mut with = changes.clone();
                    with.push(*choice);
                    stack.push((knob + 1, with, next));
                }
            }
        }
        stack.push((knob + 1, changes, changed));
    }
    found
}

/// Up to three ways to make a run fit, cheapest first, none of them another with more added.
/// `expressible`: can the framework's own keys say it?
pub fn suggestions(
    run: &TrainingRun,
    architecture: &Architecture,
    budget: &Budget,
    expressible: &dyn Fn(Change) -> bool,
) -> Vec<Suggestion> {
    let kinds = |s: &Suggestion| s.changes.iter().map(|change| change.knob()).collect::<Vec<_>>();
    let mut kept: Vec<Suggestion> = Vec::new();
    // Fewer changes come first: where some of them fit, more are not tried.
    for size in 1..=3 {
        let mut found = combinations(run, architecture, budget, size..=size, expressible);
        // Of equal cost, the one that changes least: what fits with the most memory in use.
        found.sort_by_key(|s| (s.cost, s.changes.len(), std::cmp::Reverse(s.estimate.device)));
        for suggestion in found.into_iter().filter(|s| s.verdict == Verdict::Fits) {
            let turned = kinds(&suggestion);
            let covered = kept.iter().any(|k| kinds(k).iter().all(|kind| turned.contains(kind)));
            if !covered && kept.len() < 3 {
                kept.push(suggestion);
            }
        }
        if !kept.is_empty() {
            break;
        }
    }
    kept
}

/// The Pareto front of memory against cost: no way on it is both dearer and larger than another.
pub fn front(
    run: &TrainingRun,
    architecture: &Architecture,
    budget: &Budget,
    expressible: &dyn Fn(Change) -> bool,
) -> Vec<Suggestion> {
    let mut found = combinations(run, architecture, budget, 1..=4, expressible);
    found.sort_by_key(|s| (s.cost, s.changes.len(), s.estimate.device));
    let mut front: Vec<Suggestion> = Vec::new();
    for suggestion in found {
        if front.last().is_none_or(|best| suggestion.estimate.device < best.estimate.device) {
            front.push(suggestion);
        }
    }
    front
}
