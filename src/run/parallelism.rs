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
