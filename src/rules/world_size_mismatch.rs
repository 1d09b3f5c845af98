//! Parallel degrees whose product does not divide the GPUs.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::Origin;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a number of GPUs that the product of the tensor, pipeline and context degrees does
    /// not divide, and a shard group that does not divide the data-parallel ranks.
    ///
    /// ## Why
    ///
    /// What is left after the model-parallel degrees is the data-parallel degree. A remainder
    /// stops the run when the process groups are made, after the GPUs are rented. A file whose
    /// degrees need more GPUs than were declared outside it is right for another machine: a warning.
    ///
    /// ## Example
    ///
    /// ```yaml title="sft.yaml" mark="tensor_parallel_size: >8<"
    /// base_model: meta-llama/Llama-3.1-8B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// sequence_len: 4096
    /// micro_batch_size: 1
    /// learning_rate: 2.0e-5
    /// tensor_parallel_size: 8
    /// ```
    ///
    /// ```console
    /// $ llmlint sft.yaml --gpu H100-80GB --gpus 12
    /// ```
    ///
    /// ## The fix
    ///
    /// Change the number of GPUs or a degree.
    ///
    /// ```diff title="sft.yaml"
    /// -tensor_parallel_size: 8
    /// +tensor_parallel_size: 4
    /// ```
    WorldSizeMismatch, "world-size-mismatch", Error, "the parallel degrees do not divide the GPUs"
}

impl WorldSizeMismatch {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(run) = file.run else { return };
        let parallel = &run.parallelism;
        let Some(gpus) = &parallel.gpus else { return };
        let degrees =
            [("tensor", &parallel.tensor), ("pipeline", &parallel.pipeline), ("context", &parallel.context)];
        let product: u64 = degrees.iter().map(|(_, d)| d.value.max(1)).fold(1, u64::saturating_mul);
        let written = degrees.iter().filter(|(_, d)| d.value > 1).map(|(_, d)| &d.origin);
        let mut origins: Vec<_> = vec![&gpus.origin];
        origins.extend(written);
        if gpus.value % product != 0 {
            let few = gpus.value < product && matches!(gpus.origin, Origin::Declared(_));
            let words: Vec<String> = degrees
                .iter()
                .filter(|(_, d)| d.value > 1)
                .map(|(name, d)| format!("{name} {}", d.value))
                .collect();
            let words = words.join(" × ");
            findings.push(if few {
                // The file is right as it stands: it is meant for more GPUs than were declared.
                Finding::new(
                    Self::NAME,
                    Severity::Warning,
                    place(&origins),
                    format!("the degrees need {product} GPUs ({words}), and {} are declared", gpus.value),
                )
                .help(format!("declare a multiple of {product}, as in `--gpus {product}`, or lower a degree"))
            } else {
                Finding::new(
                    Self::NAME,
                    Severity::Error,
                    place(&origins),
                    format!("{} GPUs are no multiple of {product} ({words})", gpus.value),
                )
                .note("what is left after these degrees is the data-parallel degree")
            });
            return;
        }
        // FSDP shards over the context ranks as well.
        let ranks = (gpus.value / product).saturating_mul(parallel.context.value.max(1));
        if let Some(group) = &parallel.shard_group
            && (!ranks.is_multiple_of(group.value))
        {
            findings.push(Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[&group.origin, &gpus.origin]),
                format!(
                    "a shard group of {} does not divide the {ranks} ranks that share the model",
                    group.value
                ),
            ));
        }
    }
}
