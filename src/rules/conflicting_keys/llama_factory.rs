//! LLaMA-Factory's own refusals: `hparams/parser.py` (`get_train_args`, `_verify_model_args`),
//! `hparams/finetuning_args.py` and `hparams/data_args.py` (`__post_init__`) at commit ff6d4d1.

use super::Test::{
    Above, Distributed, DistributedWithoutZero3, Given, Is, IsNot, IsOrAbsent, On, OnWith, Several, Zero3,
};
use super::{Conflict, dropped, refused};

const TYPE: &str = "finetuning_type";
/// What an absent `finetuning_type` means comes first.
const LORA: &[&str] = &["lora"];

pub(super) const CONFLICTS: &[Conflict] = &[
    refused(
        Given("quantization_bit"),
        IsNot(TYPE, &["lora", "oft"]),
        "Quantised weights can only be trained through adapters.",
    ),
    refused(
        Given("quantization_bit"),
        On("pissa_init"),
        "PiSSA initialises adapters from full-precision weights.",
    ),
    refused(
        Given("quantization_bit"),
        On("resize_vocab"),
        "A quantised model's embeddings cannot be resized.",
    ),
    refused(Given("quantization_bit"), On("fp8"), "fp8 training needs weights that are not quantised."),
    refused(Given("adapter_name_or_path"), IsNot(TYPE, LORA), "Only LoRA loads an adapter."),
    refused(
        On("use_galore"),
        IsOrAbsent(TYPE, LORA),
        "GaLore projects the gradients of full weights; it cannot work on adapters.",
    ),
    refused(
        On("use_apollo"),
        IsOrAbsent(TYPE, LORA),
        "APOLLO projects the gradients of full weights; it cannot work on adapters.",
    ),
    refused(
        On("use_badam"),
        IsOrAbsent(TYPE, LORA),
        "BAdam trains blocks of full weights; it cannot work on adapters.",
    ),
    refused(On("use_galore"), On("use_apollo"), "Only one of GaLore, APOLLO and BAdam can be the optimizer."),
    refused(On("use_galore"), On("use_badam"), "Only one of GaLore, APOLLO and BAdam can be the optimizer."),
    refused(On("use_apollo"), On("use_badam"), "Only one of GaLore, APOLLO and BAdam can be the optimizer."),
    refused(On("use_galore"), Given("deepspeed"), "DeepSpeed's optimizer cannot be replaced by GaLore."),
    refused(On("use_apollo"), Given("deepspeed"), "DeepSpeed's optimizer cannot be replaced by APOLLO."),
    refused(
        OnWith("galore_layerwise", "use_galore"),
        Several("gradient_accumulation_steps"),
        "Each layer is stepped inside the backward pass; LLaMA-Factory stops.",
    ),
    refused(
        OnWith("apollo_layerwise", "use_apollo"),
        Several("gradient_accumulation_steps"),
        "Each layer is stepped inside the backward pass; LLaMA-Factory stops.",
    ),
    // How many GPUs there are is said outside the file: warnings.
    dropped(
        OnWith("galore_layerwise", "use_galore"),
        Distributed,
        "Layer-wise GaLore runs on one GPU only; LLaMA-Factory stops.",
    ),
    dropped(
        OnWith("apollo_layerwise", "use_apollo"),
        Distributed,
        "Layer-wise APOLLO runs on one GPU only; LLaMA-Factory stops.",
    ),
    dropped(
        On("use_badam"),
        DistributedWithoutZero3,
        "BAdam runs on several GPUs only under stage 3; LLaMA-Factory stops.",
    ),
    dropped(
        Is("badam_mode", &["ratio"]),
        Distributed,
        "Ratio-based BAdam runs on one GPU only; LLaMA-Factory stops.",
    ),
    refused(On("pure_bf16"), Zero3, "Stage 3 keeps trained weights in fp32 itself."),
    refused(On("use_unsloth"), Zero3, "Unsloth loads the whole model on every GPU."),
    refused(On("use_kt"), Zero3, "KTransformers places the weights itself."),
    refused(On("pissa_init"), Zero3, "PiSSA needs whole weight matrices; stage 3 holds slices."),
    refused(On("predict_with_generate"), Zero3, "Generation with gathered weights is not supported."),
    refused(On("pissa_init"), Is("stage", &["ppo", "kto"]), "PiSSA is not available in this stage."),
    refused(On("pissa_init"), IsNot(TYPE, LORA), "PiSSA initialises LoRA adapters."),
    refused(On("use_dora"), IsNot(TYPE, LORA), "DoRA is a form of LoRA."),
    refused(On("use_rslora"), IsNot(TYPE, LORA), "rsLoRA is a form of LoRA."),
    refused(
        Given("loraplus_lr_ratio"),
        IsNot(TYPE, LORA),
        "LoRA+ sets the learning rates of LoRA's matrices.",
    ),
    refused(On("use_llama_pro"), Is(TYPE, &["full"]), "LLaMA Pro trains some blocks and freezes the rest."),
    refused(On("use_unsloth"), Is(TYPE, &["oft"]), "Unsloth knows no orthogonal fine-tuning."),
    refused(On("neat_packing"), IsNot("stage", &["sft"]), "Only supervised fine-tuning packs this way."),
    refused(
        On("train_on_prompt"),
        IsNot("stage", &["sft"]),
        "Only supervised fine-tuning has prompts that could be trained on.",
    ),
    refused(
        On("mask_history"),
        IsNot("stage", &["sft"]),
        "Only supervised fine-tuning has a history that could be masked.",
    ),
    refused(
        On("predict_with_generate"),
        IsNot("stage", &["sft"]),
        "Only supervised fine-tuning generates predictions.",
    ),
    refused(On("train_on_prompt"), On("mask_history"), "One trains on what the other masks."),
    refused(
        On("predict_with_generate"),
        On("compute_accuracy"),
        "Accuracy is computed from logits, which generation does not keep.",
    ),
    refused(
        On("load_best_model_at_end"),
        Is("stage", &["rm", "ppo"]),
        "These stages do not load the best checkpoint at the end.",
    ),
    refused(
        Above("dpo_label_smoothing"),
        IsNot("pref_loss", &["sigmoid"]),
        "Label smoothing belongs to the sigmoid loss.",
    ),
    refused(On("streaming"), Given("max_samples"), "A stream is not cut to a number of samples."),
    refused(
        Given("interleave_probs"),
        IsOrAbsent("mix_strategy", &["concat"]),
        "Probabilities belong to the interleaving strategies.",
    ),
    refused(Above("val_size"), Given("eval_dataset"), "The evaluation set is either split off or given."),
    refused(
        Is("quantization_device_map", &["auto"]),
        On("do_train"),
        "Training needs every rank's weights on its own GPU.",
    ),
    refused(Is("infer_backend", &["vllm", "sglang"]), On("do_train"), "The inference engines do not train."),
];
