//! The native format's keys. `schemas/llmlint.schema.json` is derived from these types, so the
//! doc comments here are what editors show.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::run::lengths::SequenceLengths;
use crate::run::{
    Attention, Batching, Checkpointing, ContextExchange, DataParallel, Dtype, Generator, KeptBuffers,
    Kernels, Loss, Method, ModelCode, Offload, Optimizer, OptimizerImplementation, PipelineSchedule,
    Quantization, ReferenceModel, Task,
};

/// A training run in llmlint's own format.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "llmlint training run")]
pub struct NativeConfig {
    /// Marks the format and its version.
    #[schemars(range(min = 1, max = 1))]
    pub llmlint: u32,
    /// The model: an id from the catalogue, a config.json, or the architecture spelled out.
    pub model: Model,
    /// What is trained and how.
    #[serde(default)]
    pub training: Training,
    /// How the run is spread over GPUs.
    #[serde(default)]
    pub parallelism: Parallelism,
    /// What the run may use.
    #[serde(default)]
    pub budget: Option<Budget>,
}

/// The model. Dimensions have the names of a Hugging Face `config.json`; given beside an `id`
/// or `config` they replace its values.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// A model id: `meta-llama/Llama-3.1-8B`, or a local directory with a `config.json`.
    #[serde(default)]
    pub id: Option<String>,
    /// A path to a `config.json`, or its content as a table.
    #[serde(default)]
    pub config: Option<PathOrTable>,
    /// The modelling code, a `model_type` of transformers: llama, gpt2, qwen2, gemma2, mixtral, t5, …
    #[serde(default, alias = "model_type")]
    pub architecture: Option<String>,
    /// Transformer layers.
    #[serde(default, alias = "n_layers", alias = "N")]
    pub num_hidden_layers: Option<u64>,
    /// Width of the residual stream.
    #[serde(default, alias = "d_model")]
    pub hidden_size: Option<u64>,
    /// Width of the feed-forward network.
    #[serde(default, alias = "d_ff")]
    pub intermediate_size: Option<u64>,
    /// Query heads.
    #[serde(default, alias = "n_heads", alias = "h")]
    pub num_attention_heads: Option<u64>,
    /// Key and value heads; absent: as many as query heads.
    #[serde(default)]
    pub num_key_value_heads: Option<u64>,
    /// Width of one head; absent: hidden size over heads.
    #[serde(default)]
    pub head_dim: Option<u64>,
    /// Vocabulary size, padding included.
    #[serde(default, alias = "V")]
    pub vocab_size: Option<u64>,
    /// Longest sequence, and the number of learned positions where the model has them.
    #[serde(default, alias = "max_seq_len", alias = "L")]
    pub max_position_embeddings: Option<u64>,
    /// Input and output embeddings are one tensor.
    #[serde(default)]
    pub tie_word_embeddings: Option<bool>,
    /// How many parameters it has, where nothing else is known of it, or its `id` alone: no estimate, but
    /// a floor (weights, gradients, optimizer states) that is compared with the budget.
    #[serde(default)]
    #[schemars(range(min = 1.0))]
    pub parameters: Option<f64>,
}

/// A path, or a table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PathOrTable {
    /// A path to a `config.json`, relative to this file or to the repository.
    Path(String),
    /// The content of a `config.json`.
    Table(serde_json::Map<String, serde_json::Value>),
}

