//! Pipeline stages: their layers, and how many micro-batches are in flight on each.

use super::Part;
use crate::catalog::Architecture;
use crate::run::{ModelCode, PipelineSchedule, Setting, StageLayers, TrainingRun};

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
    /// Ranks that share each expert's matrices.
    pub(crate) expert_tensor: u64,
}

impl Degrees {
    /// Of a run.
    pub(crate) fn of(run: &TrainingRun) -> Degrees {
        let p = &run.parallelism;
        let (tensor, expert) = (p.tensor.value.max(1), p.expert.value.max(1));
        // torchtitan's `expert_tensor_parallel_degree` is 1 unless set; without expert parallelism
        // its tensor ranks share the experts (`apply_moe_ep_tp`).
        let titan = run.model_code.value == ModelCode::Torchtitan && expert > 1;
        let usual = if titan { 1 } else { tensor };
        Degrees {
            tensor,
            pipeline: p.pipeline.value.max(1),
            context: p.context.value.max(1),
            expert,
            expert_tensor: p.expert_tensor.as_ref().map_or(usual, |n| n.value.max(1)),
        }
    }

    /// Ranks with the same slice of the experts, as a part of those with the same slice of the rest.
    pub(crate) fn expert_replicas(self) -> f64 {
        self.tensor as f64 / (self.expert as f64 * self.expert_tensor as f64)
    }

    /// Nothing is divided.
    pub(crate) fn one(self) -> bool {
        self.tensor.max(self.pipeline).max(self.context).max(self.expert) == 1
    }

    /// Ranks that hold the same slice: data-parallel ones, context ranks among them.
    pub(crate) fn replicas(self, gpus: u64) -> u64 {
        (gpus / self.tensor.saturating_mul(self.pipeline).max(1)).max(1)
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
    /// Its part in PyTorch's schedule; `None` without a pipeline, or in another code's.
    pub(crate) part: Option<Part>,
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
        return Ok(vec![Slice {
            name: String::new(),
            ranges,
            first: true,
            last: true,
            in_flight: 1.0,
            part: None,
        }]);
    }
    if architecture.encoder_layers > 0 {
        return Err("pipelines of encoder-decoders are not modelled yet".into());
    }
    let schedule = run.parallelism.pipeline_schedule.value;
    let chunks = chunks(run, layers);
    let pieces = stages.saturating_mul(chunks);
    if pieces > ABSURD {
        return Err(format!("{layers} layers do not fill {pieces} pipeline stages"));
    }
    let bounds = bounds(&run.parallelism.stage_layers, layers, stages, chunks)?;
    let batches = run.gradient_accumulation_steps.value.max(1);
    // PyTorch's schedules cut the micro-batches into rounds of one length.
    let group = match &run.parallelism.microbatch_group {
        Some(group) => group.value,
        None if run.model_code.value == ModelCode::Torchtitan => batches / (batches / stages).max(1),
        None => stages,
    };
    let of_stage = |stage: u64| -> Vec<(u64, u64)> {
        if schedule.is_v() {
            let mirrored = (pieces - 1).saturating_sub(stage);
            return [stage, mirrored].iter().filter_map(|i| bounds.get(*i as usize).copied()).collect();
        }
        bounds.iter().skip(stage as usize).step_by(stages as usize).copied().collect()
    };
    Ok((0..stages)
        .map(|stage| Slice {
            name: format!("pipeline stage {stage} of {stages}"),
            ranges: of_stage(stage),
            first: stage == 0,
            last: stage == if schedule.is_v() { 0 } else { stages - 1 },
            in_flight: in_flight(schedule, stage, stages, chunks, (batches, group)),
            part: (run.model_code.value == ModelCode::Torchtitan).then_some(Part {
                schedule,
                stage,
                stages,
                chunks,
                batches,
                group,
            }),
        })
        .collect())
}

