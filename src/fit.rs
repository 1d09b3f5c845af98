//! The smallest changes that bring a run under its budget, found by estimating again. One list
//! of changes serves `check` and `fit`: what the framework's [`steps`](Framework::steps) can say.

use std::collections::BTreeSet;

use rayon::prelude::*;

use crate::catalog::Architecture;
use crate::change::{Change, Step, by_hand};
use crate::check::Verdict;
use crate::document::Value;
use crate::finding::{Edit, Safety};
use crate::fix;
use crate::framework::Framework;
use crate::memory::{Estimate, estimate};
use crate::run::{DataParallel, Method, TrainingRun};
use crate::settings::Budget;
use crate::source::Source;
use crate::units::Bytes;

/// Changes that together make a run fit (or that come nearest to it).
#[derive(Clone, Debug)]
pub struct Suggestion {
    /// What to change, in the order in which it is carried out.
    pub changes: Vec<Change>,
    /// What that is in the file; empty: nothing. `None`: a key cannot be set safely.
    pub edits: Option<Vec<Edit>>,
    /// What has to be done outside the file.
    pub by_hand: Vec<String>,
    /// What the run then needs.
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

    /// Whether edits of the file alone carry it out.
    pub fn is_writable(&self) -> bool {
        self.by_hand.is_empty() && self.edits.as_ref().is_some_and(|edits| !edits.is_empty())
    }
}

/// A run that does not fit, and everything needed to change it.
pub struct Search<'a> {
    /// The run.
    pub run: &'a TrainingRun,
    /// Its model's shape.
    pub architecture: &'a Architecture,
    /// What it may use.
    pub budget: &'a Budget,
    /// Whose file it is.
    pub framework: &'static dyn Framework,
    /// The file.
    pub source: &'a Source,
    /// Its tree.
    pub root: Value<'a>,
    /// What the run would need if the file had this text instead; `None` also where that text
    /// has mistakes which the file has not.
    pub again: &'a dyn Fn(String) -> Option<Estimate>,
}

/// Choices by (knob, choice), with rising knobs.
type Path = Vec<(usize, usize)>;

/// Up to so many changes, every set is looked at; beyond, only the smallest that fits.
const CHANGES: usize = 3;

/// Most suggestions beside a finding.
const SHOWN: usize = 3;

/// Most rows of a front that fit, for those that keep training the same and for the others.
const FITTING: usize = 3;

/// Most estimates for one finding's suggestions: a folder of configs is checked while somebody
/// waits. `fit` has no such limit.
const ESTIMATES: usize = 100;

/// A set of changes that the framework can carry out, not yet estimated.
struct Candidate {
    changes: Vec<Change>,
    steps: Vec<Step>,
    run: TrainingRun,
    cost: u32,
}