/// What is trained and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Training {
    /// Which parameters are trained. Default: full.
    pub method: Option<Method>,
    /// Adapters, for lora and qlora.
    pub lora: Option<Lora>,
    /// How many of the last layers train under `freeze`. Default: 2.
    pub trainable_layers: Option<u64>,
    /// How frozen base weights are stored. Default: none; nf4 under qlora.
    pub quantization: Option<Quantization>,
    /// PEFT's prepare_model_for_kbit_training was called: norms, embeddings and head in fp32. Default: false.
    pub prepare_kbit: Option<bool>,
    /// 4-bit layers keep their inputs for backward, as bitsandbytes did up to 0.43.2. Read for LitGPT's
    /// layers. Default: false.
    pub quantized_inputs_kept: Option<bool>,
    /// Routed experts that are one tensor a projection are quantised as well. Default: false, as
    /// bitsandbytes leaves them alone under transformers 5.
    pub quantized_experts: Option<bool>,
    /// Kernels for routed experts that keep no 16-bit copy of a stack (ScatterMoE, SonicMoE). Default: false.
    pub fused_experts: Option<bool>,
    /// What weights are stored in. Default: bf16.
    pub weights: Option<Dtype>,
    /// What matrix products run in; other than `weights`: under autocast. Default: the weights' dtype.
    pub compute: Option<Dtype>,
    /// The forward runs under torch.autocast. Default: true where `compute` differs from `weights`.
    /// With bf16 weights it decides in what dtype fp32 adapters compute.
    pub autocast: Option<bool>,
    /// An fp32 copy beside low-precision weights. Default: false.
    pub master_weights: Option<bool>,
    /// What gradients are stored in. Default: the trained weights' dtype.
    pub gradients: Option<Dtype>,
    /// The optimizer. Default: adamw.
    pub optimizer: Option<Optimizer>,
    /// What its states are stored in. Default: the trained weights' dtype.
    pub optimizer_state: Option<Dtype>,
    /// Rank of GaLore's and APOLLO's projection (default: transformers' 128).
    #[serde(default)]
    pub optimizer_rank: Option<u64>,
    /// How its step runs. Default: foreach, as PyTorch does on CUDA.
    pub optimizer_implementation: Option<OptimizerImplementation>,
    /// Sequences a GPU takes in one forward. Default: 1.
    #[schemars(range(min = 1))]
    pub micro_batch_size: Option<u64>,
    /// Micro-batches a step. Default: 1.
    #[schemars(range(min = 1))]
    pub gradient_accumulation_steps: Option<u64>,
    /// Sequences a step on all GPUs, to be checked against what it is made of. Default: not checked.
    #[schemars(range(min = 1))]
    pub global_batch_size: Option<u64>,
    /// Clipping norm; null: off. Default: null.
    pub gradient_clipping: Option<f64>,
    /// Tokens a sequence after padding or packing.
    #[schemars(range(min = 1))]
    pub sequence_length: Option<u64>,
    /// How sequences fill the batch. Default: fixed.
    pub batching: Option<Batching>,
    /// How long the rows are, where they are padded to the longest of a batch. Default: half the
    /// limit to all of it, in random order.
    pub sequence_lengths: Option<SequenceLengths>,
    /// Decoder tokens a sequence, for encoder-decoders. Default: the sequence length.
    #[schemars(range(min = 1))]
    pub target_length: Option<u64>,
    /// Which activations are recomputed. Default: none.
    pub activation_checkpointing: Option<Checkpointing>,
    /// The first forward of a recomputed layer keeps nothing but its input (`use_reentrant=True`). Default: false.
    pub reentrant_checkpointing: Option<bool>,
    /// Saved activations go to the host. Default: false.
    pub activation_offload: Option<bool>,
    /// The attention implementation. Default: sdpa.
    pub attention: Option<Attention>,
    /// Whose kernels compute norms, rotary and gated MLPs. Default: torch.
    pub kernels: Option<Kernels>,
    /// How logits become a loss. Default: full.
    pub loss: Option<Loss>,
    /// The model's output, logits included, is held until the step ends. Default: false.
    pub keep_logits: Option<bool>,
    /// `PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True` is set. Default: false.
    pub expandable_segments: Option<bool>,
    /// With chunked logits: the head runs chunk by chunk inside the loss (torchtune's
    /// LinearCrossEntropyLoss), so that one chunk's logits exist at a time.
    pub head_in_chunks: Option<bool>,
    /// RMSNorm is PyTorch's single kernel (2.9 and later), which keeps its input alone.
    pub fused_norms: Option<bool>,
    /// The optimizer takes gradients in less than fp32 as they are, and casts none (Megatron's
    /// `use_precision_aware_optimizer`). Default: true where `optimizer_state` is less than fp32.
    pub precision_aware_optimizer: Option<bool>,
    /// Overrides the model config's own dropout rates; null: keeps them.
    pub dropout: Option<f64>,
    /// The reference model of preference training. Default: none.
    pub reference_model: Option<ReferenceModel>,
    /// What is learnt. Default: causal-lm, or encoder for encoder models; rollout where `rollout` is given.
    pub task: Option<Task>,
    /// Texts that are generated between steps, and learnt from by their scores (PPO, GRPO, RLOO).
    /// `target_length` is the answers' part of `sequence_length`.
    pub rollout: Option<Rollout>,
    /// Whose modelling code runs. Default: transformers.
    pub model_code: Option<ModelCode>,
    /// torch.compile. Default: false.
    pub compile: Option<bool>,
    /// Sequences a GPU takes in one evaluation forward; absent: no evaluation.
    #[schemars(range(min = 1))]
    pub eval_batch_size: Option<u64>,
    /// What a process occupies before it allocates anything, as `nvidia-smi` shows it: 1343MiB. Default: 0.55 GiB,
    /// as CUDA loads kernels when they are first used; older releases load all of them.
    pub cuda_context: Option<String>,
}

