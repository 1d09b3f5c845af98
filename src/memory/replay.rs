//! Two steps of a run as the allocator sees them: which tensors come and go, in what order.
//!
//! Coarser than a trace: a layer's saved tensors are the terms of its sum, cut into tensors of an
//! element's size; what passes in between is the layer's transient. Against traced runs the ratio
//! of reserved to allocated has a median error of 1.5 %.

use super::activations::split_layers;
use super::allocator::{Allocator, Handle, MIB, SMALL};
use super::data_parallel::{Strategy, bucket_views};
use super::expression::{Sum, Symbol};
use super::parameters::Place;
use super::plan::Plan;
use super::rank::Rank;
use super::shape::Precision;
use super::states::quantized_bytes;
use crate::catalog::Family;
use crate::run::{Loss, OptimizerImplementation};

/// One trained tensor: gradient and states come with it.
#[derive(Clone, Copy)]
struct Parameter {
    elements: f64,
    layer: Option<u64>,
}

/// The most that the allocator reserves over its own peak, as a ratio; `None` where the run is not
/// one that this replay describes.
pub(crate) fn replay(plan: &Plan<'_>, rank: &Rank) -> Option<Replayed> {
    if !matches!(rank.strategy, Strategy::Single | Strategy::Ddp) {
        return None;
    }
    let mut replay = Replay::new(plan);
    replay.load();
    if rank.strategy == Strategy::Ddp {
        replay.buckets();
    }
    let loaded = replay.allocator.clone();
    // Batches padded to their own longest: the allocator meets many sizes, the largest not first.
    let mut drawn: Vec<(f64, u64)> = Vec::new();
    for lengths in &plan.shape.draws.records {
        replay.allocator = loaded.clone();
        replay.accumulated.clear();
        let mut first = true;
        for batch in lengths {
            replay.scale = batch.length;
            replay.micro_batch();
            if batch.ends_step {
                replay.optimize(first);
                first = false;
                let gradients = std::mem::take(&mut replay.accumulated);
                replay.give_all(gradients);
            }
        }
        let (peak, reserved) = (replay.allocator.peak as f64, replay.allocator.reserved as f64);
        if peak > 0.0 {
            drawn.push((reserved / peak, replay.allocator.slack));
        }
    }
    drawn.sort_by(|a, b| a.0.total_cmp(&b.0));
    let at = |share: f64| drawn.get((share * drawn.len() as f64) as usize).copied();
    let (ratio, slack) = at(0.5)?;
    // Traced runs lie within 3.3 %.
    let doubt = (rank.strategy == Strategy::Ddp).then_some((0.03, 0.04));
    Some(Replayed { ratio, slack: slack as f64, range: (at(0.05)?.0, at(0.95)?.0), doubt })
}

/// What the replay says.
pub(crate) struct Replayed {
    /// Reserved over allocated at its peak.
    pub(crate) ratio: f64,
    /// Bytes that blocks hold beyond what their tensors need.
    pub(crate) slack: f64,
    /// Nine drawn orders of batches in ten have a ratio in this range.
    pub(crate) range: (f64, f64),
    /// Of a sharded run: how far what is reserved may be off, below and above, as shares of it.
    pub(crate) doubt: Option<(f64, f64)>,
}

#[derive(Clone)]
pub(super) struct Replay<'a> {
    /// This batch's length as a part of the longest.
    pub(super) scale: f64,
    plan: &'a Plan<'a>,
    pub(super) allocator: Allocator,
    parameters: Vec<Parameter>,
    layers: u64,
    /// Gradients are views of DDP's buckets: a new one is copied and goes.
    views: bool,
    /// Sizes of the tensors that one layer saves, one checkpoint, one layer's temporaries.
    pub(super) saved: Vec<Size>,
    pub(super) checkpoint: Vec<Size>,
    pub(super) extra: Vec<Size>,
    pub(super) body: Vec<Size>,
    /// Logits that the training loop holds.
    pub(super) held: Option<Handle>,
    /// Gradients that a step's earlier micro-batches left.
    accumulated: Vec<Handle>,
    /// autocast's 16-bit copies of weights, which go when the forward's context ends.
    casts: Vec<Handle>,
}

/// A tensor's bytes at the longest length, and the power of the length that they grow with.
#[derive(Clone, Copy)]
pub(super) struct Size {
    bytes: u64,
    power: i32,
}

impl Size {
    /// At a part of the longest length.
    pub(super) fn at(self, scale: f64) -> u64 {
        (self.bytes as f64 * scale.powi(self.power)) as u64
    }
}

