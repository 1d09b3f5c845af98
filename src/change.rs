//! Changes that people make to a run so that it fits: what each does to the neutral
//! description, what it costs, and whether training itself stays the same.

use serde_json::Value as Json;

use crate::finding::Safety;
use crate::run::{
    Checkpointing, DataParallel, Dtype, FsdpOptions, Kernels, Lora, LoraTargets, Loss, Method, Offload,
    Optimizer, Quantization, Setting, TrainingRun, ZeroBuffers,
};

/// Rank of the adapters that are suggested: TRL's and Unsloth's default, and Axolotl's examples'.
pub const RANK: u64 = 16;

/// One thing to do to carry out a [`Change`] in a framework.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Give a key (dotted) a value. A list: it must hold at least these.
    Set(String, Json),
    /// Something outside the file, as an instruction.
    ByHand(String),
}

/// Steps that set keys of the file.
pub fn set<const N: usize>(pairs: [(&str, Json); N]) -> Option<Vec<Step>> {
    Some(pairs.into_iter().map(|(key, value)| Step::Set(key.to_owned(), value)).collect())
}

/// A step outside the file.
pub fn by_hand(instruction: impl Into<String>) -> Option<Vec<Step>> {
    Some(vec![Step::ByHand(instruction.into())])
}

/// One change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Change {
    /// A smaller micro batch, with accumulation raised to keep the global batch.
    MicroBatch {
        /// The new micro batch.
        size: u64,
        /// The new number of micro-batches a step.
        accumulation: u64,
    },
    /// Every layer is recomputed in the backward.
    Checkpoint,
    /// Logits and loss in this many pieces of the sequence.
    ChunkLoss(u32),
    /// The loss is fused with the head's matrix product.
    FuseLoss,
    /// Fused kernels for norms, rotary and gated MLPs, fused loss included (Liger).
    Liger,
    /// States of the same optimizer in 8 bits.
    Optimizer8bit,
    /// … which the driver may page to the host.
    PagedOptimizer8bit,
    /// States (and at stage 3 weights) divided over the data-parallel ranks.
    Shard(DataParallel),
    /// Optimizer states in the host's memory.
    OffloadOptimizer,
    /// Optimizer states and weights in the host's memory; weights come over layer by layer.
    OffloadAll,
    /// Adapters instead of full training.
    Lora,
    /// Adapters over 4-bit weights.
    Qlora,
    /// Shorter sequences.
    SequenceLength(u64),
    /// More GPUs.
    Gpus(u64),
}

impl Change {
    /// What the change costs, as a rank: cheaper first. The order is that of the extra work a
    /// step does: none; the same work in smaller pieces; recomputing each layer's forward (4/3
    /// of the arithmetic: forward, forward again, backward of twice a forward); gathering
    /// weights over the network (1.5 times DDP's traffic at stage 3, ZeRO paper section 7);
    /// moving states over PCIe each step; and last, another kind of training altogether.
    pub fn cost(self) -> u32 {
        match self {
            Change::FuseLoss => 1,
            Change::Liger => 1,
            Change::ChunkLoss(_) => 1,
            Change::MicroBatch { .. } => 2,
            Change::Shard(DataParallel::Zero1) => 2,
            Change::Shard(DataParallel::Zero2) => 3,
            Change::Checkpoint => 5,
            Change::Shard(_) => 6,
            Change::Optimizer8bit => 8,
            Change::PagedOptimizer8bit => 10,
            Change::OffloadOptimizer => 14,
            Change::OffloadAll => 18,
            Change::Gpus(_) => 20,
            Change::SequenceLength(_) => 24,
            Change::Lora => 30,
            Change::Qlora => 36,
        }
    }

