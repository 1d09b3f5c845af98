//! Changes in Axolotl's own words. Facts: axolotl 0.21.0, `utils/schemas/`,
//! `integrations/liger/`, `deepspeed_configs/`.

use serde_json::Value as Json;

use crate::change::{Change, RANK, Step, by_hand, set};
use crate::document::Value;
use crate::framework::training_arguments::{self as hf, flag};
use crate::run::{DataParallel, Dtype, Optimizer, Task, TrainingRun};

const LIGER: &str = "axolotl.integrations.liger.LigerPlugin";

pub(super) fn steps(change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
    let adamw = run.optimizer.value == Optimizer::Adamw;
    let parallel = &run.parallelism;
    // Preference trainers compute their loss themselves.
    let causal = run.task.value == Task::CausalLm;
    match change {
        // `batch_size` is the product, and not allowed beside the steps it is made of.
        Change::MicroBatch { size, .. } if root.get("batch_size").is_some_and(|v| !v.is_null()) => {
            set([("micro_batch_size", size.into())])
        }
        Change::MicroBatch { size, accumulation } => {
            set([("micro_batch_size", size.into()), ("gradient_accumulation_steps", accumulation.into())])
        }
        Change::Checkpoint => set([("gradient_checkpointing", true.into())]),
        Change::ChunkLoss(chunks) if causal => {
            set([("chunked_cross_entropy", true.into()), ("chunked_cross_entropy_num_chunks", chunks.into())])
        }
        Change::FuseLoss if causal => {
            set([("plugins", vec![LIGER].into()), ("liger_fused_linear_cross_entropy", true.into())])
        }
        // The adapters' own fused kernels replace the same functions.
        Change::Liger if causal && !on(root, "lora_mlp_kernel") => {
            let fused = run.loss.value == crate::run::Loss::Fused;
            let mut steps = set([
                ("plugins", vec![LIGER].into()),
                ("liger_rope", true.into()),
                ("liger_rms_norm", true.into()),
                ("liger_glu_activation", true.into()),
            ])?;
            if !fused {
                steps.extend(set([("liger_fused_linear_cross_entropy", true.into())])?);
            }
            Some(steps)
        }
        Change::Optimizer8bit if adamw && parallel.fsdp.is_some() => {
            set([("optimizer", "adamw_torch_8bit".into())])
        }
        Change::Optimizer8bit if adamw => set([("optimizer", "adamw_bnb_8bit".into())]),
        Change::PagedOptimizer8bit if adamw && parallel.fsdp.is_none() => {
            set([("optimizer", "paged_adamw_8bit".into())])
        }
        Change::Shard(stage) => shard(stage, run),
        Change::OffloadOptimizer | Change::OffloadAll => offload(change, run, root),
        Change::Lora => adapter("lora", run, root),
        Change::Qlora if parallel.data_parallel.value != DataParallel::Zero3 => {
            let mut steps = adapter("qlora", run, root)?;
            steps.extend(set([("load_in_4bit", true.into())])?);
            if on(root, "load_in_8bit") {
                steps.extend(set([("load_in_8bit", false.into())])?);
            }
            Some(steps)
        }
        Change::SequenceLength(length) => set([("sequence_len", length.into())]),
        _ => None,
    }
}

fn on(root: Value<'_>, key: &str) -> bool {
    root.get(key).and_then(flag) == Some(true)
}

/// `axolotl fetch deepspeed_configs` brings the files. Its `zero2.json` offloads too.
fn shard(stage: DataParallel, run: &TrainingRun) -> Option<Vec<Step>> {
    let file = |name: &str| set([("deepspeed", format!("deepspeed_configs/{name}").into())]);
    match stage {
        DataParallel::Zero1 => file("zero1.json"),
        DataParallel::Zero3 if run.compute.value == Dtype::Bf16 => file("zero3_bf16.json"),
        DataParallel::Zero3 => file("zero3.json"),
        DataParallel::Fsdp if run.parallelism.zero.is_none() => set([
            ("fsdp_version", 2.into()),
            ("fsdp_config.auto_wrap_policy", "TRANSFORMER_BASED_WRAP".into()),
            ("fsdp_config.reshard_after_forward", true.into()),
        ]),
        _ => None,
    }
}

fn offload(change: Change, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
    let file = |name: &str| set([("deepspeed", format!("deepspeed_configs/{name}").into())]);
    let own = root.get("deepspeed").is_some_and(|v| !v.is_null());
    match run.parallelism.data_parallel.value {
        DataParallel::Fsdp | DataParallel::Hsdp => set([("fsdp_config.offload_params", true.into())]),
        DataParallel::Zero3 if change == Change::OffloadAll && !own && run.compute.value == Dtype::Bf16 => {
            file("zero3_bf16_cpuoffload_all.json")
        }
        DataParallel::Zero2 if !own => file("zero2.json"),
        _ if own => hf::offload_in_deepspeed(change),
        _ => None,
    }
}

/// An adapter that is there keeps its rank and its targets.
fn adapter(name: &str, run: &TrainingRun, root: Value<'_>) -> Option<Vec<Step>> {
    let mut steps = set([("adapter", name.into())])?;
    if run.lora.is_none() {
        steps.extend(set([
            ("lora_r", RANK.into()),
            ("lora_alpha", Json::from(2 * RANK)),
            ("lora_target_linear", true.into()),
        ])?);
    }
    // Only full fine-tuning takes a list of parameters to train.
    let partial = root.get("unfrozen_parameters").is_some_and(|v| v.items().next().is_some());
    if partial { by_hand("remove `unfrozen_parameters` and train an adapter") } else { Some(steps) }
}
