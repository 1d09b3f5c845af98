//! The steps of a sharded run as the allocator sees them. Each CUDA stream has a pool of its own:
//! what the stream that gathers weights or the one that reduces gradients has once reserved serves
//! no activation, and the pools reach their peaks at different moments.
//!
//! The order is that of traced runs of FSDP1, FSDP2 and ZeRO-3; within a layer it is the single
//! GPU's replay.

mod fsdp;
mod zero;
mod zero3;

use std::collections::VecDeque;

use self::zero3::Coordinator;
use super::allocator::{Allocator, Handle};
use super::data_parallel::{Strategy, deferred, reduction};
use super::parameters::Place;
use super::plan::Plan;
use super::rank::Rank;
use super::replay::{Replay, Replayed};
use super::states::quantized_bytes;
use crate::run::{KeptBuffers, Offload, Quantization};

/// Gathered weights that were given back and may still be read when FSDP1 gathers again: it waits for
/// the older of two first (`_FreeEventQueue`, under `limit_all_gathers`).
const AHEAD: usize = 1;

/// Who shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    /// Flat parameters; layers are views of the gathered one. The cast for the reduction and its
    /// result live in the reduction's stream.
    Fsdp1,
    /// A tensor a parameter, copied out of the gathered buffer into the main stream's pool.
    Fsdp2,
    /// DeepSpeed, by its stage.
    Zero(u8),
}

/// A group of parameters that is gathered and reduced together.
#[derive(Clone)]
struct Unit {
    /// Elements of its tensors, with the bytes of a gathered element.
    tensors: Vec<(f64, f64)>,
    /// The same as DeepSpeed fetches them: an adapter's two matrices follow the layer that they adapt.
    fetched: Vec<(f64, f64)>,
    /// Of the root: how many of them come before the layers. The head is the last of all.
    before: usize,
    /// Elements that get a gradient.
    trained: f64,
}

impl Unit {
    fn gathered(&self) -> f64 {
        self.tensors.iter().map(|(elements, bytes)| elements * bytes).sum()
    }
}

/// Reserved over allocated of a sharded run, over all pools; `None` where this does not describe it.
pub(super) fn replay(plan: &Plan<'_>, rank: &Rank) -> Option<Replayed> {
    let first = plan.run.parallelism.fsdp.as_ref().is_some_and(|fsdp| fsdp.version.value == 1);
    let (scheme, shards, reshard) = match rank.strategy {
        Strategy::Fsdp { shards, reshard } if first => (Scheme::Fsdp1, shards, reshard),
        Strategy::Fsdp { shards, reshard } => (Scheme::Fsdp2, shards, reshard),
        Strategy::Zero { stage, shards } => (Scheme::Zero(stage), shards, true),
        _ => return None,
    };
    if plan.run.parallelism.kept_buffers != KeptBuffers::None {
        return None;
    }
    let alike = plan.shape.inventory.layer_kinds().len() == 1 && plan.shape.architecture.encoder_layers == 0;
    if plan.slice.in_flight > 1.0 || !alike {
        return None;
    }
    let mut loaded = Streams::new(plan, rank, scheme, shards, reshard);
    loaded.load();
    let mut drawn: Vec<Replayed> = Vec::new();
    let mut left = MOST_LAYERS_PLAYED;
    for order in &plan.shape.draws.records {
        let mut lengths: Vec<f64> = order.iter().map(|batch| batch.length).collect();
        if lengths.len() < STEPS {
            lengths.resize(STEPS, 1.0);
        }
        let cost = lengths.len() as u64 * loaded.layers;
        if left < cost && !drawn.is_empty() {
            break;
        }
        left = left.saturating_sub(cost);
        let mut streams = loaded.clone();
        streams.play(&lengths);
        drawn.push(streams.result());
    }
    drawn.sort_by(|a, b| a.ratio.total_cmp(&b.ratio));
    let at = |share: f64| drawn.get((share * drawn.len() as f64) as usize);
    let middle = at(0.5)?;
    Some(Replayed { range: (at(0.05)?.ratio, at(0.95)?.ratio), ..*middle })
}

/// Steps of one length that are played: states made in the first take parts of its largest blocks, the
/// second's logits take others, and only in the third are the largest missed that are needed last.
const STEPS: usize = 3;

/// Layers that are played at most, over all drawn orders: what fifteen orders of a model of 40 layers
/// come to. A larger model is played in fewer orders, so that an estimate takes a few hundredths of a
/// second.
const MOST_LAYERS_PLAYED: u64 = 5000;

