//! FlashAttention on GPUs that it does not run on.

use super::Checked;
use crate::declare_rule;
use crate::finding::{Finding, Severity};
use crate::run::Attention;

declare_rule! {
    /// ## What it does
    ///
    /// Reports FlashAttention 2 asked for on a GPU that it does not run on: NVIDIA before Ampere
    /// (V100, T4, RTX 20).
    ///
    /// ## Why
    ///
    /// The library refuses at the first forward: "FlashAttention only supports Ampere GPUs or newer".
    ///
    /// ## Example
    ///
    /// ```yaml title="lora.yaml" mark="flash_attention_2"
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
    /// fp16: true
    /// attn_implementation: flash_attention_2
    /// ```
    ///
    /// ```console
    /// $ llmlint lora.yaml --gpu V100-32GB --gpus 1
    /// ```
    ///
    /// ## The fix
    ///
    /// Use `sdpa`, whose memory-efficient kernel runs on these GPUs, or another GPU.
    ///
    /// ```diff title="lora.yaml"
    /// -attn_implementation: flash_attention_2
    /// +attn_implementation: sdpa
    /// ```
    FlashAttentionUnsupportedOnGpu, "flash-attention-unsupported-on-gpu", Error,
    "FlashAttention on a GPU that it does not run on"
}

impl FlashAttentionUnsupportedOnGpu {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(run), Some(gpu)) = (file.run, file.budget.and_then(|budget| budget.gpu)) else { return };
        // Other vendors' stacks put kernels of their own under the same option.
        if gpu.flash_attention_2 || gpu.vendor != "NVIDIA" || run.attention.value != Attention::Flash {
            return;
        }
        let Some(location) = run.attention.origin.location() else { return };
        findings.push(
            Finding::new(
                Self::NAME,
                Severity::Error,
                location,
                format!("FlashAttention 2 does not run on {}", gpu.name),
            )
            .note("It needs NVIDIA's Ampere generation or newer and stops at the first forward.")
            .help("use `sdpa` attention, or a GPU from Ampere on (A100, A10, RTX 30)"),
        );
    }
}
