//! Settings that LitGPT refuses, or silently rounds.

use super::Checked;
use super::refusals::{Extend, Refusals};
use crate::declare_rule;
use crate::finding::Finding;

declare_rule! {
    /// ## What it does
    ///
    /// Finds combinations that LitGPT stops on: quantisation on several GPUs or with mixed
    /// precision, two kinds of warm-up, a warm-up fraction outside 0 to 1, a finetuning file
    /// without an end, a batch too small for its GPUs, heads that do not divide the width. It warns
    /// where a batch is rounded down without a word.
    ///
    /// ## Why
    ///
    /// LitGPT checks these when it starts. The accumulation is worked out by floor division: 100
    /// samples over 8 GPUs in micro-batches of 8 become 64.
    ///
    /// ## Example
    ///
    /// ```yaml title="qlora.yaml" mark="bnb.nf4"
    /// checkpoint_dir: checkpoints/meta-llama/Meta-Llama-3-8B
    /// precision: bf16-true
    /// quantize: bnb.nf4
    /// devices: 4
    /// lora_r: 16
    /// train:
    ///   global_batch_size: 16
    ///   micro_batch_size: 1
    ///   epochs: 2
    ///   max_seq_length: 2048
    /// ```
    ///
    /// ```console
    /// $ llmlint qlora.yaml
    /// ```
    ///
    /// ## The fix
    ///
    /// The message names both settings; change either.
    ///
    /// ```diff title="qlora.yaml"
    /// -devices: 4
    /// +devices: 1
    /// ```
    LitgptRefuses, "litgpt-refuses", Error, "LitGPT stops on these settings"
}

impl LitgptRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some("litgpt")) = (file.root, file.framework.map(|f| f.name())) else { return };
        let mut r = Refusals { rule: Self::NAME, root, findings };
        quantization(&mut r);
        schedule(&mut r);
        batches(&mut r);
        shape(&mut r);
    }
}

fn ranks(r: &Refusals<'_, '_>) -> Option<u64> {
    let devices = r.get("devices").map_or(Some(1), crate::framework::baseline::count)?;
    Some(devices.saturating_mul(r.count("num_nodes").map_or(1, |(n, _)| n)))
}

fn quantization(r: &mut Refusals<'_, '_>) {
    let Some((kind, at)) = r.text("quantize").filter(|(kind, _)| kind.starts_with("bnb.")) else { return };
    if let (Some(ranks), Some(devices)) = (ranks(r), r.get("devices"))
        && ranks > 1
    {
        r.refuse(
            at,
            format!("`{kind}` trains on one GPU only"),
            "LitGPT raises NotImplementedError on more than one.",
        )
        .beside(devices, "the GPUs");
    }
    if let Some((precision, beside)) =
        r.text("precision").filter(|(precision, _)| precision.contains("mixed"))
    {
        r.refuse(
            at,
            format!("`{kind}` does not go with `{precision}`"),
            "LitGPT raises ValueError: quantised weights have no fp32 copy to mix with.",
        )
        .beside(beside, "use bf16-true");
    }
}

fn schedule(r: &mut Refusals<'_, '_>) {
    let fraction = r.get("train.lr_warmup_fraction").and_then(|v| v.to_float().map(|x| (x, v)));
    if let Some((x, at)) = fraction {
        if !(0.0..=1.0).contains(&x) {
            r.refuse(
                at,
                format!("a warm-up fraction of {x} is not between 0 and 1"),
                "LitGPT raises ValueError.",
            );
        }
        if x != 0.0
            && let Some((_, beside)) = r.count("train.lr_warmup_steps")
        {
            r.refuse(at, "warm-up both as a fraction and in steps", "LitGPT raises ValueError; keep one.")
                .beside(beside, "in steps");
        }
    }
    if let (Some((warm, at)), Some((all, beside))) =
        (r.count("train.lr_warmup_steps"), r.count("train.max_steps"))
        && warm >= all
    {
        r.warn(
            at,
            format!("{warm} steps of warm-up in a run of {all}"),
            "the learning rate never reaches its value.",
        )
        .beside(beside, "the run's length");
    }
    let pretrains =
        ["model_name", "model_config", "initial_checkpoint_dir"].iter().any(|key| r.get(key).is_some());
    if let (true, Some(resume), Some((_, start))) =
        (pretrains, r.on("resume"), r.text("initial_checkpoint_dir"))
    {
        r.refuse(
            resume,
            "resuming and starting from a checkpoint at once",
            "LitGPT raises ValueError; keep one.",
        )
        .beside(start, "the checkpoint");
    }
    if let (false, Some(train)) = (pretrains, r.get("train"))
        && [train.get("epochs"), train.get("max_steps")].into_iter().all(|v| v.is_some_and(|v| v.is_null()))
    {
        r.refuse(
            train.get("epochs").unwrap_or(train),
            "finetuning without an end",
            "LitGPT raises ValueError unless `train.epochs` or `train.max_steps` is given.",
        );
    }
}

fn batches(r: &mut Refusals<'_, '_>) {
    let (Some((global, at)), Some((micro, beside)), Some(ranks)) =
        (r.count("train.global_batch_size"), r.count("train.micro_batch_size"), ranks(r))
    else {
        return;
    };
    let share = global / ranks;
    if share / micro == 0 {
        r.refuse(
            at,
            format!("a global batch of {global} leaves {share} samples a GPU, less than one micro-batch of {micro}"),
            "LitGPT asserts at least one micro-batch a step.",
        )
        .beside(beside, "the micro-batch");
    } else if global % ranks.saturating_mul(micro) != 0 {
        let kept = share / micro * micro * ranks;
        r.warn(
            at,
            format!("a global batch of {global} is rounded down to {kept}"),
            "the micro-batches of a step are worked out by floor division.",
        )
        .beside(beside, "the micro-batch");
    }
}

fn shape(r: &mut Refusals<'_, '_>) {
    let (width, heads) = (r.count("model_config.n_embd"), r.count("model_config.n_head"));
    if let (Some((width, at)), Some((heads, beside)), None) =
        (width, heads, r.count("model_config.head_size"))
        && width % heads != 0
    {
        r.refuse(at, format!("a width of {width} is no multiple of {heads} heads"), "LitGPT asserts it.")
            .beside(beside, "the heads");
    }
    if let (Some((groups, at)), Some((heads, beside))) = (r.count("model_config.n_query_groups"), heads)
        && heads % groups != 0
    {
        r.refuse(at, format!("{heads} heads are no multiple of {groups} query groups"), "LitGPT asserts it.")
            .beside(beside, "the heads");
    }
    const SWITCHES: [&str; 6] =
        ["lora_query", "lora_key", "lora_value", "lora_projection", "lora_mlp", "lora_head"];
    let off = |key: &str| r.get(key).is_some_and(|v| v.as_bool() == Some(false));
    if SWITCHES.iter().all(|key| off(key))
        && let Some(at) = r.get("lora_query")
    {
        r.warn(at, "LoRA without any target", "every `lora_…` switch is off: nothing is trained.");
    }
}
