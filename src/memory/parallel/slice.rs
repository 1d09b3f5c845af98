//! Pipeline stages: their layers, and how many micro-batches are in flight on each.

use crate::catalog::Architecture;
use crate::run::{PipelineSchedule, TrainingRun};

/// The degrees of a run's model parallelism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Degrees {
    /// Tensor parallel.
    pub(crate) tensor: u64,
    /// Pipeline stages.
    pub(crate) pipeline: u64,
    /// Context parallel.
    pub(crate) context: u64,
    /// Expert parallel.
    pub(crate) expert: u64,
}

impl Degrees {
    /// Of a run.
    pub(crate) fn of(run: &TrainingRun) -> Degrees {
        let p = &run.parallelism;
        Degrees {
            tensor: p.tensor.value.max(1),
            pipeline: p.pipeline.value.max(1),
            context: p.context.value.max(1),
            expert: p.expert.value.max(1),
        }
    }

    /// Ranks that hold the same slice: data-parallel ones, context ranks among them.
    pub(crate) fn replicas(self, gpus: u64) -> u64 {
        (gpus / self.tensor.saturating_mul(self.pipeline).max(1)).max(1)
    }

    /// Kinds of process groups, each with a communicator of its own.
    pub(crate) fn communicators(self, gpus: u64) -> u64 {
        let groups = [self.tensor, self.pipeline, self.context, self.expert, self.replicas(gpus)];
        groups.iter().filter(|size| **size > 1).count() as u64
    }
}

/// What one distinct rank holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slice {
    /// `pipeline stage 1 of 4`; empty without pipeline.
    pub(crate) name: String,
    /// Ranges of layers, the first one's index and one past the last.
    pub(crate) ranges: Vec<(u64, u64)>,
    /// The embedding is here.
    pub(crate) first: bool,
    /// The last norm, the head and the loss are here.
    pub(crate) last: bool,
    /// Micro-batches whose activations of all layers here are alive at once.
    pub(crate) in_flight: f64,
}

impl Slice {
    /// Layers of this rank among `first..first + count`.
    pub(crate) fn layers_in(&self, first: u64, count: u64) -> u64 {
        let end = first.saturating_add(count);
        self.ranges.iter().map(|r| r.1.min(end).saturating_sub(r.0.max(first))).sum()
    }

    /// All its layers.
    pub(crate) fn layers(&self) -> u64 {
        self.ranges.iter().map(|r| r.1.saturating_sub(r.0)).sum()
    }
}

/// More stages than any run has: a typing error.
const ABSURD: u64 = 4096;

/// The distinct ranks of a run, in the order of the pipeline.
///
/// # Errors
/// A sentence, where a stage would have no layer.
pub(crate) fn slices(run: &TrainingRun, architecture: &Architecture) -> Result<Vec<Slice>, String> {
    let layers = architecture.layers;
    let stages = Degrees::of(run).pipeline;
    if stages == 1 {
        let ranges = vec![(0, layers)];
        return Ok(vec![Slice { name: String::new(), ranges, first: true, last: true, in_flight: 1.0 }]);
    }
    if architecture.encoder_layers > 0 {
        return Err("pipelines of encoder-decoders are not modelled yet".into());
    }
    let schedule = run.parallelism.pipeline_schedule.value;
    let chunks = match schedule {
        PipelineSchedule::Interleaved => run.parallelism.virtual_stages.value.max(1),
        _ => 1,
    };
    let pieces = stages.saturating_mul(chunks);
    if pieces > ABSURD || pieces > layers {
        return Err(format!("{layers} layers do not fill {pieces} pipeline stages"));
    }
    let mut start = 0;
    let bounds: Vec<(u64, u64)> = (0..pieces)
        .map(|piece| {
            // What is left over goes to the earlier stages, one layer each.
            let size = layers / pieces + u64::from(piece < layers % pieces);
            let range = (start, start + size);
            start += size;
            range
        })
        .collect();
    let batches = run.gradient_accumulation_steps.value.max(1);
    Ok((0..stages)
        .map(|stage| Slice {
            name: format!("pipeline stage {stage} of {stages}"),
            ranges: bounds.iter().skip(stage as usize).step_by(stages as usize).copied().collect(),
            first: stage == 0,
            last: stage + 1 == stages,
            in_flight: in_flight(schedule, stage, stages, chunks, batches),
        })
        .collect())
}

/// One-forward-one-backward starts `p − i` micro-batches before the first backward of stage `i`;
/// interleaved, `2(p − i − 1) + (v − 1)p + 1` chunks of a `v`-th of its layers (Narayanan et al.
/// 2021, section 2.2; Megatron core's warm-up count); all-forward-all-backward every micro-batch.
fn in_flight(schedule: PipelineSchedule, stage: u64, stages: u64, chunks: u64, batches: u64) -> f64 {
    match schedule {
        PipelineSchedule::AllForwardAllBackward => batches as f64,
        PipelineSchedule::OneForwardOneBackward => batches.min(stages - stage) as f64,
        PipelineSchedule::Interleaved => {
            let started = 2 * (stages - stage - 1) + (chunks - 1) * stages + 1;
            started.min(batches.saturating_mul(chunks)) as f64 / chunks as f64
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PipelineSchedule::{AllForwardAllBackward, Interleaved, OneForwardOneBackward};

    #[test]
    fn the_first_stage_holds_the_most() {
        let counts: Vec<f64> = (0..4).map(|i| in_flight(OneForwardOneBackward, i, 4, 1, 32)).collect();
        assert_eq!(counts, [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(in_flight(OneForwardOneBackward, 0, 4, 1, 2), 2.0, "no more than there are");
        assert_eq!(in_flight(AllForwardAllBackward, 3, 4, 1, 32), 32.0);
        // 1 + (p − 1)/(p·v) of the model's activations on stage 0: Korthikanti et al. 2022.
        assert_eq!(in_flight(Interleaved, 0, 4, 2, 32), 11.0 / 2.0);
    }
}
