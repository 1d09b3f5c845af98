//! Sequences that context and tensor parallelism cannot cut into equal pieces.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::ModelCode;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a sequence length that is no multiple of what the parallel degrees need: twice the
    /// context-parallel degree (each rank takes one piece from the front and one from the back,
    /// so that causal attention costs all ranks the same), times the tensor-parallel degree where
    /// the sequence is split over it too.
    ///
    /// ## Why
    ///
    /// torchtitan and Megatron assert it when the model is built, after the GPUs are rented.
    /// Frameworks that pad the sequence themselves are left alone.
    ///
    /// ## Example
    ///
    /// ```toml title="llama3_8b.toml" mark="8200"
    /// [model]
    /// name = "llama3"
    /// flavor = "8B"
    ///
    /// [training]
    /// local_batch_size = 1
    /// seq_len = 8200
    ///
    /// [parallelism]
    /// data_parallel_shard_degree = 1
    /// context_parallel_degree = 8
    /// ```
    ///
    /// ```console
    /// $ llmlint llama3_8b.toml --gpu H100-80GB --gpus 8
    /// ```
    ///
    /// ## The fix
    ///
    /// Round the length to the next multiple.
    ///
    /// ```diff title="llama3_8b.toml"
    /// -seq_len = 8200
    /// +seq_len = 8208
    /// ```
    SequenceNotDivisibleByContextParallel, "sequence-not-divisible-by-context-parallel", Error,
    "the sequence cannot be cut into equal pieces"
}

impl SequenceNotDivisibleByContextParallel {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let Some(run) = file.run else { return };
        let (context, tensor) = (run.parallelism.context.value, run.parallelism.tensor.value);
        let pieces = match run.model_code.value {
            ModelCode::Torchtitan if context > 1 || tensor > 1 => {
                tensor.saturating_mul(context).saturating_mul(2)
            }
            ModelCode::Megatron if context > 1 => context.saturating_mul(2),
            _ => return,
        };
        let length = run.sequence_length.value;
        if pieces == 0 || length == 0 || length % pieces == 0 {
            return;
        }
        let next = length.div_ceil(pieces).saturating_mul(pieces);
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[
                    &run.sequence_length.origin,
                    &run.parallelism.context.origin,
                    &run.parallelism.tensor.origin,
                ]),
                format!("a sequence of {length} tokens is no multiple of {pieces}"),
            )
            .note(format!(
                "context parallelism over {context} and tensor parallelism over {tensor} ranks need that"
            ))
            .help(format!("{next} is the next multiple")),
        );
    }
}
