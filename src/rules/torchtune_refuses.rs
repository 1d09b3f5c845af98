//! Settings that torchtune's recipes refuse.

use super::Checked;
use super::refusals::{Extend, Refusals};
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Finds combinations that a torchtune recipe raises on: fp16, activation offloading without
    /// checkpointing, an optimizer inside backward together with accumulation, clipping or a
    /// compiled step, tensor parallelism without a plan or with LoRA, packing without a sequence
    /// length, validation without a data set, LoRA without modules.
    ///
    /// ## Why
    ///
    /// The recipes check these when they start, after the download and the launch.
    ///
    /// ## Example
    ///
    /// ```yaml title="full.yaml" mark="optimizer_in_bwd: >True<"
    /// tokenizer:
    ///   _component_: torchtune.models.llama3.llama3_tokenizer
    ///   path: llama/tokenizer.model
    ///   max_seq_len: 4096
    /// dataset:
    ///   _component_: torchtune.datasets.alpaca_dataset
    ///   packed: True
    /// model:
    ///   _component_: torchtune.models.llama3_1.llama3_1_8b
    /// checkpointer:
    ///   _component_: torchtune.training.FullModelHFCheckpointer
    ///   checkpoint_dir: llama
    ///   model_type: LLAMA3
    /// optimizer:
    ///   _component_: bitsandbytes.optim.PagedAdamW8bit
    ///   lr: 2e-5
    /// optimizer_in_bwd: True
    /// loss:
    ///   _component_: torchtune.modules.loss.LinearCrossEntropyLoss
    /// epochs: 1
    /// batch_size: 2
    /// gradient_accumulation_steps: 8
    /// enable_activation_checkpointing: True
    /// device: cuda
    /// dtype: bf16
    /// ```
    ///
    /// ```console
    /// $ llmlint full.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// The message names both settings; change either.
    ///
    /// ```diff title="full.yaml"
    /// -gradient_accumulation_steps: 8
    /// +gradient_accumulation_steps: 1
    /// ```
    TorchtuneRefuses, "torchtune-refuses", Error, "torchtune stops on these settings"
}

impl TorchtuneRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some("torchtune")) = (file.root, file.framework.map(|f| f.name())) else { return };
        let mut r = Refusals { rule: Self::NAME, root, findings };
        if let Some(("fp16", at)) = r.text("dtype") {
            r.refuse(at, "torchtune does not train in fp16", "the recipes raise ValueError.")
                .advise("use bf16, or fp32 where the GPU has no bf16");
        }
        if let Some(at) = r.on("enable_activation_offloading")
            && r.on("enable_activation_checkpointing").is_none()
        {
            r.refuse(
                at,
                "activation offloading needs activation checkpointing",
                "the recipes raise RuntimeError: offloading moves what checkpointing keeps.",
            )
            .advise("set `enable_activation_checkpointing: True`");
        }
        in_backward(&mut r);
        parallel(&mut r);
        data(&mut r);
    }
}

fn in_backward(r: &mut Refusals<'_, '_>) {
    let Some(at) = r.on("optimizer_in_bwd") else { return };
    if let Some((steps, beside)) = r.count("gradient_accumulation_steps")
        && steps > 1
    {
        r.refuse(
            at,
            "an optimizer inside backward cannot accumulate gradients",
            "each backward already steps and frees its gradients; the recipes raise RuntimeError.",
        )
        .beside(beside, "more than one step");
    }
    if let Some(beside) = r.get("clip_grad_norm").filter(|v| v.to_float().is_some()) {
        r.refuse(
            at,
            "an optimizer inside backward cannot clip gradients",
            "the norm over all gradients is never known; the recipes raise RuntimeError.",
        )
        .beside(beside, "clipping");
    }
    if let Some(beside) = r.on("compile.optimizer_step") {
        r.refuse(at, "an optimizer inside backward has no step to compile", "the recipes raise ValueError.")
            .beside(beside, "the compiled step");
    }
}

fn parallel(r: &mut Refusals<'_, '_>) {
    let Some((degree, at)) = r.count("tensor_parallel_dim").filter(|(degree, _)| *degree > 1) else { return };
    if r.get("tensor_parallel_plan").is_none_or(|v| v.is_null()) {
        r.refuse(
            at,
            format!("{degree} tensor ranks need a `tensor_parallel_plan`"),
            "the recipes raise ValueError without one.",
        );
    }
    if let Some(rank) = r.get("model.lora_rank") {
        r.refuse(
            at,
            "torchtune's LoRA recipes have no tensor parallelism",
            "the distributed LoRA recipe asserts a degree of 1.",
        )
        .beside(rank, "LoRA");
    }
}

fn data(r: &mut Refusals<'_, '_>) {
    let length = r.get("tokenizer.max_seq_len");
    if let Some(at) = r.on("dataset.packed")
        && length.is_none_or(|v| v.is_null())
        && r.get("dataset.max_seq_len").is_none()
    {
        r.refuse(
            at,
            "packing needs `tokenizer.max_seq_len`",
            "rows are packed to that length; torchtune raises ValueError without it.",
        );
    }
    if let Some(at) = r.get("run_val_every_n_steps").filter(|v| v.to_int().is_some())
        && r.get("dataset_val").is_none_or(|v| v.is_null())
    {
        r.refuse(at, "validation needs a `dataset_val`", "the recipes assert it.");
    }
    if let Some(at) =
        r.get("model.lora_attn_modules").filter(|v| v.is_sequence() && v.items().next().is_none())
    {
        r.refuse(at, "LoRA without attention modules", "torchtune raises ValueError on an empty list.");
    }
    if let Some((name, at)) = r.text("collate_fn")
        && name.ends_with("left_pad_sequence")
    {
        r.refuse(at, "`left_pad_sequence` is for generation only", "the recipes raise RuntimeError.");
    }
}
