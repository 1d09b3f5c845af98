//! Two steps of a sharded run as the allocator sees them. Each CUDA stream has a pool of its own:
//! what the stream that gathers weights or the one that reduces gradients has once reserved serves
//! no activation, and the pools reach their peaks at different moments.
//!
//! The order is that of traced runs of FSDP1, FSDP2 and ZeRO-3; within a layer it is the single
//! GPU's replay.

mod zero;
mod zero3;

use self::zero3::Coordinator;
use super::allocator::{Allocator, Handle};
use super::data_parallel::{Strategy, deferred, reduction};
use super::parameters::Place;
use super::plan::Plan;
use super::rank::Rank;
use super::replay::{Replay, Replayed};
use super::states::quantized_bytes;
use crate::run::{KeptBuffers, Offload, Quantization};

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
struct Unit {
    /// Elements of its tensors, with the bytes of a gathered element.
    tensors: Vec<(f64, f64)>,
    /// The same as DeepSpeed fetches them: an adapter's two matrices follow the layer that they adapt.
    fetched: Vec<(f64, f64)>,
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
    if plan.run.parallelism.fsdp.as_ref().is_some_and(|fsdp| fsdp.kept != KeptBuffers::None) {
        return None;
    }
    let alike = plan.shape.inventory.layer_kinds().len() == 1 && plan.shape.architecture.encoder_layers == 0;
    if plan.slice.in_flight > 1.0 || !alike {
        return None;
    }
    let mut streams = Streams::new(plan, rank, scheme, shards, reshard);
    streams.load();
    if scheme == Scheme::Zero(3) {
        let mut coordinator = Coordinator::of(&streams);
        // In the first step nothing is fetched ahead: two more show what is.
        let lengths = lengths(plan);
        for (step, length) in lengths.first().into_iter().chain(&lengths).enumerate() {
            streams.main.scale = *length;
            streams.step_zero3(&mut coordinator, step == 0);
        }
    } else {
        for (step, length) in lengths(plan).iter().enumerate() {
            streams.main.scale = *length;
            streams.step(step == 0);
        }
    }
    Some(streams.result())
}