    /// Which knob the change turns: two changes of one knob are alternatives, not a choice worth
    /// showing twice.
    pub fn knob(self) -> &'static str {
        match self {
            Change::MicroBatch { .. } => "micro batch",
            Change::Checkpoint => "checkpointing",
            Change::FuseLoss | Change::Liger | Change::ChunkLoss(_) => "loss",
            Change::Optimizer8bit | Change::PagedOptimizer8bit => "optimizer",
            Change::Shard(_) => "sharding",
            Change::OffloadOptimizer | Change::OffloadAll => "offload",
            Change::Lora | Change::Qlora => "method",
            Change::SequenceLength(_) => "sequence length",
            Change::Gpus(_) => "gpus",
        }
    }

    /// Whether the same model is trained on the same batches.
    pub fn safety(self) -> Safety {
        match self {
            Change::MicroBatch { .. }
            | Change::Checkpoint
            | Change::FuseLoss
            | Change::Liger
            | Change::ChunkLoss(_)
            | Change::Shard(_)
            | Change::OffloadOptimizer
            | Change::OffloadAll => Safety::Safe,
            Change::Optimizer8bit
            | Change::PagedOptimizer8bit
            | Change::Lora
            | Change::Qlora
            | Change::SequenceLength(_)
            | Change::Gpus(_) => Safety::Unsafe,
        }
    }

    /// In words, as an instruction.
    pub fn describe(self) -> String {
        match self {
            Change::MicroBatch { size, accumulation } => {
                format!("micro batch {size} with {accumulation} accumulation steps")
            }
            Change::Checkpoint => "activation checkpointing".into(),
            Change::ChunkLoss(chunks) => format!("the loss in {chunks} chunks"),
            Change::FuseLoss => "a fused loss".into(),
            Change::Liger => "Liger kernels, fused loss included".into(),
            Change::Optimizer8bit => "8-bit optimizer states".into(),
            Change::PagedOptimizer8bit => "paged 8-bit optimizer states".into(),
            Change::Shard(DataParallel::Zero1) => "ZeRO stage 1".into(),
            Change::Shard(DataParallel::Zero2) => "ZeRO stage 2".into(),
            Change::Shard(DataParallel::Zero3) => "ZeRO stage 3".into(),
            Change::Shard(_) => "FSDP".into(),
            Change::OffloadOptimizer => "optimizer states offloaded to the host".into(),
            Change::OffloadAll => "weights and optimizer states offloaded to the host".into(),
            Change::Lora => format!("LoRA of rank {RANK}"),
            Change::Qlora => "QLoRA (4-bit base weights)".into(),
            Change::SequenceLength(length) => format!("sequences of {length} tokens"),
            Change::Gpus(gpus) => format!("{gpus} GPUs"),
        }
    }

    /// Carries the change out. `None`: it does not apply (already so, or not combinable).
    pub fn apply(self, run: &TrainingRun) -> Option<TrainingRun> {
        let mut run = run.clone();
        match self {
            Change::MicroBatch { size, accumulation } => {
                if size >= run.micro_batch_size.value {
                    return None;
                }
                run.micro_batch_size.value = size;
                run.gradient_accumulation_steps.value = accumulation;
            }
            Change::Checkpoint => {
                if run.activation_checkpointing.value == Checkpointing::Full {
                    return None;
                }
                run.activation_checkpointing.value = Checkpointing::Full;
            }
            Change::FuseLoss => {
                if run.loss.value.without_logits() {
                    return None;
                }
                run.loss.value = Loss::Fused;
            }
            Change::ChunkLoss(chunks) => {
                if run.loss.value.without_logits() || matches!(run.loss.value, Loss::Chunked { .. }) {
                    return None;
                }
                run.loss.value = Loss::Chunked { chunked: chunks };
            }
            Change::Liger => {
                if run.kernels.value == Kernels::Liger {
                    return None;
                }
                run.kernels.value = Kernels::Liger;
                if !run.loss.value.without_logits() {
                    run.loss.value = Loss::Fused;
                }
            }
            Change::Optimizer8bit => run.optimizer.value = eight_bit(run.optimizer.value)?,
            Change::PagedOptimizer8bit => run.optimizer.value = paged(run.optimizer.value)?,
            Change::Shard(stage) => {
                let gpus = run.parallelism.gpus.as_ref()?.value;
                let dividing = |stage: DataParallel| match stage {
                    DataParallel::None | DataParallel::Ddp | DataParallel::MegatronDistributed => 0,
                    DataParallel::Zero1 => 1,
                    DataParallel::Zero2 => 2,
                    DataParallel::Zero3 | DataParallel::Fsdp | DataParallel::Hsdp => 3,
                };
                if gpus < 2 || dividing(run.parallelism.data_parallel.value) >= dividing(stage) {
                    return None;
                }
                run.parallelism.data_parallel.value = stage;
                if stage == DataParallel::Fsdp {
                    let reduce = Setting::assumed(run.compute.value, "suggested");
                    run.parallelism.fsdp.get_or_insert_with(|| FsdpOptions {
                        version: Setting::assumed(2, "suggested"),
                        reshard_after_forward: Setting::assumed(true, "suggested"),
                        reduce,
                        deferred_reduction: Setting::assumed(false, "suggested"),
                    });
                } else {
                    run.parallelism.zero.get_or_insert_with(stock_buffers);
                }
            }
            Change::OffloadOptimizer => {
                let zero = matches!(
                    run.parallelism.data_parallel.value,
                    DataParallel::Zero1 | DataParallel::Zero2 | DataParallel::Zero3
                );
                if !zero || run.parallelism.offload_optimizer.value != Offload::None {
                    return None;
                }
                run.parallelism.offload_optimizer.value = Offload::Cpu;
            }
            Change::OffloadAll => {
                let whole = matches!(
                    run.parallelism.data_parallel.value,
                    DataParallel::Zero3 | DataParallel::Fsdp | DataParallel::Hsdp
                );
                if !whole || run.parallelism.offload_parameters.value != Offload::None {
                    return None;
                }
                run.parallelism.offload_optimizer.value = Offload::Cpu;
                run.parallelism.offload_parameters.value = Offload::Cpu;
            }
            Change::Lora => {
                if run.method.value != Method::Full {
                    return None;
                }
                adapt(&mut run, Method::Lora);
            }
            Change::Qlora => {
                if run.method.value == Method::Qlora || run.weights.value == Dtype::Fp32 {
                    return None;
                }
                adapt(&mut run, Method::Qlora);
                run.quantization.value = Quantization::Nf4Double;
            }
            Change::SequenceLength(length) => {
                if length >= run.sequence_length.value {
                    return None;
                }
                run.sequence_length.value = length;
            }
            Change::Gpus(gpus) => {
                let now = run.parallelism.gpus.as_mut()?;
                if gpus <= now.value {
                    return None;
                }
                let factor = gpus / now.value.max(1);
                now.value = gpus;
                // A group that spans all ranks grows with them; HSDP's stays within a machine.
                if run.parallelism.data_parallel.value == DataParallel::Fsdp
                    && let Some(group) = &mut run.parallelism.shard_group
                {
                    group.value = group.value.saturating_mul(factor);
                }
                // The same global batch, where it divides.
                let steps = &mut run.gradient_accumulation_steps.value;
                if factor > 0 && steps.is_multiple_of(factor) {
                    *steps /= factor;
                }
            }
        }
        Some(run)
    }
}