#[derive(Clone)]
struct Streams<'a> {
    plan: &'a Plan<'a>,
    main: Replay<'a>,
    gather: Allocator,
    reduce: Allocator,
    scheme: Scheme,
    /// DeepSpeed without `overlap_comm` gathers and reduces on the main stream.
    one_stream: bool,
    shards: f64,
    reshard: bool,
    /// The host holds shards, their gradients and states.
    host: (bool, bool),
    root: Unit,
    layer: Unit,
    layers: u64,
    compute: f64,
    wide: f64,
    peak: u64,
    /// Gathered weights that were given back, and that the GPU may still read.
    in_flight: VecDeque<Handle>,
    /// The buffers gathered last, and the gradients' shards.
    buffers: Vec<Handle>,
    gradients: Vec<Handle>,
    /// Earlier micro-batches left gradients; `Some`: whole ones, of so many bytes each.
    accumulating: bool,
    deferred: Option<f64>,
}

impl<'a> Streams<'a> {
    fn new(plan: &'a Plan<'a>, rank: &Rank, scheme: Scheme, shards: f64, reshard: bool) -> Streams<'a> {
        let run = plan.run;
        let compute = run.gathered_bytes();
        let parameters = run.parallelism.offload_parameters.value != Offload::None;
        let (root, layer) = units(plan, compute);
        let pool = || Allocator::of(run);
        let main = Replay::new(plan);
        Streams {
            plan,
            main,
            gather: pool(),
            reduce: pool(),
            scheme,
            one_stream: matches!(scheme, Scheme::Zero(_))
                && run.parallelism.zero.as_ref().is_some_and(|zero| !zero.overlap_comm.value),
            shards,
            reshard,
            host: (parameters, rank.optimizer_on_host),
            root,
            layer,
            layers: plan.layers() as u64,
            compute,
            wide: reduction(run),
            peak: 0,
            in_flight: VecDeque::new(),
            buffers: Vec::new(),
            gradients: Vec::new(),
            accumulating: run.gradient_accumulation_steps.value > 1,
            deferred: deferred(plan),
        }
    }

    /// Notes what all pools handed out together since the last note: called before another pool than
    /// the main one changes.
    fn note(&mut self) {
        let main = self.main.allocator.highest();
        self.peak = self.peak.max(main + self.gather.allocated + self.reduce.allocated);
    }

    fn take_gather(&mut self, bytes: u64) -> Handle {
        if self.one_stream {
            return self.main.allocator.take(bytes);
        }
        self.note();
        let handle = self.gather.take(bytes);
        self.note();
        handle
    }

    fn take_reduce(&mut self, bytes: u64) -> Handle {
        if self.one_stream {
            return self.main.allocator.take(bytes);
        }
        self.note();
        let handle = self.reduce.take(bytes);
        self.note();
        handle
    }

    fn give_gather(&mut self, handle: Handle) {
        if self.one_stream {
            return self.main.allocator.give(handle);
        }
        self.note();
        self.gather.give(handle);
    }

    fn give_reduce(&mut self, handle: Handle) {
        if self.one_stream {
            return self.main.allocator.give(handle);
        }
        self.note();
        self.reduce.give(handle);
    }

    /// Steps whose batches have these lengths, as parts of the longest.
    fn play(&mut self, lengths: &[f64]) {
        if self.scheme != Scheme::Zero(3) {
            for (step, length) in lengths.iter().enumerate() {
                self.main.scale = *length;
                self.step(step == 0);
            }
            return;
        }
        let mut coordinator = Coordinator::of(self);
        // In the first step nothing is fetched ahead: two more show what is.
        for (step, length) in lengths.first().into_iter().chain(lengths).enumerate() {
            self.main.scale = *length;
            self.step_zero3(&mut coordinator, step == 0);
        }
    }

    fn share(&self, bytes: f64) -> u64 {
        (bytes / self.shards) as u64
    }

    /// The shards, and gradients' and states' places later: FSDP1 holds a flat one a unit.
    fn shards_of(&self, unit: &Unit, bytes: f64) -> Vec<u64> {
        let all: f64 = unit.tensors.iter().map(|t| t.0).sum();
        match self.scheme {
            Scheme::Fsdp1 => vec![self.share(all * bytes)],
            _ => unit.tensors.iter().map(|t| self.share(t.0 * bytes)).collect(),
        }
    }

    /// The same of what is trained: all of full training's tensors, an adapter's in one.
    fn trained_shards(&self, bytes: f64) -> Vec<u64> {
        let of = |unit: &Unit| match self.plan.adapters {
            Some(_) => vec![self.share(unit.trained * bytes)],
            None => self.shards_of(unit, bytes),
        };
        self.in_order(&of(&self.root), &of(&self.layer))
    }

    /// The root's and every layer's in the order of the model's parameters, which is the optimizer's.
    fn in_order(&self, root: &[u64], layer: &[u64]) -> Vec<u64> {
        let (before, after) = root.split_at(self.root.before.min(root.len()));
        let layers = layer.iter().copied().cycle().take(layer.len() * self.layers as usize);
        before.iter().copied().chain(layers).chain(after.iter().copied()).collect()
    }

    fn load(&mut self) {
        match self.scheme {
            Scheme::Zero(3) => return self.load_zero3(),
            Scheme::Zero(_) => return self.load_zero(),
            Scheme::Fsdp1 | Scheme::Fsdp2 => {}
        }
        if self.host.0 {
            return;
        }
        let stored = self.plan.run.weights.value.bytes() as f64;
        if self.scheme == Scheme::Fsdp2 {
            let of = |unit: &Unit| -> Vec<u64> {
                unit.tensors.iter().map(|t| self.share(t.0 * stored_bytes(t.1, stored))).collect()
            };
            let shards = self.in_order(&of(&self.root), &of(&self.layer));
            self.main.take_all(&shards);
            self.main.allocator.highest();
            return;
        }
        // FSDP1 wraps from the inside out: a unit's tensors come to the GPU, are put together in a
        // flat one, and of that the shard is copied.
        for (unit, count) in [(&self.layer, self.layers), (&self.root, 1)] {
            // Quantised elements are stored as they are gathered, the others in the stored dtype.
            let whole: Vec<f64> = unit.tensors.iter().map(|t| t.0 * stored_bytes(t.1, stored)).collect();
            let flat: f64 = whole.iter().sum();
            for _ in 0..count {
                let parts: Vec<u64> = whole.iter().map(|bytes| *bytes as u64).collect();
                let parts = self.main.take_all(&parts);
                let flattened = self.main.allocator.take(flat as u64);
                self.main.give_all(parts);
                self.main.allocator.take(self.share(flat));
                self.main.allocator.give(flattened);
            }
        }
        // Measured peaks are those of the steps.
        self.main.allocator.highest();
    }

    /// A layer forward: what it keeps. A checkpointed one frees a tensor when the next but some is
    /// there, like the single GPU's.
    fn forward(&mut self) -> Vec<Handle> {
        let (saved, checkpoint) = (self.main.saved.clone(), self.main.checkpoint.clone());
        let wide = self.main.allocator.take(self.dequantised());
        if checkpoint.is_empty() {
            let passing =
                self.main.allocator.take(self.main.extra.first().map_or(0, |size| size.at(self.main.scale)));
            let kept = self.main.take_scaled(&saved);
            self.main.give_all(vec![passing, wide]);
            return kept;
        }
        let mut window = VecDeque::new();
        for size in saved {
            window.push_back(self.main.allocator.take(size.at(self.main.scale)));
            if window.len() > 5
                && let Some(oldest) = window.pop_front()
            {
                self.main.allocator.give(oldest);
            }
        }
        let kept = self.main.take_scaled(&checkpoint);
        self.main.give_all(window.into());
        self.main.allocator.give(wide);
        kept
    }

    /// Bytes of the widest 4-bit weight in 16 bits.
    fn dequantised(&self) -> u64 {
        if self.plan.adapters.is_none() || self.plan.run.quantization.value == Quantization::None {
            return 0;
        }
        let quantised = self.layer.tensors.iter().filter(|t| t.1 < 2.0).map(|t| t.0);
        (2.0 * quantised.fold(0.0, f64::max)) as u64
    }

    fn layer_backward(&mut self) -> Vec<Handle> {
        let mut working = Vec::new();
        if !self.main.checkpoint.is_empty() {
            working = self.main.take_scaled(&self.main.saved.clone());
        }
        working.extend(self.main.take_scaled(&self.main.extra.clone()));
        working.push(self.main.allocator.take(self.dequantised()));
        working
    }

    /// A layer's working tensors go, the gradient of its input takes the place of its output's, and
    /// what it kept goes.
    fn end_layer(&mut self, working: Vec<Handle>, own: Vec<Handle>, stream: &mut Option<Handle>) {
        self.main.give_all(working);
        let hidden = self.main.hidden();
        let new = self.main.allocator.take(hidden);
        if let Some(old) = stream.replace(new) {
            self.main.allocator.give(old);
        }
        self.main.give_all(own);
    }

    /// States at the first step, gradients' shards after it are given back.
    fn optimize(&mut self, first: bool) {
        let memory = &self.plan.optimizer;
        let trained = self.plan.trained.parameters.max(1.0);
        if first && !self.host.1 {
            let each = memory.state / trained;
            let tensors = if each >= self.plan.weight * 1.5 { 2 } else { 1 };
            for size in self.trained_shards(each / f64::from(tensors)) {
                for _ in 0..tensors {
                    self.main.allocator.take(size);
                }
            }
        }
        if let Some(held) = self.main.held.take() {
            self.main.allocator.give(held);
        }
        for shard in std::mem::take(&mut self.gradients) {
            self.give_reduce(shard);
        }
    }

    fn result(mut self) -> Replayed {
        self.note();
        let pools = [&self.main.allocator, &self.gather, &self.reduce];
        let reserved: u64 = pools.into_iter().map(|pool| pool.reserved).sum();
        let peak = self.peak.max(1) as f64;
        // Nine traced runs in ten; on a card, blocks whose stream has not come to their end yet are not
        // there to be used again, which a trace cannot show: one gathered unit of FSDP1's is counted.
        let (below, above) = match self.scheme {
            // Published runs of fsdp_qlora and fms-acceleration: where little is trained, what loading
            // leaves decides.
            Scheme::Fsdp1 if self.plan.adapters.is_some() => (0.12, 0.08),
            Scheme::Fsdp1 => (0.06, 0.05),
            _ if self.plan.adapters.is_some() => (0.09, 0.12),
            Scheme::Fsdp2 => (0.07, 0.1),
            Scheme::Zero(3) => (0.07, 0.07),
            Scheme::Zero(_) => (0.05, 0.05),
        };
        let above = if self.plan.adapters.is_some() && self.scheme == Scheme::Zero(3) {
            // Blocks of the largest tensor are split by smaller ones, which come with their adapters in
            // shared buffers, and one more is reserved: 1.2 to 1.7 times its size in four traced runs
            // (Llama 3.1 8B; DeepSpeed 0.19.8, PEFT 0.21), two or eight ranks, recomputed or not.
            let largest = self.compute * self.plan.shape.inventory.largest_tensor() as f64;
            1.7 * largest / (reserved as f64).max(1.0)
        } else {
            above
        };
        let ratio = reserved as f64 / peak;
        Replayed { ratio, slack: 0.0, range: (ratio, ratio), doubt: Some((below, above)) }
    }
}