/// Texts generated between steps.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Rollout {
    /// Sequences a GPU generates at once. Default: the micro-batch.
    #[schemars(range(min = 1))]
    pub sequences: Option<u64>,
    /// Who generates: the trained model, with a cache or without, vLLM on the same GPU, or a server
    /// elsewhere. Default: model.
    pub generator: Option<Generator>,
    /// The part of the card that a colocated vLLM takes (`gpu_memory_utilization`). Default: 0.3, as TRL has it.
    #[schemars(range(min = 0, max = 1))]
    pub vllm_share: Option<f64>,
    /// A colocated vLLM gives its memory back between generations. Default: false.
    pub vllm_sleeps: Option<bool>,
    /// ZeRO-3 makes the weights whole to generate (TRL's `ds3_gather_for_generation`). Default: true.
    pub gather_for_generation: Option<bool>,
    /// A model that scores the answers: a frozen one on the same GPU. Default: none.
    pub reward_model: Option<String>,
    /// A model that predicts the scores, trained beside the policy. Default: none.
    pub value_model: Option<String>,
    /// The value model has a backward of its own, after the policy's (DeepSpeed-Chat, OpenRLHF, verl); else
    /// one goes through both (TRL, torchtune). Default: false.
    pub value_model_apart: Option<bool>,
}

/// Low-rank adapters.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Lora {
    /// The rank. Default: 16.
    #[schemars(range(min = 1))]
    pub rank: Option<u64>,
    /// `all-linear`, or module names such as q_proj. Default: all-linear.
    pub targets: Option<NameOrNames>,
    /// Dropout on the adapters' input. Default: 0.
    pub dropout: Option<f64>,
    /// What adapters are stored in. Default: fp32, as PEFT does.
    pub dtype: Option<Dtype>,
    /// Weight-decomposed adapters. Default: false.
    pub dora: Option<bool>,
    /// Modules trained in full beside the adapters. Default: none.
    pub modules_to_save: Option<Vec<String>>,
}

/// One name or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum NameOrNames {
    /// One name.
    Name(String),
    /// Several.
    Names(Vec<String>),
}

