//! DeepSpeed's stage 3. A coordinator fetches tensors in the order in which the first step used them,
//! some ahead; gradients go through a bucket into flat parts; the step goes group by group.
//!
//! The rules are those of `partitioned_param_coordinator.py`, `partition_parameters.py` and
//! `stage3.py`; pools of traced runs agree.

use super::super::allocator::Handle;
use super::Streams;
use super::zero::Bucket;

/// DeepSpeed's default of `stage3_max_reuse_distance`, which nobody changes alone.
const REUSE_DISTANCE: f64 = 1e9;

/// Where a tensor is.
#[derive(Clone, Copy)]
enum Place {
    /// In shards only.
    Away,
    /// Whole, in a buffer of its own.
    Here(Handle),
    /// On its way in a buffer shared with others.
    Coming(usize),
}

/// What has been fetched, and what comes next.
pub(super) struct Coordinator {
    /// Elements and bytes an element.
    tensors: Vec<(f64, f64)>,
    /// Tensors that one layer fetches.
    a_layer: usize,
    /// Tensors in the order of a step's uses.
    order: Vec<usize>,
    /// The use that comes next, and the first that was not yet considered for fetching ahead.
    now: usize,
    ahead: usize,
    places: Vec<Place>,
    /// The last use for which a tensor was fetched or found there.
    fetched_for: Vec<usize>,
    /// Shared buffers, and the tensors that were not used since: its handle lives until all are.
    buffers: Vec<(Option<Handle>, Vec<usize>)>,
    /// Elements that are there or on their way.
    available: f64,
    /// Is the order known? In the first step nothing is fetched ahead and nothing stays.
    traced: bool,
    live: f64,
    bucket: f64,
}

impl Coordinator {
    pub(super) fn of(streams: &Streams<'_>) -> Coordinator {
        let plan = streams.plan;
        let zero = plan.run.parallelism.zero.as_ref();
        let persistent = zero.map_or(1e5, |z| z.persistence_threshold.value as f64);
        let inventory = &plan.shape.inventory;
        let mut tensors = vec![(inventory.embedding() as f64, streams.compute)];
        let mut layers: Vec<Vec<usize>> = Vec::new();
        let of_layer: Vec<(f64, f64)> =
            streams.layer.fetched.iter().filter(|t| t.0 > persistent).copied().collect();
        for _ in 0..streams.layers {
            let first = tensors.len();
            tensors.extend(&of_layer);
            layers.push((first..tensors.len()).collect());
        }
        let head = if inventory.head_is_tied() {
            0
        } else {
            tensors.push((inventory.head() as f64, streams.compute));
            tensors.len() - 1
        };
        let recomputed = !streams.main.checkpoint.is_empty();
        let mut order = vec![0];
        order.extend(layers.iter().flatten());
        order.extend([head, head]);
        for layer in layers.iter().rev() {
            if recomputed {
                order.extend(layer);
            }
            order.extend(layer.iter().rev());
        }
        if plan.adapters.is_none() {
            order.push(0);
        }
        Coordinator {
            places: vec![Place::Away; tensors.len()],
            fetched_for: vec![0; tensors.len()],
            tensors,
            a_layer: layers.first().map_or(0, Vec::len),
            order,
            now: 0,
            ahead: 0,
            buffers: Vec::new(),
            available: 0.0,
            traced: false,
            live: zero.map_or(1e9, |z| z.max_live_parameters.value as f64),
            bucket: zero.map_or(5e7, |z| z.prefetch_bucket.value as f64),
        }
    }

    fn tensor(&self, index: usize) -> (f64, f64) {
        self.tensors.get(index).copied().unwrap_or_default()
    }

    fn place(&self, index: usize) -> Place {
        self.places.get(index).copied().unwrap_or(Place::Away)
    }

    fn put(&mut self, index: usize, place: Place) {
        if let Some(slot) = self.places.get_mut(index) {
            *slot = place;
        }
    }

    fn fetched(&self, index: usize) -> usize {
        self.fetched_for.get(index).copied().unwrap_or(0)
    }

    fn note(&mut self, index: usize, use_at: usize) {
        if let Some(slot) = self.fetched_for.get_mut(index) {
            *slot = (*slot).max(use_at);
        }
    }

