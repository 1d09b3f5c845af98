//! DeepSpeed's steps of stage 1 and 2, and what all stages do at their end. Buffers have the sizes
//! that are configured, whatever the model's.

use super::Streams;
use crate::run::Optimizer;

impl Streams<'_> {
    /// Elements of a reduction bucket, and how many there are.
    pub(super) fn buckets(&self) -> (f64, usize) {
        let zero = self.plan.run.parallelism.zero.as_ref();
        let bucket = zero.map_or(5e8, |z| z.reduce_bucket.value as f64);
        let twice = if zero.is_some_and(|z| z.overlap_comm.value) { 2 } else { 1 };
        (bucket, twice)
    }

    pub(super) fn trained(&self) -> f64 {
        self.plan.groups.total
    }

    /// Weights (flattened when all are trained) and masters.
    pub(super) fn load_zero(&mut self) {
        let sizes: Vec<u64> = [(&self.root, 1), (&self.layer, self.layers)]
            .into_iter()
            .flat_map(|(unit, count)| {
                let sizes = unit.tensors.iter().map(|t| (t.0 * t.1) as u64).collect::<Vec<_>>();
                (0..count).flat_map(move |_| sizes.clone())
            })
            .collect();
        if self.host.0 {
        } else if self.plan.adapters.is_none() {
            self.main.allocator.take(sizes.iter().sum());
        } else {
            self.main.take_all(&sizes);
        }
        if self.compute < 4.0 && !self.host.1 {
            let mine = self.trained() / self.shards;
            self.main.allocator.take((4.0 * mine) as u64);
        }
        self.main.allocator.highest();
    }

    pub(super) fn step_zero(&mut self, first: bool) {
        let (bucket, twice) = self.buckets();
        let body = self.main.take_scaled(&self.main.body.clone());
        let mut kept = Vec::new();
        for _ in 0..self.layers {
            kept.push(self.forward());
        }
        let mut head = self.main.loss();
        let mut stream = (!head.is_empty()).then(|| head.remove(0));
        let buffers = self.main.take_all(&vec![(bucket * self.compute) as u64; twice]);
        // A tensor larger than the bucket, and each full bucket, is copied in the reduction's stream.
        let passing = bucket.min(self.trained()).max(self.largest_in_root()) * self.compute;
        let passing = self.take_reduce(passing as u64);
        self.main.give_all(head);
        self.give_reduce(passing);
        let mut shards = Vec::new();
        for _ in 0..self.layers {
            let own = kept.pop().unwrap_or_default();
            let working = self.layer_backward();
            if self.plan.adapters.is_none() {
                for elements in self.layer.tensors.iter().map(|t| t.0).collect::<Vec<_>>() {
                    self.passing_gradient(elements);
                    let shard = self.share(elements * self.compute);
                    shards.push(self.main.allocator.take(shard));
                }
            }
            self.end_layer(working, own, &mut stream);
        }
        self.main.give_all(stream.into_iter().collect());
        if self.plan.adapters.is_none() {
            self.passing_gradient(self.plan.shape.inventory.embedding() as f64);
        }
        self.main.give_all(body);
        self.main.give_all(buffers);
        self.optimize_zero(first);
        self.main.give_all(shards);
        self.release_held();
    }

    /// A gradient goes as soon as it is in the bucket.
    pub(super) fn passing_gradient(&mut self, elements: f64) {
        let gradient = self.main.allocator.take((elements * self.compute) as u64);
        self.main.allocator.give(gradient);
    }

    pub(super) fn release_held(&mut self) {
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

    /// The norm in double precision, then fp32 gradients, states at the first step, temporaries.
    fn optimize_zero(&mut self, first: bool) {
        if self.host.1 {
            return;
        }
        let mine = self.trained() / self.shards;
        if self.compute < 4.0 {
            let norm = self.main.allocator.take((8.0 * mine) as u64);
            self.main.allocator.give(norm);
        }
        self.adam(mine, first);
    }

    /// A step over one flat part of `elements`: fp32 gradients, its states, its temporary.
    pub(super) fn adam(&mut self, elements: f64, first: bool) {
        let size = (4.0 * elements) as u64;
        let gradients = self.main.allocator.take(size);
        self.states_and_temporary(size, first);
        self.main.allocator.give(gradients);
    }

    pub(super) fn states_and_temporary(&mut self, size: u64, first: bool) {
        let moments = match self.plan.run.optimizer.value {
            Optimizer::Adam | Optimizer::Adamw => 2,
            _ => 1,
        };
        if first {
            self.main.take_all(&vec![size; moments]);
        }
        let passing = self.main.allocator.take(size);
        self.main.allocator.give(passing);
    }
}