fn adapt(run: &mut TrainingRun, method: Method) {
    let said = |reason: &str| reason.to_owned();
    run.method.value = method;
    run.master_weights.value = false;
    run.gradients.value = Dtype::Fp32;
    run.optimizer_state.value = Dtype::Fp32;
    run.lora.get_or_insert_with(|| Lora {
        rank: Setting::assumed(RANK, said("suggested")),
        targets: Setting::assumed(LoraTargets::AllLinear, said("suggested")),
        dropout: Setting::assumed(0.0, said("suggested")),
        dtype: Setting::assumed(Dtype::Fp32, said("PEFT stores adapters in fp32")),
        dora: Setting::assumed(false, said("suggested")),
        modules_to_save: Setting::assumed(Vec::new(), said("suggested")),
    });
}

fn eight_bit(optimizer: Optimizer) -> Option<Optimizer> {
    match optimizer {
        Optimizer::Adam | Optimizer::Adamw | Optimizer::Adamw32bit => Some(Optimizer::Adamw8bit),
        Optimizer::Lion => Some(Optimizer::Lion8bit),
        Optimizer::Galore => Some(Optimizer::Galore8bit),
        _ => None,
    }
}

fn paged(optimizer: Optimizer) -> Option<Optimizer> {
    match optimizer {
        Optimizer::Adam
        | Optimizer::Adamw
        | Optimizer::Adamw32bit
        | Optimizer::Adamw8bit
        | Optimizer::PagedAdamw32bit => Some(Optimizer::PagedAdamw8bit),
        Optimizer::Lion | Optimizer::Lion8bit => Some(Optimizer::PagedLion8bit),
        _ => None,
    }
}

/// DeepSpeed's own defaults (`runtime/zero/config.py`).
fn stock_buffers() -> ZeroBuffers {
    ZeroBuffers::defaults(true, "DeepSpeed 0.18")
}