/// Model chunks a rank: two for the schedules of a V, one where the schedule has one.
fn chunks(run: &TrainingRun, layers: u64) -> u64 {
    let parallel = &run.parallelism;
    let schedule = parallel.pipeline_schedule.value;
    if schedule.is_v() {
        return 2;
    }
    if !schedule.has_chunks() {
        return 1;
    }
    let stages = parallel.pipeline.value.max(1);
    let (embedding, head) = parallel.stage_layers.weights();
    if let Some(starts) = &parallel.stage_layers.starts {
        return ((starts.value.len() as u64 + 1) / stages).max(1);
    }
    match &parallel.stage_layers.each {
        Some(each) => {
            let counted = layers.saturating_add(embedding).saturating_add(head);
            (counted.div_ceil(each.value.max(1)) / stages).max(1)
        }
        None => parallel.virtual_stages.value.max(1),
    }
}

/// The layers of each chunk, in the order of the model.
///
/// Megatron's first and last rank may have a number of their own; elsewhere embedding and head count
/// for some layers, and what is left over goes to the earlier chunks, one layer each (torchtitan's
/// `generate_llm_fqn_per_model_part`, Megatron's `get_num_layers_to_build`).
fn bounds(given: &StageLayers, layers: u64, stages: u64, chunks: u64) -> Result<Vec<(u64, u64)>, String> {
    let pieces = stages * chunks;
    let unfilled = || format!("{layers} layers do not fill {pieces} pipeline stages");
    let sizes: Vec<u64> = if let Some(starts) = &given.starts {
        let starts = starts.value.iter().copied().chain([layers]);
        let mut before = 0;
        let sizes: Vec<u64> = starts
            .map(|start| {
                let size = start.min(layers).saturating_sub(before);
                before = before.max(start.min(layers));
                size
            })
            .collect();
        if sizes.len() as u64 != pieces {
            return Err(format!("{} model parts are no {pieces} pipeline stages", sizes.len()));
        }
        sizes
    } else if given.first.is_some() || given.last.is_some() {
        let of = |end: &Option<Setting<u64>>| end.as_ref().map_or(0, |n| n.value);
        let ends = u64::from(given.first.is_some()) + u64::from(given.last.is_some());
        let left =
            layers.checked_sub(of(&given.first).saturating_add(of(&given.last))).ok_or_else(unfilled)?;
        let middle = left.checked_div(stages.saturating_sub(ends)).unwrap_or(0);
        (0..pieces)
            .map(|piece| match piece % stages {
                0 if given.first.is_some() => of(&given.first) / chunks,
                stage if stage + 1 == stages && given.last.is_some() => of(&given.last) / chunks,
                _ => middle / chunks,
            })
            .collect()
    } else {
        let (embedding, head) = given.weights();
        let counted = layers.saturating_add(embedding).saturating_add(head);
        if pieces > counted {
            return Err(unfilled());
        }
        let mut sizes: Vec<u64> =
            (0..pieces).map(|piece| counted / pieces + u64::from(piece < counted % pieces)).collect();
        if let Some(size) = sizes.first_mut() {
            *size = size.checked_sub(embedding).ok_or_else(unfilled)?;
        }
        if let Some(size) = sizes.last_mut() {
            *size = size.checked_sub(head).ok_or_else(unfilled)?;
        }
        sizes
    };
    let mut start = 0;
    Ok(sizes
        .into_iter()
        .map(|size| {
            let range = (start, start + size);
            start += size;
            range
        })
        .collect())
}