    /// Does a tensor stay after its use at `now − 1`: because fetching ahead counted on it, or because
    /// it is used again soon?
    fn stays(&self, index: usize) -> bool {
        if !self.traced {
            return false;
        }
        let mut passed = 0.0;
        let later = self.order.get(self.now..).unwrap_or_default().iter();
        self.fetched(index) >= self.now
            || later
                .map_while(|next| {
                    let before = passed;
                    passed += self.tensor(*next).0;
                    (before < REUSE_DISTANCE).then_some(*next)
                })
                .any(|next| next == index)
    }
}

impl Streams<'_> {
    /// Shards in one flat buffer, masters group by group, the bucket and the gradients' parts. A
    /// buffer for the first, empty step of the optimizer is given back.
    pub(super) fn load_zero3(&mut self) {
        self.take_weights(self.shards);
        let groups = self.groups();
        if self.compute < 4.0 && !self.host.1 {
            self.main.take_all(&groups.iter().map(|group| (4.0 * group) as u64).collect::<Vec<_>>());
            let largest = groups.iter().copied().fold(0.0, f64::max);
            let passing = self.main.allocator.take((4.0 * largest) as u64);
            self.main.allocator.give(passing);
        }
        let (bucket, _) = self.buckets();
        self.main.allocator.take((self.compute * bucket) as u64);
        if !self.host.1 {
            self.main.allocator.take((self.compute * self.trained() / self.shards) as u64);
        }
        self.main.allocator.highest();
    }

    /// Elements of the groups that the step takes one after another: whole tensors' parts, closed
    /// when `sub_group_size` is reached.
    fn groups(&self) -> Vec<f64> {
        let zero = self.plan.run.parallelism.zero.as_ref();
        let most = zero.map_or(1e9, |z| z.sub_group.value as f64).max(1.0);
        if self.plan.adapters.is_some() {
            return vec![self.trained() / self.shards];
        }
        let (mut groups, mut open) = (Vec::new(), 0.0);
        // The embedding comes first, the head last.
        let inventory = &self.plan.shape.inventory;
        let head = if inventory.head_is_tied() { 0.0 } else { inventory.head() as f64 };
        let first = self.root.trained - head;
        let in_layers = self.layer.tensors.iter().map(|t| t.0).cycle();
        let in_layers = in_layers.take(self.layer.tensors.len() * self.layers as usize);
        for elements in [first].into_iter().chain(in_layers).chain([head]) {
            open += elements / self.shards;
            if open >= most && groups.len() < 512 {
                groups.push(open);
                open = 0.0;
            }
        }
        groups.push(open);
        groups
    }

    pub(super) fn step_zero3(&mut self, coordinator: &mut Coordinator, first: bool) {
        let body = self.main.take_scaled(&self.main.body.clone());
        let each = coordinator.a_layer;
        self.used(coordinator, 1);
        let mut kept = Vec::new();
        for _ in 0..self.layers {
            self.used(coordinator, each);
            kept.push(self.forward());
        }
        self.used(coordinator, 1);
        let mut head = self.main.loss();
        let mut stream = (!head.is_empty()).then(|| head.remove(0));
        self.used(coordinator, 1);
        let mut bucket = Bucket::default();
        let waits = self.head_gradient(head, &mut bucket);
        for _ in 0..self.layers {
            let own = kept.pop().unwrap_or_default();
            if !self.main.checkpoint.is_empty() {
                self.used(coordinator, each);
            }
            let working = self.layer_backward();
            self.used(coordinator, each);
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
            let embedding = self.plan.shape.inventory.embedding() as f64;
            self.used(coordinator, 1);
            let gradient = self.embedding_gradient(waits);
            self.main.allocator.give(gradient);
            self.bucketed(embedding, &mut bucket);
            self.flush(&mut bucket);
        }
        self.main.give_all(body);
        self.end_of_step(coordinator);
        if !self.host.1 {
            for group in self.groups() {
                self.step_of_group(group, first);
            }
        }
        self.release_held();
    }

    /// A group's gradients are put together in their dtype, then cast.
    fn step_of_group(&mut self, elements: f64, first: bool) {
        let together = self.main.allocator.take((self.compute * elements) as u64);
        let size = (4.0 * elements) as u64;
        let gradients = self.main.allocator.take(if self.compute < 4.0 { size } else { 0 });
        self.main.allocator.give(together);
        self.states_and_temporary(size, first);
        self.main.allocator.give(gradients);
    }

    /// The next `count` uses: each tensor is fetched, others ahead of it, and let go.
    fn used(&mut self, coordinator: &mut Coordinator, count: usize) {
        for _ in 0..count {
            let Some(index) = coordinator.order.get(coordinator.now).copied() else { return };
            self.fetch(coordinator, index);
            coordinator.now += 1;
            if !coordinator.stays(index) {
                self.let_go(coordinator, index);
            }
        }
    }

    fn fetch(&mut self, coordinator: &mut Coordinator, index: usize) {
        if let Place::Away = coordinator.place(index) {
            self.bring(coordinator, &[index]);
        }
        if let Place::Coming(buffer) = coordinator.place(index) {
            self.arrive(coordinator, buffer);
        }
        self.waited_for(coordinator, index);
        if !coordinator.traced {
            return;
        }
        if coordinator.ahead <= coordinator.now {
            coordinator.ahead = coordinator.now + 1;
            coordinator.note(index, coordinator.now);
        }
        let most = (coordinator.live - coordinator.available).min(coordinator.bucket);
        let (mut group, mut elements) = (Vec::new(), 0.0);
        while elements < most {
            let Some(next) = coordinator.order.get(coordinator.ahead).copied() else { break };
            coordinator.note(next, coordinator.ahead);
            if matches!(coordinator.place(next), Place::Away) && !group.contains(&next) {
                group.push(next);
                elements += coordinator.tensor(next).0;
            }
            coordinator.ahead += 1;
        }
        self.bring(coordinator, &group);
    }

    /// One tensor gets a buffer of its own, several share one.
    fn bring(&mut self, coordinator: &mut Coordinator, group: &[usize]) {
        let bytes = |index: &usize| {
            let (elements, each) = coordinator.tensor(*index);
            elements * each
        };
        let size = group.iter().map(bytes).sum::<f64>() as u64;
        let elements: f64 = group.iter().map(|index| coordinator.tensor(*index).0).sum();
        let Some(first) = group.first() else { return };
        coordinator.available += elements;
        let handle = self.take_gather(size);
        if group.len() == 1 {
            coordinator.put(*first, Place::Here(handle));
            return;
        }
        for index in group {
            coordinator.put(*index, Place::Coming(coordinator.buffers.len()));
        }
        coordinator.buffers.push((Some(handle), group.to_vec()));
    }

    /// All tensors of a shared buffer are copied out of it.
    fn arrive(&mut self, coordinator: &mut Coordinator, buffer: usize) {
        let Some((_, group)) = coordinator.buffers.get(buffer).cloned() else { return };
        for index in group {
            let (elements, each) = coordinator.tensor(index);
            let own = self.take_gather((elements * each) as u64);
            coordinator.put(index, Place::Here(own));
        }
    }

    /// A tensor is taken out of the registry of what is on its way; the last one of a shared buffer
    /// gives that back.
    fn waited_for(&mut self, coordinator: &mut Coordinator, index: usize) {
        let holds = |(handle, waiting): &&mut (Option<Handle>, Vec<usize>)| {
            handle.is_some() && waiting.contains(&index)
        };
        let Some((handle, waiting)) = coordinator.buffers.iter_mut().find(holds) else { return };
        waiting.retain(|other| *other != index);
        if waiting.is_empty()
            && let Some(shared) = handle.take()
        {
            self.give_gather(shared);
        }
    }

    fn let_go(&mut self, coordinator: &mut Coordinator, index: usize) {
        if let Place::Here(handle) = coordinator.place(index) {
            self.give_gather(handle);
            coordinator.available -= coordinator.tensor(index).0;
            coordinator.put(index, Place::Away);
        }
    }

    /// What is left goes; the next step knows the order.
    fn end_of_step(&mut self, coordinator: &mut Coordinator) {
        for index in 0..coordinator.tensors.len() {
            if let Place::Coming(buffer) = coordinator.place(index) {
                self.arrive(coordinator, buffer);
            }
            self.waited_for(coordinator, index);
            self.let_go(coordinator, index);
        }
        coordinator.fetched_for.fill(0);
        coordinator.buffers.clear();
        (coordinator.now, coordinator.ahead, coordinator.traced) = (0, 0, true);
    }
}
