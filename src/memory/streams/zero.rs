//! DeepSpeed's steps: stage 1 and 2 with whole weights, stage 3 with weights fetched tensor by
//! tensor. Buffers have the sizes that are configured, whatever the model's.

use std::collections::VecDeque;

use super::super::allocator::Handle;
use super::Streams;
use crate::run::Optimizer;

/// A fetched tensor: its buffer and its elements.
type Fetched = VecDeque<(Handle, f64)>;

impl Streams<'_> {
    /// Elements and bytes of the reduction's buffers, elements fetched at most.
    fn buffers(&self) -> (f64, usize, f64, f64) {
        let zero = self.plan.run.parallelism.zero.as_ref();
        let bucket = zero.map_or(5e8, |z| z.reduce_bucket.value as f64);
        let twice = if zero.is_some_and(|z| z.overlap_comm.value) { 2 } else { 1 };
        let live = zero.map_or(1e9, |z| z.max_live_parameters.value as f64);
        let group = zero.map_or(1e9, |z| z.sub_group.value as f64);
        (bucket, twice, live, group)
    }

    fn trained(&self) -> f64 {
        self.plan.groups.total
    }

    /// Weights (flattened when all are trained) and masters; stage 3 shards, its gradients' flat
    /// buffer and the reduction's.
    pub(super) fn load_zero(&mut self, stage: u8) {
        let (bucket, _, _, group) = self.buffers();
        let whole = if stage == 3 { self.shards } else { 1.0 };
        let sizes: Vec<u64> = [(&self.root, 1), (&self.layer, self.layers)]
            .into_iter()
            .flat_map(|(unit, count)| {
                let sizes = unit.tensors.iter().map(|t| (t.0 * t.1 / whole) as u64).collect::<Vec<_>>();
                (0..count).flat_map(move |_| sizes.clone())
            })
            .collect();
        if self.host.0 {
        } else if self.plan.adapters.is_none() {
            self.main.allocator.take(sizes.iter().sum());
        } else {
            self.main.take_all(&sizes);
        }
        let mine = self.trained() / self.shards;
        if self.compute < 4.0 && !self.host.1 {
            for part in parts(mine, if stage == 3 { group } else { mine }) {
                self.main.allocator.take((4.0 * part) as u64);
            }
        }
        if stage == 3 {
            self.main.allocator.take((self.compute * mine) as u64);
            self.main.allocator.take((self.compute * bucket) as u64);
        }
        self.main.allocator.highest();
    }

    pub(super) fn step_zero(&mut self, stage: u8, first: bool) {
        let (bucket, twice, live, _) = self.buffers();
        let body = self.main.take_scaled(&self.main.body.clone());
        let mut fetched = Fetched::new();
        let mut kept = Vec::new();
        for _ in 0..self.layers {
            self.fetch(stage, live, false, &mut fetched);
            kept.push(self.forward());
        }
        self.fetch(stage, live, true, &mut fetched);
        let mut head = self.main.loss();
        let mut stream = (!head.is_empty()).then(|| head.remove(0));
        let sizes = if stage == 3 { Vec::new() } else { vec![(bucket * self.compute) as u64; twice] };
        let buffers = self.main.take_all(&sizes);
        // A tensor larger than the bucket, and each full bucket, is copied in the reduction's stream.
        let passing = bucket.min(self.trained()).max(self.largest_in_root()) * self.compute;
        let passing = self.take_reduce(passing as u64);
        self.main.give_all(head);
        self.give_reduce(passing);
        let mut shards = Vec::new();
        for _ in 0..self.layers {
            self.fetch(stage, live, false, &mut fetched);
            let own = kept.pop().unwrap_or_default();
            let working = self.layer_backward();
            if self.plan.adapters.is_none() {
                for index in 0..self.layer.tensors.len() {
                    let elements = self.layer.tensors.get(index).map_or(0.0, |t| t.0);
                    let gradient = self.main.allocator.take((elements * self.compute) as u64);
                    self.main.allocator.give(gradient);
                    if stage < 3 {
                        let shard = self.share(elements * self.compute);
                        shards.push(self.main.allocator.take(shard));
                    }
                }
            }
            self.end_layer(working, own, &mut stream);
        }
        self.main.give_all(stream.into_iter().collect());
        if self.plan.adapters.is_none() {
            let embedding = self.plan.shape.inventory.embedding() as f64 * self.compute;
            let embedding = self.main.allocator.take(embedding as u64);
            self.main.allocator.give(embedding);
        }
        self.main.give_all(body);
        self.main.give_all(buffers);
        for (handle, _) in fetched {
            self.give_gather(handle);
        }
        self.optimize_zero(stage, first);
        self.main.give_all(shards);
        if let Some(held) = self.main.held.take() {
            self.main.allocator.give(held);
        }
    }

    fn largest_in_root(&self) -> f64 {
        if self.plan.adapters.is_some() {
            0.0
        } else {
            self.root.tensors.iter().map(|t| t.0).fold(0.0, f64::max)
        }
    }

    /// Stage 3 brings a layer's tensors, or the head's, and lets the oldest go beyond what may live.
    fn fetch(&mut self, stage: u8, live: f64, root: bool, fetched: &mut Fetched) {
        if stage < 3 {
            return;
        }
        let unit = if root { &self.root } else { &self.layer };
        for (elements, bytes) in unit.tensors.clone() {
            let buffer = self.take_gather((elements * bytes) as u64);
            fetched.push_back((buffer, elements));
            while fetched.iter().map(|f| f.1).sum::<f64>() > live.max(elements) {
                let Some((oldest, _)) = fetched.pop_front() else { break };
                self.give_gather(oldest);
            }
        }
    }

    /// The norm in double precision, then fp32 gradients, states at the first step, temporaries.
    fn optimize_zero(&mut self, stage: u8, first: bool) {
        if self.host.1 {
            return;
        }
        let (.., group) = self.buffers();
        let mine = self.trained() / self.shards;
        let steps = parts(mine, if stage == 3 { group } else { mine });
        if stage < 3 && self.compute < 4.0 {
            let norm = self.main.allocator.take((8.0 * mine) as u64);
            self.main.allocator.give(norm);
        }
        let moments = match self.plan.run.optimizer.value {
            Optimizer::Adam | Optimizer::Adamw => 2,
            _ => 1,
        };
        for part in steps {
            let size = (4.0 * part) as u64;
            let gradients = self.main.allocator.take(size);
            if first {
                for _ in 0..moments {
                    self.main.allocator.take(size);
                }
            }
            let passing = self.main.allocator.take(size);
            self.main.give_all(vec![gradients, passing]);
        }
    }
}

/// `all` in parts of at most `most`.
fn parts(all: f64, most: f64) -> Vec<f64> {
    let count = (all / most.max(1.0)).ceil().clamp(1.0, 512.0);
    vec![all / count; count as usize]
}
