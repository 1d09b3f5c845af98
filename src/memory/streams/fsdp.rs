//! A step under FSDP 1 and 2: what is gathered ahead, and when gradients are reduced.

use super::super::allocator::Handle;
use super::super::data_parallel::{gathers_late, hooks_hold_inputs};
use super::{AHEAD, Scheme, Streams};

impl Streams<'_> {
    /// The flat buffer that a unit is gathered in. Shards that are cast or come from the host are put
    /// together first.
    pub(super) fn gather_flat(&mut self, root: bool) -> Handle {
        let whole = if root { self.root.gathered() } else { self.layer.gathered() };
        let made = self.host.0 || self.compute < self.plan.run.weights.value.bytes() as f64;
        let input = self.take_gather(if made { self.share(whole) } else { 0 });
        let buffer = self.take_gather(whole as u64);
        self.give_gather(input);
        buffer
    }

    /// Gathers a unit. FSDP2 copies each tensor out of the flat buffer, which stays until the next is
    /// there (its `all_gather_state`).
    pub(super) fn gather(&mut self, root: bool) -> Vec<Handle> {
        let buffer = self.gather_flat(root);
        if self.scheme == Scheme::Fsdp1 {
            return vec![buffer];
        }
        self.release_buffers();
        self.buffers.push(buffer);
        self.copy_out(root)
    }

    pub(super) fn copy_out(&mut self, root: bool) -> Vec<Handle> {
        let unit = if root { &self.root } else { &self.layer };
        let sizes: Vec<u64> =
            unit.tensors.iter().map(|(elements, bytes)| (elements * bytes) as u64).collect();
        self.main.take_all(&sizes)
    }

    /// In the backward a unit's buffer is gathered while the unit before is at work.
    pub(super) fn prefetch(&mut self) -> Vec<Handle> {
        vec![self.gather_flat(false)]
    }

    /// What was gathered ahead as the layer finds it.
    pub(super) fn unpack(&mut self, ahead: Vec<Handle>) -> Vec<Handle> {
        if self.scheme == Scheme::Fsdp1 {
            return ahead;
        }
        let copies = self.copy_out(false);
        ahead.into_iter().for_each(|buffer| self.give_gather(buffer));
        copies
    }

    pub(super) fn release_buffers(&mut self) {
        for buffer in std::mem::take(&mut self.buffers) {
            self.give_gather(buffer);
        }
    }

    pub(super) fn free(&mut self, unit: Vec<Handle>) {
        match self.scheme {
            Scheme::Fsdp1 => unit.into_iter().for_each(|handle| self.give_late(handle)),
            _ => self.main.give_all(unit),
        }
    }

    /// The host runs ahead of the GPU: weights that were given back cannot be written over yet
    /// (`record_stream`).
    pub(super) fn give_late(&mut self, handle: Handle) {
        self.note();
        self.gather.count_out(handle);
        self.in_flight.push_back(handle);
        if self.in_flight.len() > AHEAD
            && let Some(oldest) = self.in_flight.pop_front()
        {
            self.gather.reuse(oldest);
        }
    }

    pub(super) fn step(&mut self, first: bool) {
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
        let (gradients, reduced) = self.backward(kept, head, whole);
        self.main.give_all(body);
        self.reduce_root(root, gradients, reduced);
        for handle in earlier {
            match self.scheme {
                Scheme::Fsdp1 => self.give_gather(handle),
                _ => self.main.allocator.give(handle),
            }
        }
        self.optimize(first);
    }

    /// What earlier micro-batches left: whole gradients, which are returned, or shards.
    pub(super) fn earlier(&mut self) -> Vec<Handle> {
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
    pub(super) fn keep(&mut self, shard: Handle) {
        if self.accumulating && self.deferred.is_none() {
            self.give_reduce(shard);
        } else {
            self.gradients.push(shard);
        }
    }

    pub(super) fn backward(
        &mut self,
        mut kept: Vec<Vec<Handle>>,
        head: Vec<Handle>,
        mut whole: Vec<Vec<Handle>>,
    ) -> (Vec<Handle>, Vec<Handle>) {
        let mut gradients = head;
        let mut stream = (!gradients.is_empty()).then(|| gradients.remove(0));
        let trained = self.plan.adapters.is_none();
        let late = gathers_late(self.plan);
        let mut ahead = if self.reshard && !late { self.prefetch() } else { Vec::new() };
        let mut reduced: Vec<Handle> = Vec::new();
        let holds = hooks_hold_inputs(self.plan);
        let mut held = Vec::new();
        for layer in (0..self.layers).rev() {
            if late && self.reshard {
                ahead = self.prefetch();
            }
            let unit = if self.reshard { self.unpack(ahead) } else { whole.pop().unwrap_or_default() };
            ahead = if self.reshard && !late && layer > 0 { self.prefetch() } else { Vec::new() };
            let own = kept.pop().unwrap_or_default();
            let working = self.layer_backward();
            let made: Vec<u64> = if trained {
                self.layer.tensors.iter().map(|t| (t.0 * self.compute) as u64).collect()
            } else {
                Vec::new()
            };
            let made = self.main.take_all(&made);
            let own = if holds {
                held.extend(own);
                held.extend(stream.take());
                Vec::new()
            } else {
                own
            };
            self.end_layer(working, own, &mut stream);
            let elements = self.layer.trained;
            reduced = self.reduced(elements, made, unit, reduced);
        }
        if let Some(last) = stream {
            self.main.allocator.give(last);
        }
        self.main.give_all(held);
        (gradients, reduced)
    }

    /// A unit's gradients into its shard, and its gathered weights away. FSDP2's input of the
    /// reduction stays until the next one's.
    pub(super) fn reduced(
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

    pub(super) fn reduce_root(
        &mut self,
        root: Vec<Handle>,
        mut gradients: Vec<Handle>,
        earlier: Vec<Handle>,
    ) {
        if self.plan.adapters.is_none() {
            let embedding = self.plan.shape.inventory.embedding() as f64 * self.compute;
            gradients.push(self.main.allocator.take(embedding as u64));
            let elements = self.root.trained;
            let left = self.reduced(elements, gradients, root, earlier);
            self.main.give_all(left);
        } else {
            self.main.give_all(gradients);
            self.main.give_all(earlier);
            self.free(root);
        }
    }
}