/// Tensors that one term of a sum is cut into at most.
const MOST_TENSORS: usize = 512;

/// A sum of bytes as tensors: each term in pieces of a tensor's element size.
fn tensors(sum: &Sum, plan: &Plan<'_>) -> Vec<Size> {
    let symbols = &plan.shape.symbols;
    let element = if plan.shape.precision == Precision::Full { 4.0 } else { 2.0 };
    let mut sizes = Vec::new();
    for term in &sum.0 {
        let unit = Sum::term(1.0, &term.symbols).value(symbols);
        let mut left = term.coefficient;
        let power =
            term.symbols.iter().filter(|s| matches!(s, Symbol::Tokens | Symbol::Sequence)).count() as i32;
        // Norms keep their input in fp32.
        let wide =
            if term.symbols == [Symbol::Tokens, Symbol::Hidden] && left >= 8.0 { 4.0 } else { element };
        // No layer keeps more tensors of one shape; an absurd coefficient must not go on for ever.
        for _ in 0..MOST_TENSORS {
            if left <= 0.0 {
                break;
            }
            let piece = left.min(if left > 8.0 { wide } else { element });
            if piece * unit > SMALL as f64 {
                sizes.push(Size { bytes: (piece * unit) as u64, power });
            }
            left -= piece;
        }
    }
    sizes
}

