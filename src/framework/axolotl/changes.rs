//! Changes in Axolotl's own words. What needs an entry in `plugins` is left out where the plugin
//! is not known to be listed: the list may hold others.

use serde_json::Value as Json;

use crate::change::Change;
use crate::run::{DataParallel, Dtype, Kernels, Optimizer, TrainingRun};

pub(super) fn assignments(change: Change, run: &TrainingRun) -> Option<Vec<(String, Json)>> {
    let adamw = run.optimizer.value == Optimizer::Adamw;
    let fsdp = run.parallelism.fsdp.is_some();
    let adapter = |name: &str| {
        vec![
            ("adapter", Json::from(name)),
            ("lora_r", 16.into()),
            ("lora_alpha", 32.into()),
            ("lora_target_linear", true.into()),
        ]
    };
    let pairs: Vec<(&str, Json)> = match change {
        Change::MicroBatch { size, accumulation } => {
            vec![("micro_batch_size", size.into()), ("gradient_accumulation_steps", accumulation.into())]
        }
        Change::Checkpoint => vec![("gradient_checkpointing", true.into())],
        // Liger's kernels are in use, so its plugin is listed.
        Change::FuseLoss if run.kernels.value == Kernels::Liger => {
            vec![("liger_fused_linear_cross_entropy", true.into())]
        }
        Change::Optimizer8bit if adamw && fsdp => vec![("optimizer", "adamw_torch_8bit".into())],
        Change::Optimizer8bit if adamw => vec![("optimizer", "adamw_bnb_8bit".into())],
        Change::PagedOptimizer8bit if adamw && !fsdp => vec![("optimizer", "paged_adamw_8bit".into())],
        // Files that `axolotl fetch deepspeed_configs` brings; its zero2.json offloads, too.
        Change::Shard(DataParallel::Zero1) => vec![("deepspeed", "deepspeed_configs/zero1.json".into())],
        Change::Shard(DataParallel::Zero3) if run.compute.value == Dtype::Bf16 => {
            vec![("deepspeed", "deepspeed_configs/zero3_bf16.json".into())]
        }
        Change::Shard(DataParallel::Zero3) => vec![("deepspeed", "deepspeed_configs/zero3.json".into())],
        Change::Shard(DataParallel::Fsdp) => vec![
            ("fsdp_version", 2.into()),
            ("fsdp_config.auto_wrap_policy", "TRANSFORMER_BASED_WRAP".into()),
            ("fsdp_config.reshard_after_forward", true.into()),
        ],
        Change::Lora => adapter("lora"),
        Change::Qlora => {
            let mut pairs = adapter("qlora");
            pairs.push(("load_in_4bit", true.into()));
            pairs
        }
        Change::SequenceLength(length) => vec![("sequence_len", length.into())],
        _ => return None,
    };
    Some(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}
