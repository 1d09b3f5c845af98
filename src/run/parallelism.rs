//! How a run is spread over GPUs.

use super::{Dtype, Setting};

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
    /// All forwards, then all backwards, over as many model chunks a rank as are asked for.
    #[serde(rename = "afab")]
    AllForwardAllBackward,
    /// Interleaved, with the gradients of weights put off to fill the bubble.
    #[serde(rename = "interleaved-zero-bubble")]
    InterleavedZeroBubble,
    /// Two chunks a rank in the shape of a V, gradients of weights put off.
    #[serde(rename = "zero-bubble-v")]
    ZeroBubbleV,
    /// Two chunks a rank in the shape of a V, forwards and backwards overlapped.
    #[serde(rename = "dual-pipe-v")]
    DualPipeV,
}

impl PipelineSchedule {
    /// Each rank has several chunks of the model.
    pub fn has_chunks(self) -> bool {
        !matches!(self, PipelineSchedule::OneForwardOneBackward)
    }

    /// Rank `i` of `p` has the chunks `i` and `2p − 1 − i`.
    pub fn is_v(self) -> bool {
        matches!(self, PipelineSchedule::ZeroBubbleV | PipelineSchedule::DualPipeV)
    }
}

/// How the layers are shared out over pipeline stages where it is not evenly.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StageLayers {
    /// Layers of the first rank.
    pub first: Option<Setting<u64>>,
    /// Layers of the last rank.
    pub last: Option<Setting<u64>>,
    /// Layers that the embedding counts for.
    pub embedding: Option<Setting<u64>>,
    /// Layers that the head counts for.
    pub head: Option<Setting<u64>>,
    /// At most so many layers a chunk; how many chunks a rank has follows from it.
    pub each: Option<Setting<u64>>,
    /// The first layer of each chunk but the first.
    pub starts: Option<Setting<Vec<u64>>>,
}

impl StageLayers {
    /// Layers that the embedding and the head count for.
    pub fn weights(&self) -> (u64, u64) {
        let of = |weight: &Option<Setting<u64>>| weight.as_ref().map_or(0, |n| n.value);
        (of(&self.embedding), of(&self.head))
    }
}

/// What context-parallel ranks exchange in attention.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum ContextExchange {
    /// Keys and values go from rank to rank.
    Ring,
    /// Each rank gathers all keys and values.
    AllGather,
    /// The same, one key head at a time (`varlen_llama3` of ring-flash-attention).
    GatherByHead,
    /// Heads for sequence (Ulysses).
    AllToAll,
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
    /// `zero_hpz_partition_size` (ZeRO++): ranks that share a second copy of the weights; 1: none.
    pub secondary: Setting<u64>,
    /// `zero_quantized_weights` (ZeRO++): weights are gathered in 8 bits.
    pub quantized_weights: Setting<bool>,
    /// `zero_quantized_gradients` (ZeRO++): gradients are exchanged in 4 bits.
    pub quantized_gradients: Setting<bool>,
    /// `pin_memory` of what is offloaded to the host.
    pub pinned: Setting<bool>,
    /// Elements of the host's buffers through which weights on NVMe pass: `buffer_count` of
    /// `buffer_size`.
    pub nvme_parameters: Setting<u64>,
    /// `max_in_cpu`: elements of those weights that stay on the host.
    pub nvme_in_cpu: Setting<u64>,
    /// Buffers of the largest sub-group through which states on NVMe pass.
    pub nvme_states: Setting<u64>,
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
    /// DeepSpeed's own defaults (0.19.6, `runtime/zero/config.py`, `offload_config.py`).
    pub fn defaults(stage3: bool, by: &str) -> ZeroBuffers {
        let size = |elements: u64| Setting::default_of(elements, by);
        let off = || Setting::default_of(false, by);
        ZeroBuffers {
            reduce_bucket: size(500_000_000),
            allgather_bucket: size(500_000_000),
            overlap_comm: Setting::default_of(stage3, by),
            prefetch_bucket: size(50_000_000),
            max_live_parameters: size(1_000_000_000),
            persistence_threshold: size(100_000),
            sub_group: size(1_000_000_000),
            secondary: size(1),
            quantized_weights: off(),
            quantized_gradients: off(),
            pinned: Setting::default_of(true, by),
            nvme_parameters: size(500_000_000),
            nvme_in_cpu: size(1_000_000_000),
            nvme_states: size(4),
            from_hidden: Vec::new(),
        }
    }

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

/// Buffers of FSDP that are made once and stay.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum KeptBuffers {
    /// None: memory comes from the allocator for each layer and goes back.
    None,
    /// Two for layers' weights and two for their gradients (`fsdp_double_buffer`).
    Layers,
    /// Those, and the weights and gradients of all that is no layer
    /// (`fsdp_db_use_persist_buf_on_alloc_fail`).
    All,
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
    /// Micro-batches that go through one chunk before the next has its turn, under the interleaved
    /// schedules; `None`: as many as there are stages.
    pub microbatch_group: Option<Setting<u64>>,
    /// Which stage has how many layers.
    pub stage_layers: StageLayers,
    /// Context-parallel degree (the sequence split over ranks).
    pub context: Setting<u64>,
    /// What its ranks exchange.
    pub context_exchange: Setting<ContextExchange>,
    /// Expert-parallel degree.
    pub expert: Setting<u64>,
    /// Ranks that share each expert's matrices; `None`: the tensor-parallel ones.
    pub expert_tensor: Option<Setting<u64>>,
    /// Most tokens an expert takes, as a multiple of its share; `None`: none is dropped.
    pub expert_capacity: Option<Setting<f64>>,
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
    /// One process of a host reads the checkpoint, and the others get it from there.
    pub one_loads: Setting<bool>,
    /// FSDP wraps the embedding, and the last norm with the head, in groups of their own, rather
    /// than leave them to the root.
    pub ends_apart: Setting<bool>,
    /// What FSDP gathers and reduces in buffers that are never given back (Megatron's).
    pub kept_buffers: KeptBuffers,
    /// Checkpoints lie around FSDP's units rather than inside them: what a model that checkpoints its
    /// layers itself does (transformers before 4.52).
    pub checkpoints_around_units: Setting<bool>,
}
