//! One training run, free of any framework: what every config is lowered to.
//!
//! The fields are those of the native format, and mean what its documentation says. Every field
//! is a [`Setting`]: its value and where it came from, so that a diagnostic can point at the
//! line that costs 51 GiB and `explain` can list what was assumed.

mod beside;

pub use beside::{Beside, Companion, Doubt, FakeQuantization, Generator, Role, Rollout};

use crate::source::Location;

/// Where a setting's value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The checked file says so.
    Written(Location),
    /// The framework's own default for an absent key.
    Default {
        /// Who sets it, with the version: `axolotl 0.16`.
        by: String,
    },
    /// A file that the checked file refers to says so (DeepSpeed JSON, a model's config.json).
    Referenced(Location),
    /// `llmlint.toml`, the command line or an inline comment says so.
    Declared(String),
    /// Nobody says so; why we take it.
    Assumed(String),
}

impl Origin {
    /// The place to point at, when there is one.
    pub fn location(&self) -> Option<Location> {
        match self {
            Origin::Written(location) | Origin::Referenced(location) => Some(*location),
            _ => None,
        }
    }

    /// True when a person should be told that this value was not read in their file.
    pub fn is_assumption(&self) -> bool {
        matches!(self, Origin::Default { .. } | Origin::Assumed(_))
    }

    /// In words, for `explain` and the JSON contract.
    pub fn describe(&self) -> String {
        match self {
            Origin::Written(_) => "written".into(),
            Origin::Default { by } => format!("default of {by}"),
            Origin::Referenced(_) => "referenced file".into(),
            Origin::Declared(place) => format!("declared in {place}"),
            Origin::Assumed(reason) => format!("assumed: {reason}"),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub origin: Origin,
}

impl<T> Setting<T> {
    /// A value the checked file writes at `location`.
    pub fn written(value: T, location: Location) -> Setting<T> {
        Setting { value, origin: Origin::Written(location) }
    }

    /// A framework's default.
    pub fn default_of(value: T, by: impl Into<String>) -> Setting<T> {
        Setting { value, origin: Origin::Default { by: by.into() } }
    }

    /// A value nobody wrote, with the reason for taking it.
    pub fn assumed(value: T, reason: impl Into<String>) -> Setting<T> {
        Setting { value, origin: Origin::Assumed(reason.into()) }
    }

    /// Another value with the same origin.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: f(self.value), origin: self.origin }
    }
}

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

/// How a model is named; `catalog` turns it into an architecture.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelRef {
    /// A hub id or a framework's own spelling that the catalogue knows: `meta-llama/Llama-3.1-8B`.
    Id(String),
    /// A local directory or `config.json`, relative to the file or the repository root.
    Path(String),
    /// The architecture spelled out, in Hugging Face `config.json` names (`model_type` included).
    Config(serde_json::Map<String, serde_json::Value>),
    /// An id with some fields replaced.
    IdWith(String, serde_json::Map<String, serde_json::Value>),
}

/// Which parameters are trained.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// All of them.
    Full,
    /// Low-rank adapters over frozen weights.
    Lora,
    /// Low-rank adapters over quantised frozen weights.
    Qlora,
    /// The last layers only.
    Freeze,
}

/// Which linear layers get an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoraTargets {
    /// Every linear layer but the head (PEFT's `all-linear`); in models of experts whose config it
    /// converts, the routed experts too.
    AllLinear,
    /// The names of all linear modules but the head, as Axolotl and LLaMA-Factory collect them:
    /// routed experts that are one tensor a projection are none.
    LinearModules,
    /// By the last part of the module's name: `q_proj`, `v_proj`, …
    Modules(Vec<String>),
}

/// Low-rank adapters.
#[derive(Clone, Debug, PartialEq)]
pub struct Lora {
    /// The rank.
    pub rank: Setting<u64>,
    /// Where adapters go.
    pub targets: Setting<LoraTargets>,
    /// Dropout on the adapters' input; above zero it keeps masks for backward.
    pub dropout: Setting<f64>,
    /// What adapters are stored in (PEFT upcasts to fp32 by default).
    pub dtype: Setting<Dtype>,
    /// Weight-decomposed adapters.
    pub dora: Setting<bool>,
    /// Modules trained in full beside the adapters (`embed_tokens`, `lm_head`).
    pub modules_to_save: Setting<Vec<String>>,
}

/// How frozen base weights are stored.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Quantization {
    /// As they are.
    None,
    /// 4-bit normal float, one fp32 scale per 64 weights.
    Nf4,
    /// 4-bit normal float with quantised scales.
    Nf4Double,
    /// 4-bit integers, one 16-bit scale and one zero point per 128 weights (GPTQ, AWQ).
    Int4,
    /// 4-bit floats, one 8-bit scale per 16 weights.
    Nvfp4,
    /// 2 bits a weight: 16-bit codes for vectors of 8, out of a codebook a matrix (AQLM 1x16).
    Aqlm2,
    /// LLM.int8.
    Int8,
    /// 8-bit floats.
    Fp8,
}

