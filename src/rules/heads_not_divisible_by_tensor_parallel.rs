//! Attention heads that tensor parallelism cannot divide.

use super::{Checked, place};
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::ModelCode;

declare_rule! {
    /// ## What it does
    ///
    /// Finds a tensor-parallel degree that does not divide the model's query heads or its
    /// key/value heads.
    ///
    /// ## Why
    ///
    /// Each rank takes whole heads. A degree that does not divide them stops the run at start-up,
    /// after the GPUs are rented. Models with grouped queries have few key/value heads (often 8),
    /// which limits the degree more than the query heads do.
    ///
    /// ## Example
    ///
    /// ```toml title="llama3_8b.toml" mark="tensor_parallel_degree = >16<"
    /// [model]
    /// name = "llama3"
    /// flavor = "8B"
    ///
    /// [training]
    /// local_batch_size = 1
    /// seq_len = 8192
    ///
    /// [parallelism]
    /// tensor_parallel_degree = 16
    /// ```
    ///
    /// ```console
    /// $ llmlint llama3_8b.toml --gpu H100-80GB --gpus 16
    /// ```
    ///
    /// ## The fix
    ///
    /// Use a degree that divides both, or spread the run over more data or pipeline ranks.
    ///
    /// ```diff title="llama3_8b.toml"
    /// -tensor_parallel_degree = 16
    /// +tensor_parallel_degree = 8
    /// ```
    HeadsNotDivisibleByTensorParallel, "heads-not-divisible-by-tensor-parallel", Error,
    "tensor parallelism cannot divide the attention heads"
}

impl HeadsNotDivisibleByTensorParallel {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(architecture)) = (file.run, file.architecture) else { return };
        let tensor = run.parallelism.tensor.value;
        if tensor < 2 {
            return;
        }
        let (heads, kv_heads) = (architecture.heads, architecture.kv_heads);
        // Megatron repeats key/value heads where the degree is a multiple of them.
        let repeats = matches!(run.model_code.value, ModelCode::Megatron | ModelCode::GptNeox);
        let what = if heads % tensor != 0 {
            format!("{heads} attention heads")
        } else if kv_heads % tensor != 0 && !(repeats && tensor % kv_heads == 0) {
            format!("{kv_heads} key/value heads")
        } else {
            return;
        };
        let widest =
            (1..tensor.min(heads + 1)).rev().find(|t| heads % t == 0 && kv_heads % t == 0).unwrap_or(1);
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                place(&[&run.parallelism.tensor.origin, &run.model.origin]),
                format!("tensor parallelism over {tensor} ranks cannot divide {what}"),
            )
            .note(format!("`{}` has {heads} heads and {kv_heads} key/value heads", run.model.value))
            .help(format!("{widest} is the largest smaller degree that divides both")),
        );
    }
}
