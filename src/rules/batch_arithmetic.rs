//! A global batch that its parts do not make.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};

declare_rule! {
    /// ## What it does
    ///
    /// Finds a global batch that is not micro-batch × accumulation steps × data-parallel ranks in
    /// a file of our own format. Each framework's own arithmetic is checked by its `-refuses` rule.
    ///
    /// ## Why
    ///
    /// Memory follows the micro-batch, the learning rate the global batch: if they do not agree,
    /// one of the figures is not of the run that was meant.
    ///
    /// ## Example
    ///
    /// ```yaml title="run.yaml" mark="30"
    /// llmlint: 1
    /// model: { id: meta-llama/Llama-3.2-1B }
    /// training:
    ///   sequence_length: 4096
    ///   micro_batch_size: 4
    ///   gradient_accumulation_steps: 2
    ///   global_batch_size: 30
    /// parallelism: { gpus: 4, data_parallel: ddp }
    /// ```
    ///
    /// ```console
    /// $ llmlint run.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// Change one of them.
    ///
    /// ```diff title="run.yaml"
    /// -  global_batch_size: 30
    /// +  global_batch_size: 32
    /// ```
    BatchArithmetic, "batch-arithmetic", Error, "the global batch is not the product of its parts"
}

impl BatchArithmetic {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(run) = file.run else { return };
        let (Some(global), Some(gpus)) = (&run.global_batch_size, &run.parallelism.gpus) else { return };
        let parallel = &run.parallelism;
        // Tensor, pipeline and context ranks work on the same sequences.
        let model: u64 = [&parallel.tensor, &parallel.pipeline, &parallel.context]
            .into_iter()
            .fold(1, |product, degree| product.saturating_mul(degree.value.max(1)));
        let micro = run.micro_batch_size.value.max(1);
        if gpus.value % model != 0 {
            return;
        }
        let data = (gpus.value / model).max(1);
        let steps = run.gradient_accumulation_steps.value.max(1);
        let whole = micro.saturating_mul(steps).saturating_mul(data);
        if global.value == whole {
            return;
        }
        let at = place(&[&global.origin, &run.micro_batch_size.origin]);
        let message = format!(
            "a global batch of {} is not micro-batch {micro} × {steps} steps × {data} data-parallel ranks = {whole}",
            global.value
        );
        findings.push(Finding::new(Self::NAME, Severity::Error, at, message));
    }
}