/// One-forward-one-backward starts `p − i` micro-batches before the first backward of stage `i`;
/// interleaved, `2(p − i − 1) + (v − 1)g + 1` chunks of a `v`-th of its layers, `g` micro-batches going
/// through one chunk after the other (Narayanan et al. 2021, section 2.2; Megatron core's warm-up count); all-forward-all-backward every micro-batch.
/// Those that put off the gradients of weights hold what these need: `v·p` chunks on every stage, and
/// overlapped in a V one more of `2p` (PyTorch's `schedules.py`, its operations counted).
fn in_flight(
    schedule: PipelineSchedule,
    stage: u64,
    stages: u64,
    chunks: u64,
    (batches, group): (u64, u64),
) -> f64 {
    let of_chunks = |started: u64| started.min(batches.saturating_mul(chunks)) as f64 / chunks as f64;
    match schedule {
        PipelineSchedule::AllForwardAllBackward => batches as f64,
        PipelineSchedule::OneForwardOneBackward => batches.min(stages - stage) as f64,
        PipelineSchedule::Interleaved => of_chunks(2 * (stages - stage - 1) + (chunks - 1) * group + 1),
        PipelineSchedule::InterleavedZeroBubble => of_chunks((chunks - 1) * group + stages),
        PipelineSchedule::ZeroBubbleV => of_chunks(chunks * stages),
        PipelineSchedule::DualPipeV => of_chunks(chunks * stages + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use PipelineSchedule::{
        AllForwardAllBackward, DualPipeV, Interleaved, InterleavedZeroBubble, OneForwardOneBackward,
        ZeroBubbleV,
    };

    #[test]
    fn the_first_stage_holds_the_most() {
        let counts: Vec<f64> = (0..4).map(|i| in_flight(OneForwardOneBackward, i, 4, 1, (32, 4))).collect();
        assert_eq!(counts, [4.0, 3.0, 2.0, 1.0]);
        assert_eq!(in_flight(OneForwardOneBackward, 0, 4, 1, (2, 4)), 2.0, "no more than there are");
        assert_eq!(in_flight(AllForwardAllBackward, 3, 4, 1, (32, 4)), 32.0);
        // 1 + (p − 1)/(p·v) of the model's activations on stage 0: Korthikanti et al. 2022.
        assert_eq!(in_flight(Interleaved, 0, 4, 2, (32, 4)), 11.0 / 2.0);
        assert_eq!(in_flight(Interleaved, 0, 4, 3, (10, 5)), 17.0 / 3.0, "groups of five");
    }
    #[test]
    fn schedules_without_bubbles_hold_as_much_on_every_stage() {
        for stage in 0..4 {
            assert_eq!(in_flight(InterleavedZeroBubble, stage, 4, 2, (32, 4)), 4.0);
            assert_eq!(in_flight(ZeroBubbleV, stage, 4, 2, (32, 4)), 4.0);
            assert_eq!(in_flight(DualPipeV, stage, 4, 2, (32, 4)), 4.5);
        }
    }

    fn sizes(given: &StageLayers, layers: u64, stages: u64, chunks: u64) -> Result<Vec<u64>, String> {
        Ok(bounds(given, layers, stages, chunks)?.iter().map(|(from, to)| to - from).collect())
    }

    fn set<T>(value: T) -> Option<Setting<T>> {
        Some(Setting::assumed(value, "a test"))
    }

    #[test]
    fn the_ends_may_count_for_layers() {
        let even = StageLayers::default();
        assert_eq!(sizes(&even, 126, 8, 1), Ok(vec![16, 16, 16, 16, 16, 16, 15, 15]));
        // torchtitan's default: 126 layers and two ends are 8 times 16.
        let ends = StageLayers { embedding: set(1), head: set(1), ..StageLayers::default() };
        assert_eq!(sizes(&ends, 126, 8, 1), Ok(vec![15, 16, 16, 16, 16, 16, 16, 15]));
        assert_eq!(sizes(&ends, 30, 2, 2), Ok(vec![7, 8, 8, 7]));
        let heavy = StageLayers { embedding: set(9), ..StageLayers::default() };
        assert!(sizes(&heavy, 16, 8, 1).is_err(), "the first stage would have less than nothing");
    }

    #[test]
    fn the_first_and_last_stage_may_have_their_own_number() {
        let given = StageLayers { first: set(4), last: set(6), ..StageLayers::default() };
        assert_eq!(sizes(&given, 26, 4, 1), Ok(vec![4, 8, 8, 6]));
        assert_eq!(sizes(&given, 26, 4, 2), Ok(vec![2, 4, 4, 3, 2, 4, 4, 3]));
        let cut = StageLayers { starts: set(vec![3, 10]), ..StageLayers::default() };
        assert_eq!(sizes(&cut, 16, 3, 1), Ok(vec![3, 7, 6]));
        assert!(sizes(&cut, 16, 4, 1).is_err(), "three parts for four stages");
    }
}
