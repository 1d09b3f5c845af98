//! What a training step does: number formats, optimizer, checkpointing, attention, loss.

use super::RecomputedModules;

/// A number format of weights, gradients, states or compute.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// 32-bit float.
    Fp32,
    /// bfloat16.
    Bf16,
    /// IEEE half.
    Fp16,
    /// An 8-bit float.
    Fp8,
}

impl Dtype {
    /// Bytes of one element.
    pub fn bytes(self) -> u64 {
        match self {
            Dtype::Fp32 => 4,
            Dtype::Bf16 | Dtype::Fp16 => 2,
            Dtype::Fp8 => 1,
        }
    }
}

/// The optimizer, by what it keeps per parameter.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// No state.
    Sgd,
    /// One moment.
    SgdMomentum,
    /// Two moments.
    Adam,
    /// Two moments, decoupled decay.
    Adamw,
    /// bitsandbytes' AdamW with 32-bit states.
    #[serde(rename = "adamw-32bit")]
    Adamw32bit,
    /// bitsandbytes' or torchao's block-wise 8-bit AdamW.
    #[serde(rename = "adamw-8bit")]
    Adamw8bit,
    /// 8-bit AdamW with pageable states.
    #[serde(rename = "paged-adamw-8bit")]
    PagedAdamw8bit,
    /// 32-bit AdamW with pageable states.
    #[serde(rename = "paged-adamw-32bit")]
    PagedAdamw32bit,
    /// torchao's 4-bit AdamW.
    #[serde(rename = "adamw-4bit")]
    Adamw4bit,
    /// Hugging Face's Adafactor: factored second moment, no first.
    Adafactor,
    /// `torch.optim.Adafactor`.
    TorchAdafactor,
    /// One moment (the sign of it is the step), 32-bit.
    Lion,
    /// Lion with 8-bit states.
    #[serde(rename = "lion-8bit")]
    Lion8bit,
    /// Lion with pageable 8-bit states.
    #[serde(rename = "paged-lion-8bit")]
    PagedLion8bit,
    /// Lion with pageable 32-bit states.
    #[serde(rename = "paged-lion-32bit")]
    PagedLion32bit,
    /// One moment; matrices only, AdamW for the rest.
    Muon,
    /// Adam in a low-rank projection of the gradient.
    Galore,
    /// GaLore with 8-bit states.
    #[serde(rename = "galore-8bit")]
    Galore8bit,
    /// One accumulator.
    Adagrad,
    /// One accumulator.
    Rmsprop,
    /// Two moments, no schedule.
    ScheduleFreeAdamw,
    /// Adam whose step is scaled by moments in a random low-rank projection.
    Apollo,
    /// Adam with one second moment a block of the weights.
    AdamMini,
    /// Adam on one layer at a time, in fp32; the others are frozen meanwhile.
    Badam,
    /// Shampoo in Adam's eigenbasis, and others that are not modelled.
    Other,
}

/// How the optimizer's step is carried out.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum OptimizerImplementation {
    /// All tensors at once, with lists of temporaries.
    Foreach,
    /// One kernel.
    Fused,
    /// Tensor by tensor.
    ForLoop,
    /// Each tensor's step inside the backward, its gradient freed at once.
    InBackward,
}

/// Which activations are recomputed.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Checkpointing {
    /// None: everything is saved.
    None,
    /// Every layer keeps only its input.
    Full,
    /// Within a layer, cheap operations are recomputed and matrix products saved.
    Selective,
    /// The named modules of each layer are computed again (Megatron's `recompute_modules`).
    #[serde(untagged)]
    Modules {
        /// Which.
        modules: RecomputedModules,
    },
    /// The first layers of each pipeline chunk are checkpointed in full (Megatron's block method).
    #[serde(untagged)]
    First {
        /// How many.
        first: u32,
    },
    /// Every k-th layer is checkpointed in full.
    #[serde(untagged)]
    Every {
        /// One layer in `every` is checkpointed.
        every: u32,
    },
}

/// The attention implementation.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// Scores and probabilities as tensors.
    Eager,
    /// `scaled_dot_product_attention`.
    Sdpa,
    /// The same, where no fused kernel takes it (bf16 before Ampere, forced by the user): its
    /// math back end keeps scores and probabilities.
    SdpaMath,
    /// FlashAttention.
    Flash,
    /// FlexAttention.
    Flex,
}

/// Whose kernels compute norms, rotary and gated MLPs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Kernels {
    /// PyTorch's own, operation by operation.
    Torch,
    /// Liger's fused ones.
    Liger,
}

/// How logits become a loss.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// All logits at once, upcast to fp32 (transformers from 4.49).
    Full,
    /// All logits at once, upcast to fp32 beside the head's own, and shifted with a copy
    /// (transformers 4.46 to 4.48).
    FullUpcastShifted,
    /// All logits at once, upcast to fp32 and shifted with a copy (transformers before 4.46).
    FullShifted,
    /// All logits at once, shifted with a copy in the head's own precision: GPT-NeoX, Falcon, OPT and
    /// others in transformers before 4.46, and models that bring their own code (Qwen 1).
    FullShiftedNoUpcast,
    /// All logits at once in the compute dtype.
    FullNoUpcast,
    /// All logits at once, softmax and cross entropy in one kernel that keeps only the logits and
    /// makes one gradient of their size (flash-attn's cross entropy).
    FusedSoftmax,
    /// Log-probabilities of the labels, from fp32 logits that the trainer holds on to.
    LogProbabilities,
    /// The same, and once more for a reference while the first are held.
    ComparedLogProbabilities,
    /// Fused with the head's matrix product: full logits never exist.
    Fused,
    /// Log-probabilities in tiles of tokens and vocabulary; the backward computes each tile again and
    /// sums its gradients in fp32 (TRL from 1.16).
    Tiled,
    /// Logits in chunks of the sequence, upcast chunk by chunk.
    #[serde(untagged)]
    Chunked {
        /// The number of chunks.
        chunked: u32,
    },
}

/// How sequences fill the batch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Batching {
    /// Every batch has the full length, no padding mask.
    Fixed,
    /// Padded to the longest of the batch: lengths vary, and a mask is passed.
    Padded,
    /// Packed to the full length, no padding mask.
    Packed,
    /// A micro-batch in one row, its sequences told apart by their positions: SDPA then needs a
    /// mask over the whole row, FlashAttention does not.
    Flattened,
}

impl Loss {
    /// Logits of the whole batch never exist.
    pub fn without_logits(self) -> bool {
        matches!(self, Loss::Fused | Loss::Tiled)
    }
}
