//! The estimate of the worst rank: three figures, each with an interval.

use super::beside;
use super::data_parallel::Strategy;
use super::interval::{Figures, intervals};
use super::ledger::{Component, Ledger, Phase};
use super::overhead;
use super::parallel;
use super::parameters::ParameterCount;
use super::plan::Plan;
use super::rank::Rank;
use super::replay;
use super::states::quantized_bytes;
use super::streams;
use super::timeline;
use super::zero_options;
use crate::catalog::Architecture;
use crate::run::{Batching, Checkpointing, ModelCode, TrainingRun, Unknown};
use crate::units::Bytes;

/// A range that holds about nine measured runs in ten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Lower end.
    pub low: Bytes,
    /// Upper end.
    pub high: Bytes,
}

impl std::fmt::Display for Interval {
    /// `68.8 to 79.9 GiB`: the unit once where it is the same.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (low, high) = (self.low.to_string(), self.high.to_string());
        match (low.split_once(' '), high.split_once(' ')) {
            (Some((number, unit)), Some((_, same))) if unit == same => write!(f, "{number} to {high}"),
            _ => write!(f, "{low} to {high}"),
        }
    }
}

/// One reason why the interval is as wide as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Cause {
    /// In words: `reserved by the allocator beyond what is allocated`.
    pub what: String,
    /// How much it may lower the figure.
    pub below: Bytes,
    /// How much it may raise it.
    pub above: Bytes,
}

/// The total of one distinct rank.
#[derive(Clone, Debug, PartialEq)]
pub struct RankTotal {
    /// `pipeline stage 0`, `every rank`.
    pub rank: String,
    /// Peak allocated there.
    pub allocated: Bytes,
    /// When.
    pub phase: Phase,
}

/// What a run needs on its worst rank.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// What `torch.cuda.max_memory_allocated()` would print.
    pub allocated: Bytes,
    /// What `torch.cuda.max_memory_reserved()` would print.
    pub reserved: Bytes,
    /// What `nvidia-smi` would show: reserved, context, communication libraries.
    pub device: Bytes,
    /// The part of `device` that no allocator holds: CUDA context, communication libraries.
    pub outside: Bytes,
    /// The interval of `allocated`.
    pub allocated_interval: Interval,
    /// The interval of `reserved`, blocks that are only cached included.
    pub reserved_interval: Interval,
    /// The interval of `device`; budgets are compared with it.
    pub device_interval: Interval,
    /// Why it is that wide.
    pub causes: Vec<Cause>,
    /// When the peak is.
    pub phase: Phase,
    /// Which rank it is on.
    pub rank: String,
    /// Every distinct rank.
    pub ranks: Vec<RankTotal>,
    /// The worst rank's ledger.
    pub ledger: Ledger,
    /// Host memory a node needs for offloaded states.
    pub host: Bytes,
    /// Host memory that a node may need while its processes load the checkpoint, each its own copy.
    pub host_loading: Bytes,
    /// Parameters, total and trained.
    pub parameters: ParameterCount,
}

impl Estimate {
    /// On a card of this much usable memory. An allocator that meets its end gives back the blocks
    /// that are only cached and tries again (`alloc_block` in `CUDACachingAllocator.cpp`), so that no
    /// more is ever reserved than the card has, however much would be on a larger one.
    pub fn on_card(&mut self, usable: Bytes) {
        let most = usable - self.outside;
        if self.allocated < most {
            self.reserved = self.reserved.min(most);
            let Interval { low, high } = self.reserved_interval;
            self.reserved_interval = Interval { low: low.min(most), high: high.min(most) };
        }
    }

    /// A component's part of the peak.
    pub fn component(&self, component: Component) -> Bytes {
        self.ledger.component(component, self.phase)
    }
}

/// 8 PiB, a hundred thousand GPUs' memory: up to here sums of bytes are exact in an f64.
const ABSURD: Bytes = Bytes(1 << 53);

