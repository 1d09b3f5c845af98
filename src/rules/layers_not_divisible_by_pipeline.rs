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

impl LayersNotDivisibleByPipeline {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(architecture)) = (file.run, file.architecture) else { return };
        let stages =
            run.parallelism.pipeline.value.saturating_mul(run.parallelism.virtual_stages.value.max(1));
        let layers = architecture.layers;
        let uneven = run.model_code.value == ModelCode::Megatron && layers % stages.max(1) != 0;
        if stages < 2 || (stages <= layers && !uneven) {
            return;
        }
        let fewer = (1..stages.min(layers + 1)).rev().find(|s| layers % s == 0).unwrap_or(1);
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[&run.parallelism.pipeline.origin, &run.model.origin]),
                format!("{layers} layers cannot be shared out over {stages} pipeline stages"),
            )
            .help(format!("{fewer} stages share them out evenly")),
        );
    }
}