impl Quantization {
    /// Four bits or fewer: products run on a 16-bit copy of each matrix.
    pub fn is_packed(self) -> bool {
        use Quantization::{Aqlm2, Fp8, Int4, Int8, Nf4, Nf4Double, None, Nvfp4};
        match self {
            Nf4 | Nf4Double | Int4 | Nvfp4 | Aqlm2 => true,
            None | Int8 | Fp8 => false,
        }
    }

    /// By the name of a checkpoint's format, where that says enough.
    pub fn of_format(format: &str) -> Option<Quantization> {
        Some(match format {
            "gptq" | "awq" => Quantization::Int4,
            "nvfp4" => Quantization::Nvfp4,
            "aqlm" => Quantization::Aqlm2,
            "nf4" | "fp4" => Quantization::Nf4,
            "bnb4" => Quantization::Nf4Double,
            "int8" => Quantization::Int8,
            "fp8" => Quantization::Fp8,
            _ => return None,
        })
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
    /// All logits at once, upcast to fp32 (transformers from 4.46).
    Full,
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

/// The reference model of preference training.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ReferenceModel {
    /// None, or the base under disabled adapters.
    None,
    /// A frozen second copy on the GPU.
    Resident,
}

/// What is learnt; decides how many sequences one example is and what the loss needs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// Next-token prediction: pretraining and supervised fine-tuning.
    CausalLm,
    /// Chosen and rejected answers, twice the sequences (DPO, ORPO, CPO, SimPO, reward models).
    Preference,
    /// Generation between steps (PPO, GRPO): answers are scored, and learnt from by their scores.
    Rollout,
    /// Masked tokens, or a sequence classifier.
    Encoder,
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

/// Whose modelling code runs: it decides what a layer saves for backward.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ModelCode {
    /// Hugging Face transformers.
    Transformers,
    /// torchtune.
    Torchtune,
    /// torchtitan.
    Torchtitan,
    /// LitGPT.
    Litgpt,
    /// Megatron core (also NeMo, Megatron-Bridge).
    Megatron,
    /// GPT-NeoX.
    GptNeox,
    /// LLM Foundry's MPT.
    LlmFoundry,
}

/// How the model is replicated or sharded over data-parallel ranks.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    serde::Serialize,
    serde::Deserialize,
    schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DataParallel {
    /// One replica.
    None,
    /// Replicas with bucketed all-reduce.
    Ddp,
    /// Optimizer states sharded.
    Zero1,
    /// … and gradients.
    Zero2,
    /// … and weights.
    Zero3,
    /// Fully sharded data parallel.
    Fsdp,
    /// FSDP within a group, replicas between groups.
    Hsdp,
    /// Megatron's distributed optimizer: states sharded, weights and gradients whole.
    MegatronDistributed,
}

/// Where states live when not on the GPU.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Offload {
    /// On the GPU.
    None,
    /// In the host's memory.
    Cpu,
    /// On disk.
    Nvme,
}

/// Order of pipeline micro-batches.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
pub enum PipelineSchedule {
    /// One forward, one backward.
    #[serde(rename = "1f1b")]
    OneForwardOneBackward,
    /// 1F1B over several model chunks a rank.
    #[serde(rename = "interleaved")]
    Interleaved,
    /// All forwards, then all backwards.
    #[serde(rename = "afab")]
    AllForwardAllBackward,
}

/// DeepSpeed's buffers, in elements. Zero means "not used".
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroBuffers {
    /// `reduce_bucket_size`.
    pub reduce_bucket: Setting<u64>,
    /// `allgather_bucket_size` (stages 1 and 2).
    pub allgather_bucket: Setting<u64>,
    /// `overlap_comm`: two reduce buckets.
    pub overlap_comm: Setting<bool>,
    /// `stage3_prefetch_bucket_size`.
    pub prefetch_bucket: Setting<u64>,
    /// `stage3_max_live_parameters`.
    pub max_live_parameters: Setting<u64>,
    /// `stage3_param_persistence_threshold`.
    pub persistence_threshold: Setting<u64>,
    /// `sub_group_size`.
    pub sub_group: Setting<u64>,
    /// Hugging Face's `auto`: sizes that follow from the model's width, and are wrong until
    /// [`ZeroBuffers::settle`] has seen it.
    pub from_hidden: Vec<HiddenBuffer>,
}

/// A DeepSpeed size that Hugging Face derives from the model's width where the file says `auto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HiddenBuffer {
    /// `reduce_bucket_size`: hidden².
    Reduce,
    /// `stage3_prefetch_bucket_size`: 0.9 hidden².
    Prefetch,
    /// `stage3_param_persistence_threshold`: 10 hidden.
    Persistence,
}