/// Works out what `run` needs.
///
/// # Errors
/// What is missing, or what the estimator does not model, with the reason.
pub fn estimate(run: &TrainingRun, architecture: &Architecture) -> Result<Estimate, Vec<Unknown>> {
    let strategy = Strategy::of(run).map_err(|why| {
        let location = run.parallelism.data_parallel.origin.location();
        vec![Unknown { what: "data parallel".into(), why, location }]
    })?;
    let gpus = run.parallelism.gpus.as_ref().map_or(1, |g| g.value);
    let slices = parallel::slices(run, architecture).map_err(|why| {
        let location = run.parallelism.pipeline.origin.location();
        vec![Unknown { what: "pipeline parallel".into(), why, location }]
    })?;
    let mut ranks = Vec::new();
    let mut worst: Option<(Plan<'_>, Rank, Ledger, Bytes)> = None;
    for slice in &slices {
        let plan = Plan::new(run, architecture, slice)?;
        let rank = Rank::of(&plan, strategy);
        let ledger = timeline::ledger(&plan, &rank);
        let (phase, allocated) = ledger.peak();
        if allocated > ABSURD {
            return Err(vec![Unknown {
                what: "the run's size".into(),
                why: format!("one GPU would hold more than {ABSURD}: one of its numbers cannot be meant"),
                location: None,
            }]);
        }
        ranks.push(RankTotal { rank: rank.name.clone(), allocated, phase });
        if worst.as_ref().is_none_or(|w| allocated > w.3) {
            worst = Some((plan, rank, ledger, allocated));
        }
    }
    let Some((plan, rank, mut ledger, _)) = worst else { return Err(Vec::new()) };
    let replayed = replay::replay(&plan, &rank).or_else(|| streams::replay(&plan, &rank));
    if let Some(replayed) = &replayed {
        ledger.entries.extend(overhead::rounding(replayed.slack));
    }
    let (phase, allocated) = ledger.peak();
    if let [only] = ranks.as_mut_slice() {
        // With the allocator's rounding.
        (only.allocated, only.phase) = (allocated, phase);
    }
    let replay = replayed.as_ref().and_then(|r| r.doubt);
    let ratio = replayed.as_ref().map_or_else(|| overhead::reserved_ratio(&plan), |r| r.ratio);
    let range = replayed.map_or((ratio, ratio), |r| r.range);
    // What generates comes in large pieces: what the ratio says of small blocks does not hold for it.
    let engine = beside::held_by_engine(&plan, &rank, phase);
    let own = allocated - engine;
    // A model that is whole only while it loads fills segments that its steps then use.
    let reserved = match phase {
        Phase::Load => own.max((ledger.peak_of_steps() - engine) * ratio) + engine,
        _ => own * ratio + engine,
    };
    ledger.entries.extend(overhead::outside(run, gpus));
    let context = ledger.outside();
    // Blocks that are only cached are given back before an out-of-memory error; fragments of
    // used ones are not. What a card must hold lies between.
    let held = match run.batching.value {
        Batching::Padded => reserved.min(own * UNUSABLE_AT_WORST + engine),
        Batching::Fixed | Batching::Packed | Batching::Flattened => reserved,
    };
    let device = held + context;
    let reserved_by_own = held - engine;
    let figures = Figures {
        plan: &plan,
        ledger: &ledger,
        phase,
        allocated: own,
        reserved: reserved_by_own,
        cached: reserved - engine,
        orders: (own * range.0, own * range.1),
        device,
        gpus,
        replay,
    };
    let intervals = intervals(&figures);
    let with_engine = |of: Interval| Interval { low: of.low + engine, high: of.high + engine };
    let host = host_bytes(&plan, &rank, gpus);
    let loading = host_loading(&plan, &rank, gpus);
    Ok(Estimate {
        allocated,
        reserved,
        device,
        outside: context,
        allocated_interval: with_engine(intervals.allocated),
        reserved_interval: with_engine(intervals.reserved),
        device_interval: intervals.device,
        causes: intervals.causes,
        phase,
        ranks,
        rank: rank.name,
        ledger,
        host,
        host_loading: loading,
        parameters: plan.count(),
    })
}

/// Reserved over allocated at which a run of varying shapes was seen to fail: 58.8 GB allocated
/// ran out of memory on cards of 80 GB, and passed with expandable segments (Megatron-Bridge).
const UNUSABLE_AT_WORST: f64 = 80.0 / 58.8;

/// GPUs of one host, where the run does not say: the usual eight.
pub(crate) const GPUS_PER_HOST: u64 = 8;

/// The base weights as they are stored, quantised matrices in their quantised size.
pub(crate) fn base_bytes(plan: &Plan<'_>) -> f64 {
    let inventory = &plan.shape.inventory;
    let (all, stored) = (inventory.total() as f64, plan.run.weights.value.bytes() as f64);
    match quantized_bytes(plan.run.quantization.value) {
        Some((bytes, ..)) if plan.adapters.is_some() => {
            let part = plan.quantized();
            bytes * part + stored * (all - part).max(0.0)
        }
        _ => stored * all,
    }
}

/// `from_pretrained` makes a copy of the weights in the host's memory of each process that it is called
/// in; the Trainer moves it to the card. Under ZeRO-3 each parameter is divided as it is made; quantised
/// ones go to the card one by one; with `cpu_ram_efficient_loading` one process of a host has them.
///
/// At most so much: pages that are read as they are stored may be shared between the processes.
fn host_loading(plan: &Plan<'_>, rank: &Rank, gpus: u64) -> Bytes {
    let run = plan.run;
    let alone = gpus < 2 || run.parallelism.one_loads.value;
    let divided = matches!(rank.strategy, Strategy::Zero { stage: 3, .. });
    let quantised = quantized_bytes(run.quantization.value).is_some() && plan.adapters.is_some();
    if alone || divided || quantised || run.model_code.value != ModelCode::Transformers {
        return Bytes::ZERO;
    }
    let stored = run.weights.value.bytes() as f64;
    Bytes::from_f64(gpus.min(GPUS_PER_HOST) as f64 * stored * plan.shape.inventory.total() as f64)
}

/// Host memory for offloaded states of all ranks on a host, and for paged ones.
fn host_bytes(plan: &Plan<'_>, rank: &Rank, gpus: u64) -> Bytes {
    let ranks = gpus.clamp(1, GPUS_PER_HOST) as f64;
    let mut bytes = plan.optimizer.paged + zero_options::host(plan, rank);
    if plan.run.activation_offload.value {
        let each = if matches!(plan.run.activation_checkpointing.value, Checkpointing::None) {
            &plan.activations.layer
        } else {
            &plan.activations.checkpoint
        };
        bytes += plan.trained_layers() * each.value(&plan.shape.symbols);
    }
    let experts = beside::experts_on_host(plan) * plan.run.weights.value.bytes() as f64;
    Bytes::from_f64(bytes * ranks + experts)
}
