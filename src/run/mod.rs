//! One training run, free of any framework: what every config is lowered to.
//!
//! The fields are those of the native format, and mean what its documentation says. Every field
//! is a [`Setting`]: its value and where it came from, so that a diagnostic can point at the
//! line that costs 51 GiB and `explain` can list what was assumed.

mod beside;
pub mod layout;
pub mod lengths;
mod method;
mod parallelism;
mod recompute;
mod setting;
mod step;

pub use beside::{Beside, Companion, Doubt, FakeQuantization, Generator, Role, Rollout};
pub use method::{Lora, LoraTargets, Method, ModelCode, ModelRef, Quantization, ReferenceModel, Task};
pub use parallelism::{
    ContextExchange, DataParallel, FsdpOptions, HiddenBuffer, KeptBuffers, Offload, Parallelism,
    PipelineSchedule, StageLayers, ZeroBuffers,
};
pub use recompute::{RecomputedModule, RecomputedModules};
pub use setting::{Origin, Setting};
pub use step::{
    Attention, Batching, Checkpointing, Dtype, Kernels, Loss, Optimizer, OptimizerImplementation,
};

use crate::source::Location;
use crate::units::Bytes;
use lengths::{Overlong, SequenceLengths};

/// [`Unknown::what`] of a sequence length that the file leaves to its data.
pub const SEQUENCE_LENGTH: &str = "sequence length";

/// Something the estimate needs and nobody says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// The setting, in the user's words: `model`, `gpus`, `sequence length`.
    pub what: String,
    /// Why it is unknown and how to say it.
    pub why: String,
    /// Where, when the file has a place for it.
    pub location: Option<Location>,
}