/// Lengths of the steps that are replayed, as parts of the longest: the records of one drawn order.
fn lengths(plan: &Plan<'_>) -> Vec<f64> {
    let drawn = plan.shape.draws.records.first();
    let mut lengths: Vec<f64> = drawn.into_iter().flatten().map(|batch| batch.length).collect();
    if lengths.len() < 2 {
        lengths.resize(2, 1.0);
    }
    lengths
}

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
        let stored = run.weights.value.bytes() as f64;
        let compute = stored.min(run.compute.value.bytes() as f64);
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
        let mut sizes = Vec::new();
        for (unit, count) in [(&self.root, 1), (&self.layer, self.layers)] {
            let each = if self.plan.adapters.is_some() {
                vec![self.share(unit.trained * bytes)]
            } else {
                self.shards_of(unit, bytes)
            };
            for _ in 0..count {
                sizes.extend(&each);
            }
        }
        sizes
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
        // FSDP1 wraps from the inside out: a unit's tensors come to the GPU, are put together in a
        // flat one, and of that the shard is copied.
        for (unit, count) in [(&self.layer, self.layers), (&self.root, 1)] {
            // Quantised elements are stored as they are gathered, the others in the stored dtype.
            let whole: Vec<f64> = unit.tensors.iter().map(|t| t.0 * stored_bytes(t.1, stored)).collect();
            let flat: f64 = whole.iter().sum();
            for _ in 0..count {
                if self.scheme == Scheme::Fsdp2 {
                    let shards: Vec<u64> = whole.iter().map(|bytes| self.share(*bytes)).collect();
                    self.main.take_all(&shards);
                    continue;
                }
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

    /// Gathers a unit. What was gathered before is given back once the copies are out of it (FSDP2's
    /// `all_gather_state`), or is the caller's (FSDP1).
    fn gather(&mut self, root: bool) -> Vec<Handle> {
        let unit = if root { &self.root } else { &self.layer };
        let whole = unit.gathered();
        let own = self.share(whole);
        let sizes: Vec<u64> =
            unit.tensors.iter().map(|(elements, bytes)| (elements * bytes) as u64).collect();
        let input = self.take_gather(own);
        let buffer = self.take_gather(whole as u64);
        self.give_gather(input);
        match self.scheme {
            Scheme::Fsdp1 => vec![buffer],
            _ => {
                let copies = self.main.take_all(&sizes);
                for earlier in std::mem::replace(&mut self.buffers, vec![buffer]) {
                    self.give_gather(earlier);
                }
                copies
            }
        }
    }

    fn gather_backward(&mut self) -> Vec<Handle> {
        let unit = self.gather(false);
        self.release_buffers();
        unit
    }

    fn release_buffers(&mut self) {
        for buffer in std::mem::take(&mut self.buffers) {
            self.give_gather(buffer);
        }
    }

    fn free(&mut self, unit: Vec<Handle>) {
        match self.scheme {
            Scheme::Fsdp1 => unit.into_iter().for_each(|handle| self.give_gather(handle)),
            _ => self.main.give_all(unit),
        }
    }

    fn step(&mut self, first: bool) {
        if let Scheme::Zero(_) = self.scheme {
            return self.step_zero(first);
        }
        let earlier = self.earlier();
        let root = self.gather(true);
        let body = self.main.take_scaled(&self.main.body.clone());
        let mut kept = Vec::new();
        let mut whole = Vec::new();
        for _ in 0..self.layers {
            let unit = self.gather(false);
            kept.push(self.forward());
            if self.reshard { self.free(unit) } else { whole.push(unit) }
        }
        // The last gathered buffer goes when the forward ends; in the backward each goes at once.
        self.release_buffers();
        let head = self.main.loss();
        let gradients = self.backward(kept, head, whole);
        self.main.give_all(body);
        self.reduce_root(root, gradients);
        for handle in earlier {
            match self.scheme {
                Scheme::Fsdp1 => self.give_gather(handle),
                _ => self.main.allocator.give(handle),
            }
        }
        self.optimize(first);
    }

    /// What earlier micro-batches left: whole gradients, which are returned, or shards.
    fn earlier(&mut self) -> Vec<Handle> {
        if !self.accumulating {
            return Vec::new();
        }
        let Some(each) = self.deferred else {
            for size in self.trained_shards(self.wide) {
                let shard = self.take_reduce(size);
                self.gradients.push(shard);
            }
            return Vec::new();
        };
        let mut whole = Vec::new();
        for index in 0..=self.layers {
            let elements = if index == 0 { self.root.trained } else { self.layer.trained };
            let size = (elements * each) as u64;
            whole.push(match self.scheme {
                Scheme::Fsdp1 => self.take_gather(size),
                _ => self.main.allocator.take(size),
            });
        }
        whole
    }

    /// A reduced shard: added to the one that is there, or kept.
    fn keep(&mut self, shard: Handle) {
        if self.accumulating && self.deferred.is_none() {
            self.give_reduce(shard);
        } else {
            self.gradients.push(shard);
        }
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
        let mut window = std::collections::VecDeque::new();
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

    fn backward(
        &mut self,
        mut kept: Vec<Vec<Handle>>,
        head: Vec<Handle>,
        mut whole: Vec<Vec<Handle>>,
    ) -> Vec<Handle> {
        let mut gradients = head;
        let mut stream = (!gradients.is_empty()).then(|| gradients.remove(0));
        let trained = self.plan.adapters.is_none();
        let mut next = if self.reshard { Some(self.gather_backward()) } else { whole.pop() };
        let mut reduced: Vec<Handle> = Vec::new();
        for layer in (0..self.layers).rev() {
            let unit = next.take().unwrap_or_default();
            if layer > 0 {
                next = if self.reshard { Some(self.gather_backward()) } else { whole.pop() };
            }
            let own = kept.pop().unwrap_or_default();
            let working = self.layer_backward();
            let made: Vec<u64> = if trained {
                self.layer.tensors.iter().map(|t| (t.0 * self.compute) as u64).collect()
            } else {
                Vec::new()
            };
            let made = self.main.take_all(&made);
            self.end_layer(working, own, &mut stream);
            let elements = self.layer.trained;
            reduced = self.reduced(elements, made, unit, reduced);
        }
        if let Some(last) = stream {
            self.main.allocator.give(last);
        }
        self.main.give_all(reduced);
        gradients
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

    /// A unit's gradients into its shard, and its gathered weights away. FSDP2's input of the
    /// reduction stays until the next one's.
    fn reduced(
        &mut self,
        elements: f64,
        made: Vec<Handle>,
        unit: Vec<Handle>,
        earlier: Vec<Handle>,
    ) -> Vec<Handle> {
        if elements == 0.0 || self.plan.adapters.is_some() {
            self.main.give_all(made);
            self.free(unit);
            return earlier;
        }
        let input = (elements * self.wide) as u64;
        let shard = self.share(elements * self.wide);
        match self.scheme {
            Scheme::Fsdp2 | Scheme::Zero(_) => {
                self.free(unit);
                self.main.give_all(earlier);
                let input = self.main.allocator.take(input);
                self.main.give_all(made);
                let shard = self.take_reduce(shard);
                self.keep(shard);
                vec![input]
            }
            Scheme::Fsdp1 => {
                // The engine puts the flat gradient together on the stream that made the flat
                // weight; its cast is the reduction stream's.
                let flat = self.take_gather((elements * self.compute) as u64);
                self.main.give_all(made);
                self.free(unit);
                let cast = (self.wide > self.compute).then(|| self.take_reduce(input));
                let shard = self.take_reduce(shard);
                self.keep(shard);
                self.give_gather(flat);
                cast.into_iter().for_each(|handle| self.give_reduce(handle));
                Vec::new()
            }
        }
    }

    fn reduce_root(&mut self, root: Vec<Handle>, mut gradients: Vec<Handle>) {
        if self.plan.adapters.is_none() {
            let embedding = self.plan.shape.inventory.embedding() as f64 * self.compute;
            gradients.push(self.main.allocator.take(embedding as u64));
            let elements = self.root.trained;
            let left = self.reduced(elements, gradients, root, Vec::new());
            self.main.give_all(left);
        } else {
            self.main.give_all(gradients);
            self.free(root);
        }
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
        // there to be used again, and more is reserved.
        let (below, mut above) = match self.scheme {
            Scheme::Fsdp1 => (0.04, 0.05),
            Scheme::Fsdp2 => (0.07, 0.1),
            Scheme::Zero(3) => (0.07, 0.07),
            Scheme::Zero(_) => (0.09, 0.05),
        };
        if self.plan.adapters.is_some() && self.scheme == Scheme::Zero(3) {
            // Blocks of the largest tensor are split by smaller ones, which come with their adapters in
            // shared buffers, and one more is reserved: 1.2 to 1.7 times its size in four traced runs
            // (Llama 3.1 8B; DeepSpeed 0.19.8, PEFT 0.21), two or eight ranks, recomputed or not.
            let largest = self.compute * self.plan.shape.inventory.largest_tensor() as f64;
            above = 1.7 * largest / (reserved as f64).max(1.0);
        } else if self.plan.adapters.is_some() {
            // Nine of the fourteen published runs of fsdp_qlora in ten: where little is trained, what
            // loading leaves decides.
            above = 0.12;
        }
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
    }
    let all = |tensors: &[(f64, f64)]| tensors.iter().map(|t| t.0).sum::<f64>();
    let layers = plan.layers().max(1.0);
    let trained = match &plan.adapters {
        Some(_) => (0.0, plan.groups.total / layers),
        None => (all(&root), all(&layer)),
    };
    let root = Unit { trained: trained.0, fetched: root.clone(), tensors: root };
    (root, Unit { trained: trained.1, tensors: layer, fetched })
}
