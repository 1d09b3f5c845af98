//! DeepSpeed's steps of stage 1 and 2, and what all stages do at their end. Buffers have the sizes
//! that are configured, whatever the model's.

use super::super::allocator::Handle;
use super::{Scheme, Streams, Unit};
use crate::run::Optimizer;

/// Gradients on their way to the ranks that keep them. They come in the reverse order of the model.
#[derive(Default)]
pub(super) struct Bucket {
    /// Elements in it.
    filled: f64,
    /// Elements that were reduced before.
    reduced: f64,
    /// Stage 1 and 2: where this rank's gradients are put.
    part: Option<Handle>,
}

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

    /// Every rank's weights, or its shard of each tensor: one flat buffer unless adapters leave the
    /// tensors apart, and nothing where the host has them.
    pub(super) fn take_weights(&mut self, shards: f64) {
        if self.host.0 {
            return;
        }
        let sizes: Vec<u64> = [(&self.root, 1), (&self.layer, self.layers)]
            .into_iter()
            .flat_map(|(unit, count)| {
                (0..count).flat_map(move |_| unit.tensors.iter().map(move |t| (t.0 * t.1 / shards) as u64))
            })
            .collect();
        if self.plan.adapters.is_none() {
            self.main.allocator.take(sizes.iter().sum());
        } else {
            self.main.take_all(&sizes);
        }
    }

    /// Weights (flattened when all are trained) and masters.
    pub(super) fn load_zero(&mut self) {
        self.take_weights(1.0);
        if self.compute < 4.0 && !self.host.1 {
            let mine = self.trained() / self.shards;
            self.main.allocator.take((4.0 * mine) as u64);
        }
        self.main.allocator.highest();
    }

    pub(super) fn step_zero(&mut self, first: bool) {
        let (most, twice) = self.buckets();
        let body = self.main.take_scaled(&self.main.body.clone());
        let mut kept = Vec::new();
        for _ in 0..self.layers {
            kept.push(self.forward());
        }
        let mut head = self.main.loss();
        let mut stream = (!head.is_empty()).then(|| head.remove(0));
        let buffers = self.main.take_all(&vec![(most * self.compute) as u64; twice]);
        let mut bucket = Bucket::default();
        let waits = self.head_gradient(head, &mut bucket);
        for _ in 0..self.layers {
            let own = kept.pop().unwrap_or_default();
            let working = self.layer_backward();
            if self.plan.adapters.is_none() {
                for elements in self.layer.tensors.iter().rev().map(|t| t.0).collect::<Vec<_>>() {
                    self.passing_gradient(elements);
                    self.bucketed(elements, &mut bucket);
                }
            }
            self.end_layer(working, own, &mut stream);
        }
        self.main.give_all(stream.into_iter().collect());
        if self.plan.adapters.is_none() {
            let gradient = self.embedding_gradient(waits);
            let embedding = self.plan.shape.inventory.embedding() as f64;
            self.bucketed(embedding, &mut bucket);
            self.main.allocator.give(gradient);
            self.flush(&mut bucket);
        }
        self.main.give_all(body);
        self.main.give_all(buffers);
        self.optimize_zero(first, bucket.part);
        self.release_held();
    }

    /// A gradient goes as soon as it is in the bucket.
    pub(super) fn passing_gradient(&mut self, elements: f64) {
        let gradient = self.main.allocator.take((elements * self.compute) as u64);
        self.main.allocator.give(gradient);
    }

    /// A gradient goes into the bucket, which is reduced before it would overflow.
    pub(super) fn bucketed(&mut self, elements: f64, bucket: &mut Bucket) {
        if bucket.filled > 0.0 && bucket.filled + elements > self.buckets().0 {
            self.flush(bucket);
        }
        bucket.filled += elements;
    }

    /// Stage 3 copies several tensors to interleave their parts, and not one alone. Stage 1 and 2 copy
    /// what goes to several ranks (`average_tensor` joins neighbours of one rank, `allreduce_bucket`
    /// flattens the pieces). With the first gradient of its own part a rank makes the buffer for all of
    /// them, whole tensors at its ends (`copy_grads_in_partition`).
    pub(super) fn flush(&mut self, bucket: &mut Bucket) {
        let mine = self.trained() / self.shards;
        let above = (self.trained() - bucket.reduced).max(0.0);
        let below = (above - bucket.filled).max(0.0);
        let partitions = matches!(self.scheme, Scheme::Zero(1 | 2));
        let copied = if partitions {
            (below / mine).floor() < ((above - 1.0) / mine).floor()
        } else {
            bucket.filled < self.buckets().0
        };
        let copy = self.take_reduce(if copied { (bucket.filled * self.compute) as u64 } else { 0 });
        self.give_reduce(copy);
        if partitions && below < mine && self.plan.adapters.is_none() {
            if self.host.1 {
                self.offload_gradients(mine);
            } else if bucket.part.is_none() {
                bucket.part = Some(self.take_reduce((self.first_part(mine) * self.compute) as u64));
            }
        }
        bucket.reduced += bucket.filled;
        bucket.filled = 0.0;
    }

    /// A gradient whose states are on the host: its norm in double precision, then its fp32 copy
    /// (`set_norm_for_param_grad_in_gpu`, `async_inplace_copy_grad_to_fp32_buffer_from_gpu`).
    fn offload_gradients(&mut self, mine: f64) {
        let largest = mine.min(self.plan.trained.largest);
        for bytes in [8.0, 4.0] {
            let passing = self.take_reduce((bytes * largest) as u64);
            self.give_reduce(passing);
        }
    }

    /// Elements of the tensors that lie in the first rank's part, wholly or in part.
    fn first_part(&self, mine: f64) -> f64 {
        let of = |unit: &Unit| -> Vec<u64> { unit.tensors.iter().map(|t| t.0 as u64).collect() };
        let mut sum = 0.0;
        for elements in self.in_order(&of(&self.root), &of(&self.layer)) {
            if sum >= mine {
                break;
            }
            sum += elements as f64;
        }
        sum
    }

    /// The head's gradient goes into the bucket; a tied one waits for the embedding's.
    pub(super) fn head_gradient(&mut self, made: Vec<Handle>, bucket: &mut Bucket) -> Vec<Handle> {
        if self.plan.groups.tied {
            return made;
        }
        self.main.give_all(made);
        if self.plan.adapters.is_none() {
            self.bucketed(self.plan.shape.inventory.head() as f64, bucket);
        }
        Vec::new()
    }

    /// The embedding's gradient, to which a waiting head's is added out of place.
    pub(super) fn embedding_gradient(&mut self, waits: Vec<Handle>) -> Handle {
        let size = (self.plan.shape.inventory.embedding() as f64 * self.compute) as u64;
        let own = self.main.allocator.take(size);
        if waits.is_empty() {
            return own;
        }
        let sum = self.main.allocator.take(size);
        self.main.allocator.give(own);
        self.main.give_all(waits);
        sum
    }

    pub(super) fn release_held(&mut self) {
        if let Some(held) = self.main.held.take() {
            self.main.allocator.give(held);
        }
    }

    /// The norm of one tensor after another in double precision, this rank's gradients flattened and
    /// cast, states at the first step, temporaries.
    fn optimize_zero(&mut self, first: bool, part: Option<Handle>) {
        let mine = self.trained() / self.shards;
        if !self.host.1 {
            let mut together = Handle::NOTHING;
            if self.compute < 4.0 {
                let largest = mine.min(self.plan.trained.largest);
                let norm = self.main.allocator.take((8.0 * largest) as u64);
                self.main.allocator.give(norm);
                together = self.main.allocator.take((self.compute * mine) as u64);
            }
            let size = (4.0 * mine) as u64;
            let gradients = self.main.allocator.take(size);
            self.main.allocator.give(together);
            part.into_iter().for_each(|handle| self.give_reduce(handle));
            self.states_and_temporary(size, first);
            self.main.allocator.give(gradients);
            return;
        }
        part.into_iter().for_each(|handle| self.give_reduce(handle));
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