/// A training run.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingRun {
    /// The model.
    pub model: Setting<ModelRef>,
    /// The family whose layers are taken for the model's, where its own code is not known.
    pub stand_in: Option<Setting<String>>,
    /// The public model that this one is taken for because of its name.
    pub taken_for: Option<Setting<String>>,
    /// Whose modelling code runs.
    pub model_code: Setting<ModelCode>,
    /// What is learnt.
    pub task: Setting<Task>,
    /// Which parameters are trained.
    pub method: Setting<Method>,
    /// Adapters, for [`Method::Lora`] and [`Method::Qlora`].
    pub lora: Option<Lora>,
    /// How many of the last layers train under [`Method::Freeze`].
    pub trainable_layers: Option<Setting<u64>>,
    /// How frozen weights are stored.
    pub quantization: Setting<Quantization>,
    /// PEFT's `prepare_model_for_kbit_training` was called: norms, embeddings and head in fp32.
    pub prepare_kbit: Setting<bool>,
    /// 4-bit layers keep their inputs for backward, as bitsandbytes did up to 0.43.2.
    pub quantized_inputs_kept: Setting<bool>,
    /// Routed experts that are one tensor a projection are quantised as well.
    pub quantized_experts: Setting<bool>,
    /// Kernels for routed experts that take adapters and 4-bit weights apart (ScatterMoE, SonicMoE):
    /// no 16-bit matrix of a whole stack is kept for backward.
    pub fused_experts: Setting<bool>,
    /// What weights are stored in.
    pub weights: Setting<Dtype>,
    /// What matrix products run in.
    pub compute: Setting<Dtype>,
    /// The forward runs under `torch.autocast` in `compute`. Always so where `weights` and
    /// `compute` differ; with 16-bit weights it decides in what dtype fp32 adapters compute.
    pub autocast: Setting<bool>,
    /// An fp32 copy beside low-precision weights.
    pub master_weights: Setting<bool>,
    /// What gradients are stored in.
    pub gradients: Setting<Dtype>,
    /// The optimizer.
    pub optimizer: Setting<Optimizer>,
    /// Rank of the projection that GaLore and APOLLO keep their moments in.
    pub optimizer_rank: Option<Setting<u64>>,
    /// What its states are stored in, where the optimizer leaves a choice.
    pub optimizer_state: Setting<Dtype>,
    /// How its step runs.
    pub optimizer_implementation: Setting<OptimizerImplementation>,
    /// Sequences (or examples, for preference training) a GPU takes in one forward.
    pub micro_batch_size: Setting<u64>,
    /// Sequences a step on all GPUs, where the file says so beside what it is made of.
    pub global_batch_size: Option<Setting<u64>>,
    /// Micro-batches a step.
    pub gradient_accumulation_steps: Setting<u64>,
    /// Clipping norm; `None`: off.
    pub gradient_clipping: Setting<Option<f64>>,
    /// Tokens a sequence after padding or packing.
    pub sequence_length: Setting<u64>,
    /// How sequences fill the batch.
    pub batching: Setting<Batching>,
    /// How long the rows are, where they are padded to the longest of a batch; `None`: nobody says.
    pub sequence_lengths: Setting<Option<SequenceLengths>>,
    /// What the framework does with rows beyond the limit, where `sequence_lengths` does not say.
    pub overlong: Overlong,
    /// Tokens a sequence that have logits, where not all have: the decoder's, or the answer's.
    pub target_length: Option<Setting<u64>>,
    /// Which activations are recomputed.
    pub activation_checkpointing: Setting<Checkpointing>,
    /// `use_reentrant=True`: the first forward of a recomputed layer keeps nothing but its input.
    pub reentrant_checkpointing: Setting<bool>,
    /// Saved activations go to the host.
    pub activation_offload: Setting<bool>,
    /// The attention implementation.
    pub attention: Setting<Attention>,
    /// 8-bit optimizers keep embeddings' states in 32 bits.
    pub wide_embedding_states: Setting<bool>,
    /// Whose kernels.
    pub kernels: Setting<Kernels>,
    /// How logits become a loss.
    pub loss: Setting<Loss>,
    /// The model's output is held until the step ends (`outputs = model(…)` in a hand-written
    /// loop), and with it the logits.
    pub keep_logits: Setting<bool>,
    /// `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True`: the allocator's segments grow.
    pub expandable_segments: Setting<bool>,
    /// Under [`Loss::Chunked`] the head runs chunk by chunk inside the loss, so that one chunk's
    /// logits exist at a time; otherwise all chunks' logits are there before the first loss.
    pub head_in_chunks: Setting<bool>,
    /// RMSNorm is PyTorch's single kernel (2.9 and later), which keeps its input alone.
    pub fused_norms: Setting<bool>,
    /// The optimizer takes low-precision gradients as they are (Megatron's
    /// `use_precision_aware_optimizer`); otherwise its part of them is cast to fp32 for the step.
    pub precision_aware: Setting<bool>,
    /// Overrides the model config's own dropout rates.
    pub dropout: Setting<Option<f64>>,
    /// The reference model of preference training.
    pub reference_model: Setting<ReferenceModel>,
    /// What its weights are in, where that is not what the trained model's are in.
    pub reference_weights: Option<Setting<Dtype>>,
    /// `torch.compile`.
    pub compile: Setting<bool>,
    /// Sequences a GPU takes in one evaluation forward; `None`: no evaluation.
    pub eval_batch_size: Option<Setting<u64>>,
    /// What a process occupies before it allocates anything, as `nvidia-smi` shows it; `None`: what
    /// is usual.
    pub cuda_context: Option<Setting<Bytes>>,
    /// Other models, generation, fake quantisation.
    pub beside: Beside,
    /// How it is spread over GPUs.
    pub parallelism: Parallelism,
    /// What is missing for an estimate. Empty: nothing.
    pub unknown: Vec<Unknown>,
}

impl TrainingRun {
    /// What quantisation leaves (embeddings, norms, head) is fp32: prepared so, or loaded so.
    pub fn quantised_beside_fp32(&self) -> bool {
        let wide = self.prepare_kbit.value || self.weights.value == Dtype::Fp32;
        self.quantization.value != Quantization::None && wide
    }

    /// Bytes of a model weight as it is gathered and computed with, where shards are stored wider.
    pub fn gathered_bytes(&self) -> f64 {
        self.weights.value.bytes().min(self.compute.value.bytes()) as f64
    }

    /// fp32 weights are what the layers read. FSDP and ZeRO keep fp32 shards and gather what their
    /// policy computes in.
    pub fn layers_read_fp32(&self) -> bool {
        let gathered =
            !matches!(self.parallelism.data_parallel.value, DataParallel::None | DataParallel::Ddp);
        self.weights.value == Dtype::Fp32 && !(gathered && self.compute.value.bytes() < 4)
    }