/// How the run is spread over GPUs.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Parallelism {
    /// GPUs in all. Default: the budget's.
    #[schemars(range(min = 1))]
    pub gpus: Option<u64>,
    /// Replication or sharding of states. Default: none on one GPU, ddp on several.
    pub data_parallel: Option<DataParallel>,
    /// Ranks that share one copy. Default: all data-parallel ranks.
    #[schemars(range(min = 1))]
    pub shard_group: Option<u64>,
    /// Tensor-parallel degree. Default: 1.
    #[schemars(range(min = 1))]
    pub tensor: Option<u64>,
    /// Norms and dropout split over the tensor-parallel ranks too. Default: false.
    pub sequence_parallel: Option<bool>,
    /// The loss is computed on a rank's part of the vocabulary. Default: true under tensor parallel.
    pub vocab_parallel_loss: Option<bool>,
    /// DDP's gradients are views of its buckets (`gradient_as_bucket_view`). Default: false.
    pub ddp_bucket_view: Option<bool>,
    /// Pipeline stages. Default: 1.
    #[schemars(range(min = 1))]
    pub pipeline: Option<u64>,
    /// Their schedule. Default: 1f1b.
    pub schedule: Option<PipelineSchedule>,
    /// Model chunks a rank, under the schedules that have several. Default: 1.
    #[schemars(range(min = 1))]
    pub virtual_stages: Option<u64>,
    /// Context-parallel degree. Default: 1.
    #[schemars(range(min = 1))]
    pub context: Option<u64>,
    /// What context-parallel ranks exchange. Default: ring.
    pub context_exchange: Option<ContextExchange>,
    /// Micro-batches that go through one chunk before the next has its turn, under the interleaved
    /// schedule (Megatron's `microbatch_group_size_per_vp_stage`). Default: the pipeline stages.
    #[schemars(range(min = 1))]
    pub microbatch_group: Option<u64>,
    /// Layers of the first pipeline rank, where not all have the same number.
    #[schemars(range(min = 1))]
    pub first_stage_layers: Option<u64>,
    /// Layers of the last pipeline rank.
    #[schemars(range(min = 1))]
    pub last_stage_layers: Option<u64>,
    /// Which chunk of the pipeline has which layers, in Megatron's words: "Et|(tt|)*30mL".
    pub pipeline_layout: Option<String>,
    /// Layers that the embedding counts for where layers are shared out over stages. Default: 0.
    pub embedding_counts_for: Option<u64>,
    /// Layers that the head counts for. Default: 0.
    pub head_counts_for: Option<u64>,
    /// Expert-parallel degree. Default: 1.
    #[schemars(range(min = 1))]
    pub expert: Option<u64>,
    /// Ranks that share each expert's matrices (Megatron's `expert_tensor_parallel_size`). Default: the
    /// tensor-parallel degree; 1 for torchtitan with expert parallelism.
    #[schemars(range(min = 1))]
    pub expert_tensor: Option<u64>,
    /// Most tokens an expert takes, as a multiple of its share. Default: no token is dropped.
    pub expert_capacity: Option<f64>,
    /// One process of a host reads the checkpoint, and the others get it from there. Default: false.
    pub one_loads: Option<bool>,
    /// Where states live when not on the GPU.
    pub offload: Option<OffloadTable>,
    /// DeepSpeed's buffers, in elements.
    pub zero: Option<Zero>,
    /// FSDP's choices.
    pub fsdp: Option<Fsdp>,
}

/// Where states live when not on the GPU.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OffloadTable {
    /// Optimizer states. Default: none.
    pub optimizer: Option<Offload>,
    /// Weights. Default: none.
    pub parameters: Option<Offload>,
}

/// DeepSpeed's buffers, in elements.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Zero {
    /// Default: 5e8.
    pub reduce_bucket_size: Option<f64>,
    /// Default: 5e8.
    pub allgather_bucket_size: Option<f64>,
    /// Two reduce buckets. Default: true at stage 3, false below.
    pub overlap_comm: Option<bool>,
    /// Default: 5e7.
    pub stage3_prefetch_bucket_size: Option<f64>,
    /// Default: 1e9.
    pub stage3_max_live_parameters: Option<f64>,
    /// Default: 1e5.
    pub stage3_param_persistence_threshold: Option<f64>,
    /// Default: 1e9.
    pub sub_group_size: Option<f64>,
    /// Ranks that share a second copy of the weights (ZeRO++). Default: 1, none.
    pub zero_hpz_partition_size: Option<f64>,
    /// Weights are gathered in 8 bits (ZeRO++). Default: false.
    pub zero_quantized_weights: Option<bool>,
    /// Gradients are exchanged in 4 bits (ZeRO++). Default: false.
    pub zero_quantized_gradients: Option<bool>,
}

