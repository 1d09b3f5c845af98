//! Settings that GPT-NeoX refuses, and a width it silently makes a third of.

use super::Checked;
use super::refusals::{Extend, Refusals};
use crate::declare_rule;
use crate::document::Value;
use crate::finding::Finding;
use crate::framework::baseline::count;
use crate::framework::gpt_neox::{get, model::width};

declare_rule! {
    /// ## What it does
    ///
    /// Finds settings that GPT-NeoX stops on: batch sizes that contradict each other, precision
    /// given twice and differently, experts beside ZeRO 2 or 3, positions shorter than the
    /// sequence, a learning rate under its minimum, saving without an interval, data paths given
    /// twice. It warns where a gated activation makes the feed-forward width a third of what
    /// `intermediate_size` says and that is narrower than the model.
    ///
    /// ## Why
    ///
    /// GPT-NeoX asserts the first when every rank has started. The width is worse: the run starts
    /// and trains a smaller model. With `swiglu` GPT-NeoX takes two thirds of the written size and
    /// halves it for the gate, so a Llama's 11008 has to be written as three times that.
    ///
    /// ## Example
    ///
    /// ```yaml title="pretrain.yml" mark="11008"
    /// {
    ///   "pipe_parallel_size": 1,
    ///   "num_layers": 32,
    ///   "hidden_size": 4096,
    ///   "num_attention_heads": 32,
    ///   "seq_length": 4096,
    ///   "max_position_embeddings": 4096,
    ///   "activation": "swiglu",
    ///   "intermediate_size": 11008,
    ///   "train_micro_batch_size_per_gpu": 4
    /// }
    /// ```
    ///
    /// ```console
    /// $ llmlint pretrain.yml
    /// ```
    ///
    /// ## The fix
    ///
    /// Here, write three times the width that is meant:
    ///
    /// ```diff title="pretrain.yml"
    /// -  "intermediate_size": 11008,
    /// +  "intermediate_size": 33024,
    /// ```
    GptNeoxRefuses, "gpt-neox-refuses", Error, "GPT-NeoX stops on these settings, or trains another model"
}

impl GptNeoxRefuses {
    fn run(file: &Checked<'_>, findings: &mut Vec<Finding>) {
        let (Some(root), Some("gpt-neox")) = (file.root, file.framework.map(|f| f.name())) else { return };
        let mut r = Refusals { rule: Self::NAME, root, findings };
        batches(file, &mut r);
        precision(&mut r);
        gated_width(&mut r);
        experts(&mut r);
        rest(&mut r);
    }
}

fn number<'a>(r: &Refusals<'a, '_>, key: &str) -> Option<(u64, Value<'a>)> {
    let value = get(r.root, key)?;
    Some((count(value)?, value))
}

fn batches(file: &Checked<'_>, r: &mut Refusals<'_, '_>) {
    let (Some((whole, at)), Some((micro, beside)), Some(gpus)) = (
        number(r, "train_batch_size"),
        number(r, "train_micro_batch_size_per_gpu"),
        file.budget.and_then(|b| b.gpus),
    ) else {
        return;
    };
    let degree = |key: &str| number(r, key).map_or(1, |(n, _)| n);
    let ranks = gpus / degree("model_parallel_size").saturating_mul(degree("pipe_parallel_size")).max(1);
    let steps = degree("gradient_accumulation_steps");
    let written = get(r.root, "gradient_accumulation_steps").is_some();
    let wrong = if written {
        micro.saturating_mul(steps).saturating_mul(ranks) != whole
    } else {
        ranks > 0 && whole % micro.saturating_mul(ranks) != 0
    };
    if wrong {
        r.refuse(
            at,
            format!("a batch of {whole} is not {micro} x {steps} steps x {ranks} data-parallel ranks"),
            "GPT-NeoX asserts that the three batch settings agree.",
        )
        .beside(beside, "per GPU");
    }
}

fn precision(r: &mut Refusals<'_, '_>) {
    let Some((named, at)) = get(r.root, "precision").and_then(|v| Some((v.as_str()?, v))) else { return };
    for (block, right) in [("fp16", "fp16"), ("bf16", "bfloat16")] {
        let on = get(r.root, block)
            .and_then(|v| v.get("enabled"))
            .filter(|v| v.as_bool() == Some(true) && named != right);
        if let Some(beside) = on {
            r.refuse(
                at,
                format!("`precision` says {named}, the `{block}` block is enabled"),
                "GPT-NeoX asserts that they agree.",
            )
            .beside(beside, "enabled here");
        }
    }
}

