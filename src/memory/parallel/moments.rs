//! What is alive on a rank as its schedule goes: PyTorch's orders of forwards and backwards
//! (`torch/distributed/pipelining/schedules.py`), run through once.

use crate::run::PipelineSchedule;

/// One rank's part in a schedule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Part {
    pub(crate) schedule: PipelineSchedule,
    /// The rank and how many there are.
    pub(crate) stage: u64,
    pub(crate) stages: u64,
    /// Model chunks of a rank.
    pub(crate) chunks: u64,
    /// Micro-batches of a step.
    pub(crate) batches: u64,
    /// Micro-batches that go through a chunk before the next has its turn.
    pub(crate) group: u64,
}

/// A backward begins.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Moment {
    /// The chunk that goes backward.
    pub(crate) chunk: usize,
    /// Micro-batches of each chunk that wait for their backward, this one included.
    pub(crate) in_flight: Vec<u64>,
    /// Micro-batches of each chunk that have gone backward.
    pub(crate) done: Vec<u64>,
    /// Micro-batches of each chunk that have given their input's gradient, and not yet the weights'.
    pub(crate) put_off: Vec<u64>,
    /// This backward gives its input's gradient alone.
    pub(crate) in_halves: bool,
    /// Micro-batches that go through each.
    pub(crate) batches: u64,
}

/// Steps that are run through: what comes after repeats them.
const LONGEST: u64 = 1 << 14;

#[derive(Clone, Copy)]
enum Step {
    Forward(u64),
    Backward(u64),
    /// The input's gradient alone.
    Input(u64),
    /// The weights' gradients, which were put off.
    Weights(u64),
}

impl Part {
    /// Index of a chunk in the whole model.
    pub(crate) fn piece(&self, chunk: u64) -> u64 {
        match (self.schedule.is_v(), chunk) {
            (true, 1) => (2 * self.stages - 1).saturating_sub(self.stage),
            _ => self.stage + chunk * self.stages,
        }
    }

    /// Is a chunk the model's last?
    pub(crate) fn ends(&self, chunk: u64) -> bool {
        self.piece(chunk) + 1 == self.stages * self.chunks
    }

    /// Several chunks are run by PyTorch's general runtime, one by its schedule's own loop.
    pub(crate) fn looped(&self) -> bool {
        self.chunks > 1
    }

    /// Calls `look` as each backward begins.
    pub(crate) fn each(&self, mut look: impl FnMut(&Moment)) {
        let chunks = self.chunks as usize;
        let mut batches = self.batches.min(LONGEST / self.chunks.max(1)).max(1);
        if self.schedule == PipelineSchedule::ZeroBubbleV {
            // No fewer than fill the V.
            batches = batches.max(2 * self.stages - 1);
        }
        let mut now = Moment {
            chunk: 0,
            in_flight: vec![0; chunks],
            done: vec![0; chunks],
            put_off: vec![0; chunks],
            in_halves: false,
            batches,
        };
        // The first stage has no input to give a gradient of: its backward is whole, and late.
        let whole = |chunk: u64| self.piece(chunk) == 0;
        let mut take = |step: Step| match step {
            Step::Forward(chunk) => add(&mut now.in_flight, chunk),
            Step::Input(chunk) if whole(chunk) => {}
            Step::Backward(chunk) | Step::Input(chunk) => {
                now.chunk = chunk as usize;
                now.in_halves = matches!(step, Step::Input(_));
                look(&now);
                if now.in_halves {
                    add(&mut now.put_off, chunk);
                } else {
                    take_one(&mut now.in_flight, chunk);
                    add(&mut now.done, chunk);
                }
            }
            Step::Weights(chunk) => {
                if whole(chunk) {
                    (now.chunk, now.in_halves) = (chunk as usize, false);
                    look(&now);
                } else {
                    take_one(&mut now.put_off, chunk);
                }
                take_one(&mut now.in_flight, chunk);
                add(&mut now.done, chunk);
            }
        };
        let all = batches * self.chunks;
        match self.schedule {
            PipelineSchedule::AllForwardAllBackward => {
                for chunk in 0..self.chunks {
                    (0..batches).for_each(|_| take(Step::Forward(chunk)));
                }
                for chunk in (0..self.chunks).rev() {
                    (0..batches).for_each(|_| take(Step::Backward(chunk)));
                }
            }
            PipelineSchedule::OneForwardOneBackward => {
                let ahead = batches.min(self.stages - self.stage);
                (0..ahead).for_each(|_| take(Step::Forward(0)));
                for batch in 0..batches {
                    take(Step::Backward(0));
                    if ahead + batch < batches {
                        take(Step::Forward(0));
                    }
                }
            }
            PipelineSchedule::Interleaved | PipelineSchedule::InterleavedZeroBubble => {
                let late = self.schedule == PipelineSchedule::InterleavedZeroBubble;
                let group = self.group.clamp(1, batches);
                let away = (self.stages - 1 - self.stage) * if late { 1 } else { 2 };
                let ahead = all.min((self.chunks - 1) * group + away);
                // Gradients of weights come as many backwards later as the rank's number.
                let lag = if late { self.stage } else { 0 };
                let forward = |step: u64| Step::Forward((step / group) % self.chunks);
                let chunk = |step: u64| self.chunks - 1 - (step / group) % self.chunks;
                (0..ahead).for_each(|step| take(forward(step)));
                for step in 0..all + lag {
                    if ahead + step < all {
                        take(forward(ahead + step));
                    }
                    match late {
                        false => take(Step::Backward(chunk(step))),
                        true if step < all => take(Step::Input(chunk(step))),
                        true => {}
                    }
                    if late && step >= lag {
                        take(Step::Weights(chunk(step - lag)));
                    }
                }
            }
            PipelineSchedule::ZeroBubbleV => self.zero_bubble_v(batches, &mut take),
            PipelineSchedule::DualPipeV => {
                // The first chunk runs ahead as far as the V is deep; the second follows on the way up.
                let first = (2 * self.stages - self.stage).min(batches);
                let second = (self.stage + 1).min(batches);
                (0..first).for_each(|_| take(Step::Forward(0)));
                (0..second).for_each(|_| take(Step::Forward(1)));
                for batch in 0..batches {
                    take(Step::Backward(1));
                    if second + batch < batches {
                        take(Step::Forward(1));
                    }
                    take(Step::Backward(0));
                    if first + batch < batches {
                        take(Step::Forward(0));
                    }
                }
            }
        }
    }