impl Search<'_> {
    /// The ways to turn each knob, weakest first; a knob may also be left.
    fn knobs(&self) -> Vec<Vec<Change>> {
        let run = self.run;
        let (batch, accumulation) = (run.micro_batch_size.value, run.gradient_accumulation_steps.value);
        let all = batch.saturating_mul(accumulation);
        let batches = std::iter::successors(Some(batch / 2), |size| Some(size / 2))
            .take_while(|size| *size > 0)
            // Only sizes that keep the global batch exactly.
            .filter(|size| all.is_multiple_of(*size))
            .map(|size| Change::MicroBatch { size, accumulation: all / size })
            .collect();
        let method = match run.method.value {
            Method::Full => vec![Change::Lora, Change::Qlora],
            _ => vec![Change::Qlora],
        };
        let length = run.sequence_length.value;
        let lengths =
            [length / 2, length / 4].into_iter().filter(|l| *l >= 512).map(Change::SequenceLength).collect();
        let gpus = run.parallelism.gpus.as_ref().map_or(0, |gpus| gpus.value);
        vec![
            vec![Change::ChunkLoss(8), Change::FuseLoss, Change::Liger],
            batches,
            vec![Change::Checkpoint],
            // A number of GPUs that the user declares is part of the budget.
            [2, 4]
                .iter()
                .filter(|_| self.budget.gpus.is_none())
                .filter_map(|n| gpus.checked_mul(*n))
                .map(Change::Gpus)
                .collect(),
            vec![
                Change::Shard(DataParallel::Zero1),
                Change::Shard(DataParallel::Zero2),
                Change::Shard(DataParallel::Zero3),
                Change::Shard(DataParallel::Fsdp),
            ],
            vec![Change::Optimizer8bit, Change::PagedOptimizer8bit],
            vec![Change::OffloadOptimizer, Change::OffloadAll],
            method,
            lengths,
        ]
    }

    /// One change more, if it applies and the framework can carry it out.
    fn with(&self, candidate: &Candidate, change: Change) -> Option<Candidate> {
        let run = change.apply(&candidate.run)?;
        let steps = self.framework.steps(change, &candidate.run, self.root).or_else(|| match change {
            Change::Gpus(gpus) => by_hand(format!("start it on {gpus} GPUs")),
            _ => None,
        })?;
        Some(Candidate {
            changes: candidate.changes.iter().copied().chain([change]).collect(),
            steps: candidate.steps.iter().cloned().chain(steps).collect(),
            run,
            cost: candidate.cost + change.cost(),
        })
    }

    fn unchanged(&self) -> Candidate {
        Candidate { changes: Vec::new(), steps: Vec::new(), run: self.run.clone(), cost: 0 }
    }

    /// The set of changes at a place in the queue. `None`: one of them does not apply, and none
    /// of the sets that add to it does.
    fn candidate(&self, knobs: &[Vec<Change>], path: &[(usize, usize)]) -> Option<Candidate> {
        path.iter().try_fold(self.unchanged(), |candidate, (knob, choice)| {
            self.with(&candidate, *knobs.get(*knob)?.get(*choice)?)
        })
    }

    fn verdict(&self, needs: &Estimate) -> Verdict {
        let over_host = self.budget.host_memory.is_some_and(|host| needs.host > host);
        match Verdict::of(Some(needs), Some(self.budget)) {
            Verdict::Fits if over_host => Verdict::Exceeds,
            verdict => verdict,
        }
    }

    /// The answer of the edited file, where edits alone make the change: what a framework makes
    /// of its keys counts, not what the neutral description expects.
    fn settled(&self, candidate: Candidate, needs: Estimate) -> Option<Suggestion> {
        let edits = fix::edits(self.source, self.root, &candidate.steps);
        let by_hand: BTreeSet<String> = candidate
            .steps
            .into_iter()
            .filter_map(|step| match step {
                Step::ByHand(instruction) => Some(instruction),
                Step::Set(..) => None,
            })
            .collect();
        let mut suggestion = Suggestion {
            changes: candidate.changes,
            edits,
            by_hand: by_hand.into_iter().collect(),
            verdict: self.verdict(&needs),
            estimate: needs,
            cost: candidate.cost,
        };
        if suggestion.is_writable() {
            let edits = suggestion.edits.as_deref().unwrap_or_default();
            let text = fix::apply_verified(&self.source.path, &self.source.text, edits)?;
            suggestion.estimate = (self.again)(text)?;
            suggestion.verdict = self.verdict(&suggestion.estimate);
        }
        Some(suggestion)
    }

    /// On every knob the strongest choice that applies and is allowed.
    fn strongest(&self, knobs: &[Vec<Change>], allowed: &dyn Fn(Change) -> bool) -> (Path, Candidate) {
        let mut path = Path::new();
        let mut candidate = self.unchanged();
        for (knob, choices) in knobs.iter().enumerate() {
            let allowed = choices.iter().enumerate().rev().filter(|(_, change)| allowed(**change));
            let found = allowed.filter_map(|(at, change)| Some((at, self.with(&candidate, *change)?))).next();
            if let Some((choice, next)) = found {
                path.push((knob, choice));
                candidate = next;
            }
        }
        (path, candidate)
    }

    fn fits(&self, candidate: &Candidate) -> bool {
        // What cannot be estimated might fit.
        estimate(&candidate.run, self.architecture)
            .map_or(true, |needs| self.verdict(&needs) == Verdict::Fits)
    }

    /// The cost that at least one change of every set that fits has. `None`: none fits. What all
    /// changes up to a cost together leave over the budget, no few of them fit.
    fn least_cost(&self, knobs: &[Vec<Change>]) -> Option<u32> {
        let costs: BTreeSet<u32> = knobs.iter().flatten().map(|change| change.cost()).collect();
        costs.into_iter().find(|cost| self.fits(&self.strongest(knobs, &|change| change.cost() <= *cost).1))
    }

    /// A set that fits and of which nothing can be left out, found from the strongest by leaving
    /// out the dearest first.
    fn smallest(&self, knobs: &[Vec<Change>], allowed: &dyn Fn(Change) -> bool) -> Option<Candidate> {
        let (mut path, mut smallest) = self.strongest(knobs, allowed);
        if !self.fits(&smallest) {
            return None;
        }
        let mut dearest = path.clone();
        dearest.sort_by_key(|at| std::cmp::Reverse(cost_of(knobs, *at)));
        for at in dearest {
            let without: Path = path.iter().copied().filter(|other| *other != at).collect();
            if let Some(candidate) = self.candidate(knobs, &without).filter(|candidate| self.fits(candidate))
            {
                (path, smallest) = (without, candidate);
            }
        }
        Some(smallest)
    }

    /// Up to three ways to make the run fit, cheapest first, none of them another with more added.
    pub fn suggestions(&self) -> Vec<Suggestion> {
        let knobs = self.knobs();
        let Some(least) = self.least_cost(&knobs) else { return Vec::new() };
        let turned = |changes: &[Change]| changes.iter().map(|change| change.knob()).collect::<Vec<_>>();
        let mut queue = Queue::new(&knobs);
        let mut kept: Vec<Suggestion> = Vec::new();
        let mut estimates = 0;
        while let Some(path) = queue.next().filter(|_| kept.len() < SHOWN && estimates < ESTIMATES) {
            let Some(candidate) = self.candidate(&knobs, &path) else { continue };
            let now = turned(&candidate.changes);
            if kept.iter().any(|k| turned(&k.changes).iter().all(|knob| now.contains(knob))) {
                continue;
            }
            if candidate.changes.iter().any(|change| change.cost() >= least) {
                estimates += 1;
                let needs = estimate(&candidate.run, self.architecture).ok();
                if let Some(needs) = needs.filter(|needs| self.verdict(needs) == Verdict::Fits)
                    && let Some(suggestion) = self.settled(candidate, needs)
                    && suggestion.verdict == Verdict::Fits
                {
                    kept.push(suggestion);
                    continue;
                }
            }
            queue.extend(&path);
        }
        if kept.is_empty()
            && let Some(candidate) = self.smallest(&knobs, &|_| true)
            && let Some(suggestion) = self.answered(candidate)
            && suggestion.verdict == Verdict::Fits
        {
            kept.push(suggestion);
        }
        kept
    }

    fn answered(&self, candidate: Candidate) -> Option<Suggestion> {
        let needs = estimate(&candidate.run, self.architecture).ok()?;
        self.settled(candidate, needs)
    }

    /// The Pareto front of memory against cost: no row is both dearer and larger than another.
    /// Rows that keep training the same have a front of their own within it, so that the best of
    /// them is there even where an 8-bit optimizer would be cheaper.
    pub fn front(&self) -> Vec<Suggestion> {
        let knobs = self.knobs();
        let mut queue = Queue::new(&knobs);
        let mut candidates = Vec::new();
        while let Some(path) = queue.next() {
            if let Some(candidate) = self.candidate(&knobs, &path) {
                candidates.push(candidate);
                queue.extend(&path);
            }
        }
        let safe = |change: Change| change.safety() == Safety::Safe;
        candidates.extend(self.smallest(&knobs, &safe).filter(|more| more.changes.len() > CHANGES));
        candidates.extend(self.smallest(&knobs, &|_| true).filter(|more| more.changes.len() > CHANGES));
        candidates.sort_by_key(|candidate| candidate.cost);
        let architecture = self.architecture;
        let needs: Vec<Option<Estimate>> =
            candidates.par_iter().map(|candidate| estimate(&candidate.run, architecture).ok()).collect();
        let now = estimate(self.run, architecture).map_or(Bytes(i64::MAX), |needs| needs.device);
        let mut best = [now; 2];
        let mut fitting = [0; 2];
        let mut front: Vec<Suggestion> = Vec::new();
        for (candidate, needs) in candidates.into_iter().zip(needs) {
            let Some(needs) = needs else { continue };
            let kind = usize::from(candidate.changes.iter().any(|change| change.safety() == Safety::Unsafe));
            // Once something fits, a row has to make room that is worth its cost.
            let less = if fitting[kind] > 0 { 0.9 } else { 0.97 };
            if fitting[kind] == FITTING || needs.device > best[kind] * less {
                continue;
            }
            let Some(suggestion) = self.settled(candidate, needs) else { continue };
            let needs = suggestion.estimate.device;
            if needs <= best[kind] * less {
                best[kind] = needs;
                best[1] = best[1].min(needs);
                fitting[kind] += usize::from(suggestion.verdict == Verdict::Fits);
                front.push(suggestion);
            }
        }
        front
    }
}