impl ZeroBuffers {
    /// Fills in what follows from the model's width. Source: transformers
    /// `integrations/deepspeed.py`, `trainer_config_finalize`.
    pub fn settle(&mut self, hidden: u64) {
        let square = hidden.saturating_mul(hidden);
        for buffer in self.from_hidden.drain(..) {
            match buffer {
                HiddenBuffer::Reduce => self.reduce_bucket.value = square,
                HiddenBuffer::Prefetch => self.prefetch_bucket.value = square.saturating_mul(9) / 10,
                HiddenBuffer::Persistence => self.persistence_threshold.value = hidden.saturating_mul(10),
            }
        }
    }
}

/// FSDP's choices.
#[derive(Clone, Debug, PartialEq)]
pub struct FsdpOptions {
    /// 1 or 2.
    pub version: Setting<u8>,
    /// Weights are freed after a layer's forward (FULL_SHARD); otherwise they stay gathered
    /// until its backward (SHARD_GRAD_OP).
    pub reshard_after_forward: Setting<bool>,
    /// What gradients are reduced in.
    pub reduce: Setting<Dtype>,
    /// Only the last micro-batch's backward reduces (`no_sync`): until then each rank has whole
    /// gradients.
    pub deferred_reduction: Setting<bool>,
}

/// How the run is spread over GPUs.
#[derive(Clone, Debug, PartialEq)]
pub struct Parallelism {
    /// GPUs in all; `None` when neither the file nor the user says.
    pub gpus: Option<Setting<u64>>,
    /// Replication or sharding of states.
    pub data_parallel: Setting<DataParallel>,
    /// Ranks that share one copy, context ranks counted where they shard too; `None`: all
    /// data-parallel ranks.
    pub shard_group: Option<Setting<u64>>,
    /// Tensor-parallel degree.
    pub tensor: Setting<u64>,
    /// Norms and dropout split over the tensor-parallel ranks too.
    pub sequence_parallel: Setting<bool>,
    /// The loss is computed on a rank's part of the vocabulary.
    pub vocab_parallel_loss: Setting<bool>,
    /// Pipeline stages.
    pub pipeline: Setting<u64>,
    /// Their schedule.
    pub pipeline_schedule: Setting<PipelineSchedule>,
    /// Model chunks a rank under the interleaved schedule.
    pub virtual_stages: Setting<u64>,
    /// Context-parallel degree (the sequence split over ranks).
    pub context: Setting<u64>,
    /// Expert-parallel degree.
    pub expert: Setting<u64>,
    /// Where optimizer states live.
    pub offload_optimizer: Setting<Offload>,
    /// Where weights live between uses.
    pub offload_parameters: Setting<Offload>,
    /// DDP's gradients are views of its buckets (`gradient_as_bucket_view`): no second copy.
    pub ddp_bucket_view: Setting<bool>,
    /// DeepSpeed's buffers, when DeepSpeed runs it.
    pub zero: Option<ZeroBuffers>,
    /// FSDP's choices, when FSDP runs it.
    pub fsdp: Option<FsdpOptions>,
    /// FSDP wraps the embedding, and the last norm with the head, in groups of their own, rather
    /// than leave them to the root.
    pub ends_apart: Setting<bool>,
}

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
    /// Other models, generation, fake quantisation.
    pub beside: Beside,
    /// How it is spread over GPUs.
    pub parallelism: Parallelism,
    /// What is missing for an estimate. Empty: nothing.
    pub unknown: Vec<Unknown>,
}

impl Loss {
    /// Logits of the whole batch never exist.
    pub fn without_logits(self) -> bool {
        matches!(self, Loss::Fused | Loss::Tiled)
    }
}

impl TrainingRun {
    /// What quantisation leaves (embeddings, norms, head) is fp32: prepared so, or loaded so.
    pub fn quantised_beside_fp32(&self) -> bool {
        let wide = self.prepare_kbit.value || self.weights.value == Dtype::Fp32;
        self.quantization.value != Quantization::None && wide
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
        if let Some(length) = &self.target_length {
            push!("target_length" => length);
        }
        if let Some(batch) = &self.eval_batch_size {
            push!("eval_batch_size" => batch);
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

impl std::fmt::Display for ModelRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ModelRef::Id(name) | ModelRef::Path(name) => f.write_str(name),
            ModelRef::IdWith(name, _) => write!(f, "{name} with changes"),
            ModelRef::Config(config) => {
                let family = config.get("model_type").and_then(|t| t.as_str()).unwrap_or("model");
                write!(f, "{family}, spelled out")
            }
        }
    }
}

impl std::fmt::Display for LoraTargets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LoraTargets::AllLinear => f.write_str("all-linear"),
            LoraTargets::LinearModules => f.write_str("every linear module"),
            LoraTargets::Modules(names) => f.write_str(&names.join(", ")),
        }
    }
}
