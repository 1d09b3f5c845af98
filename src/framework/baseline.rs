//! What plain PyTorch does where a framework's file and its defaults say nothing: the starting
//! point from which the PyTorch-native frameworks lower their files.

use super::Lowering;
use crate::document::Value;
use crate::run::lengths::{Overlong, SequenceLengths};
use crate::run::{
    Attention, Batching, Beside, Checkpointing, ContextExchange, DataParallel, Dtype, KeptBuffers, Kernels,
    Loss, Method, ModelCode, ModelRef, Offload, Optimizer, OptimizerImplementation, Parallelism,
    PipelineSchedule, Quantization, ReferenceModel, Setting, StageLayers, Task, TrainingRun,
};

/// A run of `model` under framework `by` (name and version), everything else as PyTorch has it:
/// one GPU, fp32, AdamW, nothing recomputed, all logits at once.
pub fn plain(
    by: &str,
    model: Setting<ModelRef>,
    code: ModelCode,
    micro_batch_size: Setting<u64>,
    sequence_length: Setting<u64>,
) -> TrainingRun {
    fn of<T>(value: T, by: &str) -> Setting<T> {
        Setting::default_of(value, by)
    }
    TrainingRun {
        stand_in: None,
        taken_for: None,
        model,
        model_code: of(code, by),
        task: of(Task::CausalLm, by),
        method: of(Method::Full, by),
        lora: None,
        trainable_layers: None,
        quantization: of(Quantization::None, by),
        prepare_kbit: of(false, by),
        quantized_inputs_kept: of(false, by),
        quantized_experts: of(false, by),
        fused_experts: of(false, by),
        weights: of(Dtype::Fp32, by),
        compute: of(Dtype::Fp32, by),
        autocast: of(false, by),
        master_weights: of(false, by),
        gradients: of(Dtype::Fp32, by),
        optimizer: of(Optimizer::Adamw, by),
        optimizer_rank: None,
        optimizer_state: of(Dtype::Fp32, by),
        optimizer_implementation: of(OptimizerImplementation::Foreach, by),
        micro_batch_size,
        global_batch_size: None,
        gradient_accumulation_steps: of(1, by),
        gradient_clipping: of(None, by),
        sequence_length,
        batching: of(Batching::Fixed, by),
        sequence_lengths: undeclared(),
        overlong: Overlong::Truncated,
        target_length: None,
        activation_checkpointing: of(Checkpointing::None, by),
        reentrant_checkpointing: of(false, by),
        activation_offload: of(false, by),
        attention: of(Attention::Sdpa, by),
        kernels: of(Kernels::Torch, by),
        loss: of(Loss::Full, by),
        keep_logits: of(false, by),
        expandable_segments: of(false, by),
        head_in_chunks: of(false, by),
        fused_norms: of(false, by),
        precision_aware: of(false, by),
        wide_embedding_states: of(false, by),
        dropout: of(None, by),
        reference_model: of(ReferenceModel::None, by),
        reference_weights: None,
        compile: of(false, by),
        eval_batch_size: None,
        cuda_context: None,
        beside: Beside::default(),
        parallelism: Parallelism {
            gpus: None,
            data_parallel: of(DataParallel::None, by),
            shard_group: None,
            tensor: of(1, by),
            sequence_parallel: of(false, by),
            vocab_parallel_loss: of(false, by),
            ddp_bucket_view: of(false, by),
            pipeline: of(1, by),
            pipeline_schedule: of(PipelineSchedule::OneForwardOneBackward, by),
            virtual_stages: of(1, by),
            microbatch_group: None,
            stage_layers: StageLayers::default(),
            context: of(1, by),
            context_exchange: of(ContextExchange::Ring, by),
            expert: of(1, by),
            expert_tensor: None,
            expert_capacity: None,
            offload_optimizer: of(Offload::None, by),
            offload_parameters: of(Offload::None, by),
            zero: None,
            fsdp: None,
            one_loads: of(false, by),
            ends_apart: of(false, by),
            kept_buffers: KeptBuffers::None,
            checkpoints_around_units: of(false, by),
        },
        unknown: Vec::new(),
    }
}

/// Nobody says how long the rows are.
pub fn undeclared() -> Setting<Option<SequenceLengths>> {
    Setting::assumed(
        None,
        "rows from half the limit to all of it, in random order; `[assume.sequence-lengths]` in llmlint.toml \
         declares what the data has",
    )
}

/// A positive count, also from text and integral floats.
pub fn count(value: Value<'_>) -> Option<u64> {
    value.to_int().and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)
}

/// The setting of the first of several spellings that is written and readable.
pub fn first<'a, T>(
    cx: &Lowering<'a>,
    keys: &[&str],
    read: impl Fn(Value<'a>) -> Option<T>,
) -> Option<Setting<T>> {
    keys.iter().find_map(|key| cx.written(key, &read))
}