fn cost_of(knobs: &[Vec<Change>], at: (usize, usize)) -> u32 {
    knobs.get(at.0).and_then(|choices| choices.get(at.1)).map_or(0, |change| change.cost())
}

/// Sets of up to [`CHANGES`] changes by rising cost, each a path of (knob, choice) with rising knobs. Of equal
/// cost, fewer changes come first, then the order of the knobs and of their choices.
struct Queue<'k> {
    knobs: &'k [Vec<Change>],
    open: BTreeSet<(u32, usize, Path)>,
}

impl Queue<'_> {
    fn new(knobs: &[Vec<Change>]) -> Queue<'_> {
        let mut queue = Queue { knobs, open: BTreeSet::new() };
        queue.extend(&[]);
        queue
    }

    fn next(&mut self) -> Option<Path> {
        self.open.pop_first().map(|(_, _, path)| path)
    }

    /// Adds every set that has one change more than `path`.
    fn extend(&mut self, path: &[(usize, usize)]) {
        if path.len() == CHANGES {
            return;
        }
        let so_far: u32 = path.iter().map(|at| cost_of(self.knobs, *at)).sum();
        let from = path.last().map_or(0, |last| last.0 + 1);
        for (knob, choices) in self.knobs.iter().enumerate().skip(from) {
            for (choice, change) in choices.iter().enumerate() {
                let longer: Path = path.iter().copied().chain([(knob, choice)]).collect();
                self.open.insert((so_far + change.cost(), longer.len(), longer));
            }
        }
    }
}
