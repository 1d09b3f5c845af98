//! The architecture that a GPT-NeoX file spells out, in Hugging Face's names.

use serde_json::{Map, Value as Json};

use super::{get, holds_word};
use crate::document::Value;
use crate::framework::Lowering;
use crate::framework::baseline::count;
use crate::framework::lowering::here;
use crate::run::{ModelRef, Setting};

/// Activations with a gate.
const GATED: [&str; 5] = ["swiglu", "geglu", "reglu", "bilinear", "glu"];

/// Reads it; `None` with the reason noted where it is not modelled.
pub(super) fn read(cx: &mut Lowering<'_>) -> Option<Setting<ModelRef>> {
    let root = cx.root;
    let number = |key: &str| get(root, key).and_then(count);
    for kind in ["mamba", "rwkv", "gmlp", "amlp"] {
        if let Some(list) = get(root, "attention_config").filter(|v| holds_word(*v, kind, 0)) {
            cx.missing("model", format!("`{kind}` layers are not modelled"), Some(here(list)));
            return None;
        }
    }
    if let Some(experts) = get(root, "moe_num_experts").filter(|v| count(*v).is_some_and(|n| n > 1)) {
        cx.missing("model", "GPT-NeoX's mixture of experts is not modelled", Some(here(experts)));
        return None;
    }
    let place = get(root, "num_layers")?;
    let (layers, hidden) = (count(place)?, number("hidden_size")?);
    let Some(heads) = number("num_attention_heads") else {
        cx.missing("model", "`num_attention_heads` is missing", None);
        return None;
    };
    let Some((vocabulary, guess)) = vocabulary(root) else {
        cx.missing(
            "vocabulary size",
            "the tokenizer is in another file; set `padded_vocab_size` or name a `vocab_file` that is known",
            get(root, "tokenizer_type").or_else(|| get(root, "vocab_file")).map(here),
        );
        return None;
    };
    let text = |key: &str| get(root, key).and_then(|v| v.as_str());
    let flag = |key: &str, default: bool| get(root, key).and_then(|v| v.as_bool()).unwrap_or(default);
    let activation = text("activation").unwrap_or("gelu");
    let llama_mlp = text("mlp_type") == Some("llama");
    let gated = llama_mlp || GATED.contains(&activation);
    let learned = text("pos_emb").unwrap_or("learned") == "learned";
    let family = if gated {
        "llama"
    } else if learned {
        "gpt2"
    } else {
        "gpt_neox"
    };
    let mut config = Map::new();
    let mut set = |key: &str, value: Json| {
        config.insert(key.to_owned(), value);
    };
    set("model_type", family.into());
    set("num_hidden_layers", layers.into());
    set("hidden_size", hidden.into());
    set("num_attention_heads", heads.into());
    set("num_key_value_heads", number("num_kv_heads").unwrap_or(heads).into());
    set("intermediate_size", width(root, hidden, gated, llama_mlp).into());
    set("vocab_size", vocabulary.into());
    set(
        "max_position_embeddings",
        number("max_position_embeddings").or_else(|| number("seq_length")).unwrap_or(2048).into(),
    );
    set("tie_word_embeddings", (!flag("no_weight_tying", false)).into());
    set("attention_bias", flag("use_bias_in_attn_linear", true).into());
    set("mlp_bias", flag("use_bias_in_mlp", true).into());
    set("use_parallel_residual", flag("gpt_j_residual", false).into());
    let model = Setting::written(ModelRef::Config(config), here(place));
    Some(match guess {
        Some(reason) => Setting::assumed(model.value, reason),
        None => model,
    })
}

/// The FFN's width. Gated ones take two thirds of what is written and halve that, so that they
/// weigh what an ungated one would: a third of `intermediate_size` (`ParallelMLP`).
pub(crate) fn width(root: Value<'_>, hidden: u64, gated: bool, llama_mlp: bool) -> u64 {
    let number = |key: &str| get(root, key).and_then(count);
    let up = |n: u64, multiple: u64| n.div_ceil(multiple.max(1)).saturating_mul(multiple.max(1));
    if llama_mlp {
        // 2.0's LLaMAParallelMLP: 8/3 of the width, up to a multiple of 256.
        return number("intermediate_size").unwrap_or_else(|| up(hidden.saturating_mul(8) / 3, 256));
    }
    let factor = get(root, "expansion_factor").and_then(|v| v.to_float());
    let written = number("intermediate_size")
        .or_else(|| factor.map(|factor| (factor * hidden as f64) as u64))
        .unwrap_or(hidden.saturating_mul(4));
    let multiple = number("mlp_multiple_of").unwrap_or(1);
    if gated {
        up(written.saturating_mul(2) / 3 / 2, multiple)
    } else {
        up(written, multiple.saturating_mul(2))
    }
}

/// Padded vocabulary: written, or the tokenizer's own size where its file is well known; with
/// the reason where it is neither.
fn vocabulary(root: Value<'_>) -> Option<(u64, Option<&'static str>)> {
    let number = |key: &str| get(root, key).and_then(count);
    if let Some(padded) = number("padded_vocab_size") {
        return Some((padded, None));
    }
    let kind = get(root, "tokenizer_type").and_then(|v| v.as_str()).unwrap_or("GPT2BPETokenizer");
    let file = get(root, "vocab_file").and_then(|v| v.as_str()).unwrap_or_default().to_ascii_lowercase();
    let mut guess = None;
    let size = if file.contains("20b_tokenizer") {
        // The 20B tokenizer's length: 50,254 tokens and 23 added ones.
        50_277
    } else if kind.contains("GPT2") || file.contains("gpt2-vocab") {
        50_257
    } else if file.contains("llama3") || file.contains("llama-3") {
        128_256
    } else if kind == "SPMTokenizer"
        || file.contains("mistral")
        || file.contains("llama")
        || file.contains("zephyr")
    {
        32_000
    } else if file.is_empty() && kind == "HFTokenizer" {
        guess = Some("the vocabulary is that of the 20B tokenizer; the file names none");
        50_277
    } else {
        return None;
    };
    // Padded to a multiple that every tensor-parallel rank gets its part of.
    let multiple = number("make_vocab_size_divisible_by")
        .unwrap_or(128)
        .saturating_mul(number("model_parallel_size").unwrap_or(1))
        .max(1);
    Some((u64::div_ceil(size, multiple).saturating_mul(multiple), guess))
}
