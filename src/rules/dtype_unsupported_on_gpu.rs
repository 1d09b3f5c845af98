//! bf16 on GPUs that only emulate it.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::Dtype;

declare_rule! {
    /// ## What it does
    ///
    /// Reports bf16 training on a GPU without bf16 arithmetic: NVIDIA before Ampere (V100, T4, RTX 20).
    ///
    /// ## Why
    ///
    /// PyTorch emulates bf16 there: `torch.cuda.is_bf16_supported()` still says yes, the run starts,
    /// and its matrix products miss the tensor cores. Trainers that ask for native support refuse.
    ///
    /// ## Example
    ///
    /// ```yaml title="lora.yaml" mark="bf16: >true<"
    /// base_model: Qwen/Qwen3-0.6B
    /// datasets:
    ///   - path: data/train.jsonl
    ///     type: chat_template
    /// adapter: lora
    /// lora_r: 16
    /// lora_alpha: 32
    /// lora_target_linear: true
    /// sequence_len: 1024
    /// micro_batch_size: 1
    /// learning_rate: 2.0e-4
    /// bf16: true
    /// ```
    ///
    /// ```console
    /// $ llmlint lora.yaml --gpu T4 --gpus 1
    /// ```
    ///
    /// ## The fix
    ///
    /// Use fp16 on this GPU, or a GPU from Ampere on.
    ///
    /// ```diff title="lora.yaml"
    /// -bf16: true
    /// +fp16: true
    /// ```
    DtypeUnsupportedOnGpu, "dtype-unsupported-on-gpu", Warning, "bf16 on a GPU that only emulates it"
}

impl DtypeUnsupportedOnGpu {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(gpu)) = (file.run, file.budget.and_then(|budget| budget.gpu)) else { return };
        if gpu.bf16 || run.compute.value != Dtype::Bf16 {
            return;
        }
        // What a framework takes by default it takes by what the GPU can do.
        let Some(location) = run.compute.origin.location() else { return };
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Warning,
                location,
                format!("{} has no bf16 arithmetic", gpu.name),
            )
            .note("PyTorch emulates bf16 on it: slow, and refused by trainers that ask for native support.")
            .help("use fp16, or a GPU from NVIDIA's Ampere generation on (A100, A10, RTX 30)"),
        );
    }
}
