//! Layers that the pipeline stages cannot share out.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::ModelCode;

declare_rule! {
    /// ## What it does
    ///
    /// Finds more pipeline stages than layers, and, for Megatron's modelling code, layers that are
    /// no multiple of the stages.
    ///
    /// ## Why
    ///
    /// Every stage needs at least one layer, and Megatron insists on the same number in each
    /// unless the first and last are given their own. The run stops at start-up, after the GPUs
    /// are rented.
    ///
    /// ## Example
    ///
    /// ```yaml title="run.yaml" mark="pipeline: >8<"
    /// llmlint: 1
    /// model: { id: meta-llama/Llama-3.2-3B }
    /// training:
    ///   model_code: megatron
    ///   micro_batch_size: 1
    ///   sequence_length: 4096
    /// parallelism:
    ///   gpus: 8
    ///   pipeline: 8
    /// ```
    ///
    /// ```console
    /// $ llmlint run.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Use a number of stages that divides the layers.
    ///
    /// ```diff title="run.yaml"
    /// -  pipeline: 8
    /// +  pipeline: 4
    /// ```
    LayersNotDivisibleByPipeline, "layers-not-divisible-by-pipeline", Error,
    "the pipeline stages cannot share out the layers"
}

/// Stages that are tried for the help: no loop follows a number of the file.
const MOST: u64 = 4097;

impl LayersNotDivisibleByPipeline {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(architecture)) = (file.run, file.architecture) else { return };
        let parallel = &run.parallelism;
        let schedule = parallel.pipeline_schedule.value;
        let chunks = if schedule.is_v() { 2 } else { parallel.virtual_stages.value.max(1) };
        let stages = parallel.pipeline.value.saturating_mul(chunks);
        let given = &parallel.stage_layers;
        // Parts of their own are the file's affair.
        if parallel.pipeline.value < 2 || given.starts.is_some() || given.each.is_some() {
            return;
        }
        let (embedding, head) = given.weights();
        let ends = [&given.first, &given.last];
        let set: u64 =
            ends.iter().filter_map(|end| end.as_ref()).fold(0, |sum, n| sum.saturating_add(n.value));
        let own = ends.iter().filter(|end| end.is_some()).count() as u64;
        let left = stages.saturating_sub(own.saturating_mul(chunks));
        let layers = architecture.layers.saturating_add(embedding).saturating_add(head);
        let uneven = run.model_code.value == ModelCode::Megatron
            && layers.saturating_sub(set).checked_rem(left).is_some_and(|rest| rest != 0);
        if stages <= layers && !uneven {
            return;
        }
        let what = match embedding.saturating_add(head) {
            0 => format!("{layers} layers"),
            ends => format!("{} layers, and {ends} that embedding and head count for,", architecture.layers),
        };
        let fewer =
            (1..stages.min(layers.saturating_add(1)).min(MOST)).rev().find(|s| layers % s == 0).unwrap_or(1);
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[&run.parallelism.pipeline.origin, &run.model.origin]),
                format!("{what} cannot be shared out over {stages} pipeline stages"),
            )
            .help(format!("{fewer} stages share them out evenly")),
        );
    }
}