impl<'a> Replay<'a> {
    pub(super) fn new(plan: &'a Plan<'a>) -> Replay<'a> {
        let (checkpointed, _) = split_layers(plan.run.activation_checkpointing.value, 1.0, 1);
        let transient = if checkpointed > 0.0 {
            plan.activations.transient.clone().plus(&plan.activations.layer.clone().times(-1.0))
        } else {
            plan.activations.transient.clone()
        };
        Replay {
            scale: 1.0,
            plan,
            allocator: Allocator::of(plan.run),
            parameters: parameters(plan),
            layers: plan.layers() as u64,
            views: bucket_views(plan.run),
            saved: tensors(&plan.activations.layer, plan),
            checkpoint: if checkpointed > 0.0 {
                tensors(&plan.activations.checkpoint, plan)
            } else {
                Vec::new()
            },
            extra: tensors(&transient.without(|s| !s.contains(&Symbol::Tokens)), plan),
            body: tensors(&plan.activations.body, plan),
            held: None,
            accumulated: Vec::new(),
            casts: Vec::new(),
        }
    }

    pub(super) fn take_all(&mut self, sizes: &[u64]) -> Vec<Handle> {
        sizes.iter().map(|size| self.allocator.take(*size)).collect()
    }

    /// Activations: their sizes follow the batch's length.
    pub(super) fn take_scaled(&mut self, sizes: &[Size]) -> Vec<Handle> {
        let scale = self.scale;
        sizes.iter().map(|size| self.allocator.take(size.at(scale))).collect()
    }

    pub(super) fn give_all(&mut self, handles: Vec<Handle>) {
        for handle in handles {
            self.allocator.give(handle);
        }
    }

    /// Weights, in the order of the model.
    fn load(&mut self) {
        let bytes = self.plan.run.weights.value.bytes() as f64;
        let quantised = if self.plan.adapters.is_some() {
            quantized_bytes(self.plan.run.quantization.value).map(|q| q.0)
        } else {
            None
        };
        let inventory = &self.plan.shape.inventory;
        let mut sizes: Vec<(u64, u64)> = Vec::new();
        for tensor in inventory.own() {
            let each = match (quantised, tensor.linear) {
                (Some(q), Some(_)) if tensor.in_layer() => q,
                _ => bytes,
            };
            sizes.push(((tensor.elements() as f64 * each) as u64, tensor.copies));
        }
        for (size, copies) in sizes {
            for _ in 0..copies {
                self.allocator.take(size);
            }
        }
    }

    /// DDP's flat buckets, made once: a bucket closes when it holds 25 MiB, the first 1 MiB (PyTorch's
    /// `bucket_cap_mb` and `_DEFAULT_FIRST_BUCKET_BYTES`). They are reduced where they are.
    fn buckets(&mut self) {
        let bytes = self.plan.gradient;
        let sizes: Vec<f64> = match &self.plan.adapters {
            Some(_) => vec![self.plan.groups.total * bytes],
            None => self.parameters.iter().rev().map(|p| p.elements * bytes).collect(),
        };
        let (mut open, mut most) = (0.0, MIB as f64);
        for size in sizes {
            open += size;
            if open >= most {
                self.allocator.take(open as u64);
                (open, most) = (0.0, 25.0 * MIB as f64);
            }
        }
        self.allocator.take(open as u64);
    }

    fn micro_batch(&mut self) {
        let sizes = std::mem::take(&mut self.body);
        let body = self.take_scaled(&sizes);
        self.body = sizes;
        let kept = self.forward();
        let head = self.loss();
        self.end_context();
        let gradients = self.backward(kept, head);
        self.give_all(body);
        let gradients = self.embedding(gradients);
        if self.accumulated.is_empty() {
            self.accumulated = gradients;
        } else {
            self.give_all(gradients);
        }
        if let Some(held) = self.held.take() {
            self.allocator.give(held);
        }
    }

    fn forward(&mut self) -> Vec<Vec<Handle>> {
        let saved = std::mem::take(&mut self.saved);
        let checkpoint = std::mem::take(&mut self.checkpoint);
        let extra = std::mem::take(&mut self.extra);
        let mut kept = Vec::new();
        for _ in 0..self.layers {
            if checkpoint.is_empty() {
                let passing = self.allocator.take(extra.first().map_or(0, |size| size.at(self.scale)));
                kept.push(self.take_scaled(&saved));
                self.allocator.give(passing);
            } else {
                // Without grad a tensor goes when the next but one is there.
                let mut window = std::collections::VecDeque::new();
                for size in &saved {
                    if size.power == 0 {
                        self.casts.push(self.allocator.take(size.at(self.scale)));
                        continue;
                    }
                    window.push_back(self.allocator.take(size.at(self.scale)));
                    if window.len() > 5
                        && let Some(oldest) = window.pop_front()
                    {
                        self.allocator.give(oldest);
                    }
                }
                kept.push(self.take_scaled(&checkpoint));
                self.give_all(window.into());
            }
        }
        (self.saved, self.checkpoint, self.extra) = (saved, checkpoint, extra);
        kept
    }

    fn end_context(&mut self) {
        let casts = std::mem::take(&mut self.casts);
        self.give_all(casts);
    }

    fn logits(&self, bytes: f64) -> u64 {
        (self.scale * bytes * self.plan.shape.get(Symbol::Tokens) * self.plan.shape.get(Symbol::Vocabulary))
            as u64
    }

    /// Logits, their upcast, the log-softmax; then its gradients, back to the hidden states'.
    pub(super) fn loss(&mut self) -> Vec<Handle> {
        let w = self.plan.shape.precision.logit();
        let symbols = &self.plan.shape.symbols;
        let head = (w * self.plan.shape.get(Symbol::Vocabulary) * self.plan.shape.get(Symbol::Hidden)) as u64;
        let hidden = (w * self.plan.shape.get(Symbol::Tokens) * self.plan.shape.get(Symbol::Hidden)) as u64;
        let frozen = self.plan.adapters.is_some();
        if self.plan.run.loss.value == Loss::Tiled {
            return self.tiles(head, hidden);
        }
        if self.plan.loss.forward.is_empty() {
            return vec![self.allocator.take(hidden)];
        }
        if self.plan.run.loss.value == Loss::Fused {
            let chunk = self.plan.loss.forward.value(symbols) - self.plan.loss.saved.value(symbols);
            let input = self.allocator.take(hidden);
            let weight = self.allocator.take(if frozen { 0 } else { head });
            let chunk = self.allocator.take((chunk - if frozen { 0.0 } else { head as f64 }).max(0.0) as u64);
            let product = self.allocator.take(if frozen { 0 } else { head });
            self.give_all(vec![chunk, product]);
            return vec![input, weight];
        }
        let cast = self.allocator.take(if self.plan.shape.precision == Precision::Mixed { head } else { 0 });
        let gradient = match self.plan.run.loss.value {
            Loss::FullNoUpcast | Loss::FullShiftedNoUpcast
                if w < 4.0 && self.plan.shape.precision.autocast() =>
            {
                self.autocast_loss(w)
            }
            Loss::FullNoUpcast | Loss::FullShiftedNoUpcast => self.upcast_loss(w, 0.0, w),
            _ if w >= 4.0 => self.upcast_loss(w, 0.0, 4.0),
            _ => self.upcast_loss(w, 4.0, 4.0),
        };
        let input = self.allocator.take(hidden);
        let weight = self.allocator.take(if frozen { 0 } else { head });
        self.allocator.give(gradient);
        self.allocator.give(cast);
        vec![input, weight]
    }

    /// TRL's fused head: the copied hidden states, one tile's buffer in either direction, gradients
    /// in fp32 that are cast at the end.
    fn tiles(&mut self, head: u64, hidden: u64) -> Vec<Handle> {
        let symbols = &self.plan.shape.symbols;
        let copied = self.plan.loss.saved.value(symbols);
        let tile = (self.plan.loss.forward.value(symbols) - copied).max(0.0) as u64;
        let trained = self.plan.adapters.is_none();
        let float = |size: u64, cast: bool| if cast { size.saturating_mul(2) } else { 0 };
        let narrow = self.plan.shape.precision.residual() < 4.0;
        let copied = self.allocator.take(copied as u64);
        let forward = self.allocator.take(tile);
        self.allocator.give(forward);
        let sums = [float(hidden, narrow), if trained { float(head, narrow) } else { 0 }];
        let sums = sums.map(|size| self.allocator.take(size)).to_vec();
        let backward = self.allocator.take(tile);
        let input = self.allocator.take(hidden);
        let weight = self.allocator.take(if trained { head } else { 0 });
        self.give_all(sums);
        self.give_all(vec![backward, copied]);
        vec![input, weight]
    }

    /// The model divides or multiplies its logits, out of place.
    fn scales_logits(&self) -> bool {
        use Family::{Cohere, Cohere2, Granite, GraniteMoeHybrid};
        matches!(self.plan.shape.architecture.family, Cohere | Cohere2 | Granite | GraniteMoeHybrid)
    }

    /// Logits of `w` bytes, their fp32 copy of `upcast` bytes, the log-softmax and two gradients of
    /// `kept` bytes; back comes the logits' gradient.
    fn upcast_loss(&mut self, w: f64, upcast: f64, kept: f64) -> Handle {
        let raw = self.allocator.take(if self.scales_logits() { self.logits(w) } else { 0 });
        let logits = self.allocator.take(self.logits(w));
        self.allocator.give(raw);
        let float = self.allocator.take(self.logits(upcast));
        let loss = self.plan.run.loss.value;
        let shifted = matches!(loss, Loss::FullShifted | Loss::FullUpcastShifted);
        // Before 4.46 the model put the upcast logits in the place of its own, since then the loss function
        // upcasts for itself.
        let (returned, passed) = if upcast > 0.0 && loss == Loss::FullShifted {
            self.allocator.give(logits);
            (float, Handle::NOTHING)
        } else {
            (logits, float)
        };
        let copy = self.allocator.take(self.logits(if shifted { kept } else { 0.0 }));
        let softmax = self.allocator.take(self.logits(kept));
        self.allocator.give(copy);
        self.allocator.give(passed);
        self.end_context();
        if self.plan.run.keep_logits.value && shifted {
            self.held = Some(returned);
        } else {
            self.allocator.give(returned);
        }
        let likelihood = self.allocator.take(self.logits(kept));
        let gradient = self.allocator.take(self.logits(kept));
        self.allocator.give(likelihood);
        self.allocator.give(softmax);
        if upcast == 0.0 {
            return gradient;
        }
        let narrow = self.allocator.take(self.logits(w));
        self.allocator.give(gradient);
        narrow
    }

    /// Autocast's log-softmax reads 16-bit logits, or their shifted copy, and keeps them; beside a
    /// shifted copy the trainer makes an fp32 one of the logits. Gradients of the 16-bit tensors are
    /// in 16 bits.
    fn autocast_loss(&mut self, w: f64) -> Handle {
        let logits = self.allocator.take(self.logits(w));
        let shifted = self.plan.run.loss.value == Loss::FullShiftedNoUpcast;
        let copy = self.allocator.take(if shifted { self.logits(w) } else { 0 });
        let softmax = self.allocator.take(self.logits(4.0));
        self.end_context();
        if shifted {
            let output = self.allocator.take(self.logits(4.0));
            self.give_all(vec![logits, output]);
        }
        let likelihood = self.allocator.take(self.logits(4.0));
        self.allocator.give(softmax);
        let gradient = self.allocator.take(self.logits(w));
        self.allocator.give(likelihood);
        if !shifted {
            self.allocator.give(logits);
            return gradient;
        }
        let whole = self.allocator.take(self.logits(w));
        self.give_all(vec![gradient, copy]);
        whole
    }

    /// Layers in reverse: recomputed or not, temporaries, gradients of their parameters.
    fn backward(&mut self, mut kept: Vec<Vec<Handle>>, head: Vec<Handle>) -> Vec<Handle> {
        let saved = std::mem::take(&mut self.saved);
        let extra = std::mem::take(&mut self.extra);
        let mut gradients = Vec::new();
        let g = self.plan.gradient;
        let sizes: Vec<(Option<u64>, u64)> =
            self.parameters.iter().map(|p| (p.layer, (p.elements * g) as u64)).collect();
        let mut head = head.into_iter();
        let mut stream = head.next().unwrap_or(Handle(u32::MAX));
        self.made(head.collect(), &mut gradients);
        for layer in (0..self.layers).rev() {
            let own = kept.pop().unwrap_or_default();
            let recomputed = if self.checkpoint.is_empty() { Vec::new() } else { self.take_scaled(&saved) };
            let working = self.take_scaled(&extra);
            let mine: Vec<u64> =
                sizes.iter().filter(|(l, _)| *l == Some(layer)).map(|(_, size)| *size).collect();
            let mine = self.take_all(&mine);
            self.give_all(working);
            self.give_all(recomputed);
            self.made(mine, &mut gradients);
            let next = self.allocator.take(self.hidden());
            self.allocator.give(stream);
            stream = next;
            self.give_all(own);
        }
        self.allocator.give(stream);
        (self.saved, self.extra) = (saved, extra);
        gradients
    }

    /// New gradients stay, unless they are views of buckets, or are added to an earlier micro-batch's.
    fn made(&mut self, new: Vec<Handle>, gradients: &mut Vec<Handle>) {
        if self.views || !self.accumulated.is_empty() {
            self.give_all(new);
        } else {
            gradients.extend(new);
        }
    }

    pub(super) fn hidden(&self) -> u64 {
        (self.scale
            * self.plan.residual()
            * self.plan.shape.get(Symbol::Tokens)
            * self.plan.shape.get(Symbol::Hidden)) as u64
    }

    /// The embedding's gradient; a tied one is added to the head's out of place.
    fn embedding(&mut self, mut gradients: Vec<Handle>) -> Vec<Handle> {
        if self.plan.adapters.is_some()
            || self.plan.groups.total < self.plan.shape.inventory.embedding() as f64
        {
            return gradients;
        }
        let size = (self.plan.gradient * self.plan.shape.inventory.embedding() as f64) as u64;
        let own = self.allocator.take(size);
        if self.plan.groups.tied {
            let sum = self.allocator.take(size);
            self.allocator.give(own);
            if !gradients.is_empty() {
                let head = gradients.remove(0);
                self.allocator.give(head);
            }
            self.made(vec![sum], &mut gradients);
        } else {
            self.made(vec![own], &mut gradients);
        }
        gradients
    }

    /// States at the first step; the foreach step's list of temporaries.
    fn optimize(&mut self, first: bool) {
        let memory = &self.plan.optimizer;
        let total = self.plan.trained.parameters.max(1.0);
        let parameters = self.parameters.clone();
        if first && memory.state > 0.0 {
            let each = memory.state / total;
            let tensors = if each >= self.plan.weight * 1.5 { 2 } else { 1 };
            for parameter in &parameters {
                for _ in 0..tensors {
                    self.allocator.take((parameter.elements * each / f64::from(tensors)) as u64);
                }
            }
        }
        let whole = self.plan.run.optimizer_implementation.value == OptimizerImplementation::Foreach
            && memory.step > 0.5 * total;
        let temporary: Vec<u64> = if whole {
            parameters.iter().map(|p| (p.elements * memory.step / total) as u64).collect()
        } else {
            vec![memory.step as u64]
        };
        let handles = self.take_all(&temporary);
        self.give_all(handles);
    }
}

/// Trained tensors in the order of the model.
fn parameters(plan: &Plan<'_>) -> Vec<Parameter> {
    if plan.adapters.is_some() {
        return Vec::new();
    }
    let mut list = Vec::new();
    let inventory = &plan.shape.inventory;
    let mut in_layers = Vec::new();
    for tensor in inventory.own() {
        let elements = tensor.elements() as f64;
        match tensor.place {
            Place::Layers { first, count } | Place::Encoder { first, count } => {
                let per_layer = tensor.copies / count.max(1);
                for layer in first..first + count {
                    for _ in 0..per_layer.max(1) {
                        in_layers.push(Parameter { elements, layer: Some(layer) });
                    }
                }
            }
            _ => list.push(Parameter { elements, layer: None }),
        }
    }
    in_layers.sort_by_key(|p| p.layer);
    list.extend(in_layers);
    list
}