fn gated_width(r: &mut Refusals<'_, '_>) {
    const GATED: [&str; 5] = ["swiglu", "geglu", "reglu", "bilinear", "glu"];
    let Some((hidden, _)) = number(r, "hidden_size") else { return };
    let Some(activation) =
        get(r.root, "activation").filter(|v| v.as_str().is_some_and(|s| GATED.contains(&s)))
    else {
        return;
    };
    let factor = get(r.root, "expansion_factor").filter(|v| v.to_float().is_some());
    let (written, at) = match (number(r, "intermediate_size"), factor) {
        (Some(size), _) => size,
        (None, Some(_)) => return,
        (None, None) => (hidden.saturating_mul(4), activation),
    };
    let real = width(r.root, hidden, true, false);
    // Gated feed-forwards are 2.5 to 4 times as wide as the model; narrower than 1.5 times is a
    // width that was written (or left to its default) without the factor of three.
    if real.saturating_mul(2) < hidden.saturating_mul(3) {
        let advice = if at.id() == activation.id() {
            "write `intermediate_size`, three times the width that is meant".to_owned()
        } else {
            format!("for a width of {written} write {}", written.saturating_mul(3))
        };
        r.warn(
            at,
            format!("the feed-forward width becomes {real}, not {written}"),
            "with a gated activation GPT-NeoX takes two thirds of the size and halves it for the gate.",
        )
        .advise(&advice)
        .beside(activation, "gated");
    }
    let Some((_, at)) = number(r, "intermediate_size") else { return };
    if let Some(beside) = factor {
        r.refuse(at, "the width is given twice", "GPT-NeoX asserts that only one of the two is there.")
            .beside(beside, "as a factor");
    }
}

fn experts(r: &mut Refusals<'_, '_>) {
    let stage = get(r.root, "zero_optimization").and_then(|v| v.get("stage"));
    if let Some((n, at)) = stage.and_then(|v| v.to_int().map(|n| (n, v))) {
        if !(0..=3).contains(&n) {
            r.refuse(at, format!("there is no ZeRO stage {n}"), "DeepSpeed has 0, 1, 2 and 3.");
        } else if let Some((_, beside)) = number(r, "moe_num_experts").filter(|(experts, _)| *experts > 1)
            && n > 1
        {
            r.refuse(
                at,
                format!("experts do not go with ZeRO stage {n}"),
                "GPT-NeoX asserts a stage below 2.",
            )
            .beside(beside, "experts");
        }
    }
}

fn rest(r: &mut Refusals<'_, '_>) {
    if let (Some((positions, at)), Some((length, beside))) =
        (number(r, "max_position_embeddings"), number(r, "seq_length"))
        && positions < length
    {
        r.refuse(
            at,
            format!("{positions} positions for sequences of {length}"),
            "GPT-NeoX asserts at least as many positions as tokens.",
        )
        .beside(beside, "the sequence");
    }
    let rate = get(r.root, "optimizer").and_then(|v| v.path("params.lr"));
    if let (Some(least), Some(rate)) = (get(r.root, "min_lr"), rate)
        && let (Some(low), Some(high)) = (least.as_float(), rate.as_float())
        && low > high
    {
        r.refuse(
            least,
            format!("the least learning rate {low} is above the rate {high}"),
            "GPT-NeoX asserts it.",
        )
        .beside(rate, "the rate");
    }
    if let Some(at) = get(r.root, "fp16_lm_cross_entropy").filter(|v| v.as_bool() == Some(true))
        && get(r.root, "precision").is_some_and(|v| v.as_str().is_some_and(|s| s != "fp16"))
    {
        r.refuse(at, "an fp16 loss needs fp16 training", "GPT-NeoX asserts it.");
    }
    if let (Some(one), Some(other)) = (get(r.root, "data_path"), get(r.root, "train_data_paths"))
        && one.text().is_some()
        && other.is_sequence()
    {
        r.refuse(one, "data is given twice", "GPT-NeoX takes `data_path` or the three `…_data_paths`.")
            .beside(other, "and here");
    }
    if let (Some((all, at)), Some((heads, beside))) =
        (number(r, "num_attention_heads"), number(r, "num_kv_heads"))
        && all % heads != 0
    {
        r.refuse(
            at,
            format!("{all} heads are no multiple of {heads} key/value heads"),
            "GPT-NeoX asserts it.",
        )
        .beside(beside, "key/value heads");
    }
}