/// Bytes of a shard's element whose gathered one has `gathered`: below two it is quantised.
fn stored_bytes(gathered: f64, stored: f64) -> f64 {
    if gathered < 2.0 { gathered } else { stored }
}

/// The root's tensors and those of the widest layer.
fn units(plan: &Plan<'_>, compute: f64) -> (Unit, Unit) {
    let quantised = quantized_bytes(plan.run.quantization.value).filter(|_| plan.adapters.is_some());
    let (mut root, mut layer, mut fetched) = (Vec::new(), Vec::new(), Vec::new());
    let mut before = 0;
    for tensor in plan.shape.inventory.own() {
        let bytes = match quantised {
            Some((bytes, ..)) if tensor.linear.is_some() && tensor.in_layer() => bytes,
            _ => compute,
        };
        let elements = tensor.elements() as f64;
        match tensor.place {
            Place::Layers { count, .. } => {
                let copies = tensor.copies / count.max(1);
                for _ in 0..copies.max(1) {
                    layer.push((elements, bytes));
                    fetched.push((elements, bytes));
                    if let Some(adapters) = &plan.adapters {
                        let pair = adapters.pair(tensor).into_iter().flatten();
                        fetched.extend(pair.map(|elements| (elements, adapters.weight)));
                    }
                }
            }
            _ => root.extend((0..tensor.copies.max(1)).map(|_| (elements, bytes))),
        }
        if layer.is_empty() {
            before = root.len();
        }
    }
    let all = |tensors: &[(f64, f64)]| tensors.iter().map(|t| t.0).sum::<f64>();
    let layers = plan.layers().max(1.0);
    let trained = match &plan.adapters {
        Some(_) => (0.0, plan.groups.total / layers),
        None => (all(&root), all(&layer)),
    };
    let root = Unit { trained: trained.0, fetched: root.clone(), tensors: root, before };
    (root, Unit { trained: trained.1, tensors: layer, fetched, before: 0 })
}