    /// Every setting with its value as people write it, for `explain` and the list of assumptions.
    pub fn settings(&self) -> Vec<(&'static str, String, &Origin)> {
        fn word<T: serde::Serialize>(value: &T) -> String {
            match serde_json::to_value(value) {
                Ok(serde_json::Value::String(text)) => text,
                Ok(serde_json::Value::Null) => "none".into(),
                Ok(other) => other.to_string(),
                Err(_) => String::new(),
            }
        }
        let mut list: Vec<(&'static str, String, &Origin)> = Vec::new();
        macro_rules! push {
            ($($name:literal => $setting:expr),+ $(,)?) => { $(list.push(($name, word(&$setting.value), &$setting.origin));)+ };
        }
        list.push(("model", self.model.value.to_string(), &self.model.origin));
        if let Some(public) = &self.taken_for {
            push!("model.architecture" => public);
        }
        if let Some(family) = &self.stand_in {
            push!("model.layers" => family);
        }
        push!("model_code" => self.model_code, "task" => self.task, "method" => self.method);
        if let Some(lora) = &self.lora {
            push!("lora.rank" => lora.rank);
            list.push(("lora.targets", lora.targets.value.to_string(), &lora.targets.origin));
            push!("lora.dropout" => lora.dropout, "lora.dtype" => lora.dtype, "lora.dora" => lora.dora,
                "lora.modules_to_save" => lora.modules_to_save);
        }
        if let Some(layers) = &self.trainable_layers {
            push!("trainable_layers" => layers);
        }
        if let Some(rank) = &self.optimizer_rank {
            push!("optimizer_rank" => rank);
        }
        push!(
            "quantization" => self.quantization,
            "prepare_kbit" => self.prepare_kbit,
        );
        if self.quantized_inputs_kept.value {
            push!("quantized_inputs_kept" => self.quantized_inputs_kept);
        }
        if self.quantized_experts.value {
            push!("quantized_experts" => self.quantized_experts);
        }
        if self.fused_experts.value {
            push!("fused_experts" => self.fused_experts);
        }
        push!(
            "weights" => self.weights,
            "compute" => self.compute,
            "autocast" => self.autocast,
            "master_weights" => self.master_weights,
            "gradients" => self.gradients,
            "optimizer" => self.optimizer,
            "optimizer_state" => self.optimizer_state,
            "optimizer_implementation" => self.optimizer_implementation,
            "micro_batch_size" => self.micro_batch_size,
            "gradient_accumulation_steps" => self.gradient_accumulation_steps,
            "gradient_clipping" => self.gradient_clipping,
            "sequence_length" => self.sequence_length,
            "batching" => self.batching,
            "activation_checkpointing" => self.activation_checkpointing,
            "reentrant_checkpointing" => self.reentrant_checkpointing,
            "activation_offload" => self.activation_offload,
            "attention" => self.attention,
            "kernels" => self.kernels,
            "loss" => self.loss,
            "keep_logits" => self.keep_logits,
            "expandable_segments" => self.expandable_segments,
            "head_in_chunks" => self.head_in_chunks,
            "fused_norms" => self.fused_norms,
            "wide_embedding_states" => self.wide_embedding_states,
            "dropout" => self.dropout,
            "reference_model" => self.reference_model,
            "compile" => self.compile,
        );
        if self.batching.value == Batching::Padded {
            let law = &self.sequence_lengths;
            let words = law.value.map_or_else(|| "unknown".into(), |law| law.describe());
            list.push(("sequence_lengths", words, &law.origin));
        }
        if let Some(length) = &self.target_length {
            push!("target_length" => length);
        }
        if let Some(batch) = &self.eval_batch_size {
            push!("eval_batch_size" => batch);
        }
        if let Some(context) = &self.cuda_context {
            list.push(("cuda_context", context.value.to_string(), &context.origin));
        }
        list.extend(self.beside.settings());
        let parallel = &self.parallelism;
        if let Some(gpus) = &parallel.gpus {
            list.push(("gpus", gpus.value.to_string(), &gpus.origin));
        }
        push!("data_parallel" => parallel.data_parallel);
        if let Some(group) = &parallel.shard_group {
            push!("shard_group" => group);
        }
        push!(
            "tensor" => parallel.tensor,
            "sequence_parallel" => parallel.sequence_parallel,
            "pipeline" => parallel.pipeline,
            "context" => parallel.context,
            "expert" => parallel.expert,
            "offload.optimizer" => parallel.offload_optimizer,
            "offload.parameters" => parallel.offload_parameters,
        );
        if let Some(zero) = &parallel.zero {
            push!("zero.reduce_bucket_size" => zero.reduce_bucket, "zero.overlap_comm" => zero.overlap_comm);
        }
        if let Some(fsdp) = &parallel.fsdp {
            push!("fsdp.version" => fsdp.version, "fsdp.reshard_after_forward" => fsdp.reshard_after_forward,
                "fsdp.reduce" => fsdp.reduce);
        }
        list
    }
}