    /// `ScheduleZBVZeroBubble`.
    fn zero_bubble_v(&self, all: u64, take: &mut impl FnMut(Step)) {
        let up = self.stages - self.stage;
        let (mut ahead, mut behind, mut first, mut second) = (2 * up - 1, 0, 0, 0);
        (0..ahead).for_each(|_| take(Step::Forward(0)));
        for _ in 0..self.stage {
            take(Step::Forward(1));
            take(Step::Forward(0));
            (ahead, behind) = (ahead + 1, behind + 1);
        }
        for _ in 0..up {
            [Step::Forward(1), Step::Input(1), Step::Weights(1)].into_iter().for_each(&mut *take);
            (behind, second) = (behind + 1, second + 1);
        }
        while behind < ahead || ahead < all {
            if ahead < all {
                take(Step::Forward(0));
                ahead += 1;
            }
            [Step::Input(0), Step::Weights(0), Step::Forward(1), Step::Input(1), Step::Weights(1)]
                .into_iter()
                .for_each(&mut *take);
            (first, behind, second) = (first + 1, behind + 1, second + 1);
        }
        let (mut late_first, late_second) = (first, second);
        for _ in 0..self.stage {
            [Step::Input(0), Step::Input(1)].into_iter().for_each(&mut *take);
            (first, second) = (first + 1, second + 1);
        }
        for _ in 0..up {
            [Step::Input(0), Step::Weights(0)].into_iter().for_each(&mut *take);
            (first, late_first) = (first + 1, late_first + 1);
        }
        (late_second..second).for_each(|_| take(Step::Weights(1)));
        (late_first..first).for_each(|_| take(Step::Weights(0)));
    }
}

fn add(counts: &mut [u64], chunk: u64) {
    if let Some(count) = counts.get_mut(chunk as usize) {
        *count += 1;
    }
}

fn take_one(counts: &mut [u64], chunk: u64) {
    if let Some(count) = counts.get_mut(chunk as usize) {
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PipelineSchedule::{AllForwardAllBackward, Interleaved, OneForwardOneBackward};

    fn part(schedule: PipelineSchedule, stage: u64, chunks: u64, batches: u64) -> Part {
        Part { schedule, stage, stages: 4, chunks, batches, group: 4 }
    }

    #[test]
    fn gradients_of_weights_wait_on_the_last_rank_of_a_v() {
        // PyTorch's own order, four ranks and eight micro-batches: ... 3I7 3W4 4W5 4W6 4W7 3W5 3W6 3W7.
        let all = moments(part(PipelineSchedule::ZeroBubbleV, 3, 2, 8));
        let most = all.iter().map(|m| m.put_off.iter().sum::<u64>() + u64::from(m.in_halves)).max();
        assert_eq!(most, Some(7));
        let flying = all.iter().map(|m| m.in_flight.iter().sum::<u64>()).max();
        assert_eq!(flying, Some(8));
        let late = moments(part(PipelineSchedule::InterleavedZeroBubble, 3, 2, 8));
        let most = late.iter().map(|m| m.put_off.iter().sum::<u64>() + u64::from(m.in_halves)).max();
        assert_eq!(most, Some(4));
    }

    fn moments(part: Part) -> Vec<Moment> {
        let mut all = Vec::new();
        part.each(|moment| all.push(moment.clone()));
        all
    }

    #[test]
    fn the_second_backward_of_gpipe_has_one_micro_batch_less_and_gradients() {
        let all = moments(part(AllForwardAllBackward, 3, 1, 8));
        let first: Vec<_> = all.iter().take(2).map(|m| (m.in_flight[0], m.done[0])).collect();
        assert_eq!(first, [(8, 0), (7, 1)]);
    }

    #[test]
    fn one_forward_one_backward_keeps_its_number_while_there_are_more() {
        let counts: Vec<u64> =
            moments(part(OneForwardOneBackward, 1, 1, 5)).iter().map(|m| m.in_flight[0]).collect();
        assert_eq!(counts, [3, 3, 3, 2, 1]);
    }

    #[test]
    fn the_last_rank_of_an_interleaved_schedule_ends_a_micro_batch_at_once() {
        // 3F0..3F3, 7F0, 7B0: PyTorch's own order for four ranks, two chunks and eight micro-batches.
        let all = moments(part(Interleaved, 3, 2, 8));
        assert_eq!((all[0].chunk, all[0].in_flight.clone()), (1, vec![4, 1]));
        assert_eq!(all.len(), 16);
        // 0F0..0F3, 4F0..4F3, 0F4..0F6, 4B0.
        let all = moments(part(Interleaved, 0, 2, 8));
        assert_eq!((all[0].chunk, all[0].in_flight.clone()), (1, vec![7, 4]));
    }
}