/// FSDP's choices.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fsdp {
    /// 1 or 2. Default: 2.
    #[schemars(range(min = 1, max = 2))]
    pub version: Option<u8>,
    /// Weights are freed after a layer's forward. Default: true.
    pub reshard_after_forward: Option<bool>,
    /// What gradients are reduced in, and FSDP2 keeps whole ones in while the reduction is put off
    /// (`reduce_dtype` of the policy). Default: fp32 where weights are cast to compute, else the weights' dtype.
    pub reduce: Option<Dtype>,
    /// Embedding, and last norm with head, are wrapped in groups of their own. Default: false.
    pub ends_apart: Option<bool>,
    /// Checkpoints lie around FSDP's units, not inside them (transformers before 4.52). Under version 1,
    /// reentrant checkpoints and frozen weights, every layer's input and its gradient then stay until
    /// the backward ends. Default: false.
    pub checkpoints_around_units: Option<bool>,
    /// Only the last micro-batch's backward reduces gradients (`no_sync`). Default: false.
    pub deferred_reduction: Option<bool>,
    /// Buffers that are never given back, as Megatron's FSDP has them: none, layers (two for layers' weights
    /// and two for their gradients) or all (those of embedding and head too). Default: none.
    pub kept_buffers: Option<KeptBuffers>,
}

/// What the run may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Budget {
    /// A GPU name such as H100-80GB (see `llmlint gpus`), or a cloud instance.
    pub gpu: Option<String>,
    /// GPUs in all.
    #[schemars(range(min = 1))]
    pub gpus: Option<u64>,
    /// Usable memory of one GPU, instead of a name: 79GiB.
    pub memory: Option<String>,
    /// Memory of one host, for offloaded states: 512GiB.
    pub host_memory: Option<String>,
}

/// Further `config.json` keys that a model's shape may need; accepted under `model:`.
#[rustfmt::skip]
pub const CONFIG_JSON_KEYS: &[&str] = &[
    "activation_function", "alibi", "attention_bias", "attention_dropout", "attn_config", "attn_pdrop", "bias",
    "clip_qkv", "d_ff", "d_kv", "d_model", "decoder_layers", "dim", "embd_pdrop", "expansion_ratio", "feed_forward_proj",
    "ffn_config", "ffn_dim", "ffn_hidden_size", "first_k_dense_replace", "hidden_act", "hidden_activation",
    "hidden_dropout", "hidden_dim", "intermediate_dim", "kv_lora_rank", "layer_types", "layer_norm_elementwise_affine",
    "max_sequence_length", "max_window_layers", "mlp_bias", "mlp_only_layers", "decoder_sparse_step",
    "moe_intermediate_size", "moe_layer_freq", "multi_query", "n_ctx", "n_embd", "n_head", "n_heads", "n_inner", "n_layer",
    "n_layers", "n_positions", "n_routed_experts", "n_shared_experts", "new_decoder_architecture", "no_bias", "num_decoder_layers",
    "num_experts", "num_experts_per_tok", "num_heads", "num_kv_heads", "num_layers", "num_local_experts", "parallel_attn",
    "partial_rotary_factor", "pad_token_id", "position_embedding_type", "q_lora_rank", "qk_layernorm", "qk_nope_head_dim",
    "qk_rope_head_dim", "quantization_config", "relative_attention_num_buckets", "resid_pdrop", "rope_scaling", "rope_theta",
    "rotary_dim", "rotary_pct", "shared_expert_intermediate_size", "sliding_window", "sliding_window_pattern",
    "text_config", "tie_encoder_decoder", "type_vocab_size", "use_bias", "use_parallel_residual", "use_qk_norm",
    "use_qkv_bias", "use_sliding_window", "v_head_dim", "vision_config", "vocabulary_size", "word_embed_proj_dim",
];
