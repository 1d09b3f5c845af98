//! What some configs nest, list or say by their `model_type` alone, brought to the usual names.

use serde_json::Value;

use super::Family;
use super::from_config::{Fields, MOST_LAYERS};

/// See the module's text.
///
/// # Errors
/// A sentence, when a list of layers is none.
pub(super) fn unnest(fields: &mut Fields, family: Family, model_type: &str) -> Result<(), String> {
    let mut absent = |key: &str, value: Value| {
        fields.map.entry(key).or_insert(value);
    };
    match (family, model_type) {
        (_, "RefinedWeb") => absent("new_decoder_architecture", true.into()),
        (_, "mt5") => absent("feed_forward_proj", "gated-gelu".into()),
        // Its class has neither Mamba layers nor a shared MLP.
        (_, "granitemoe") => absent("shared_intermediate_size", 0.into()),
        _ => {}
    }
    let nested: &[(&str, &str, &str)] = match family {
        Family::Dbrx => &[
            ("attn_config", "kv_n_heads", "num_key_value_heads"),
            ("ffn_config", "ffn_hidden_size", "intermediate_size"),
            ("ffn_config", "moe_num_experts", "num_experts"),
            ("ffn_config", "moe_top_k", "num_experts_per_tok"),
        ],
        Family::KimiLinear => &[
            ("linear_attn_config", "head_dim", "linear_head_dim"),
            ("linear_attn_config", "num_heads", "linear_num_heads"),
            ("linear_attn_config", "short_conv_kernel_size", "linear_conv_kernel_dim"),
        ],
        _ => &[],
    };
    for (outer, inner, usual) in nested {
        if let Some(value) = fields.nested(outer, inner).cloned() {
            fields.map.entry(*usual).or_insert(value);
        }
    }
    let renamed: &[(&str, &str)] = match family {
        Family::Ernie45Moe => &[
            ("moe_num_experts", "num_experts"),
            ("moe_k", "num_experts_per_tok"),
            ("moe_num_shared_experts", "n_shared_experts"),
            ("moe_layer_start_index", "first_k_dense_replace"),
        ],
        Family::HunyuanMoe => &[("moe_topk", "num_experts_per_tok"), ("attention_head_dim", "head_dim")],
        Family::HunyuanDense => &[("attention_head_dim", "head_dim")],
        Family::KimiLinear => {
            &[("num_experts_per_token", "num_experts_per_tok"), ("num_shared_experts", "n_shared_experts")]
        }
        Family::Afmoe => {
            &[("num_shared_experts", "n_shared_experts"), ("num_dense_layers", "first_k_dense_replace")]
        }
        Family::Gemma4 => {
            &[("top_k_experts", "num_experts_per_tok"), ("expert_intermediate_size", "moe_intermediate_size")]
        }
        Family::Lfm2 | Family::Lfm2Moe => {
            &[("block_ff_dim", "intermediate_size"), ("tie_embedding", "tie_word_embeddings")]
        }
        Family::GraniteMoeHybrid | Family::FalconH1 | Family::Jamba | Family::NemotronH => {
            &[("layers_block_type", "layer_types")]
        }
        _ => &[],
    };
    for (theirs, usual) in renamed {
        if let Some(value) = fields.map.get(*theirs).filter(|value| !value.is_null()).cloned() {
            fields.map.entry(*usual).or_insert(value);
        }
    }
    match family {
        Family::NemotronH => pattern(fields),
        Family::Gemma4
            if fields.map.get("model_type").and_then(Value::as_str) == Some("gemma4_unified_text") =>
        {
            // Its class has no embeddings a layer (transformers 5.23, `configuration_gemma4_unified.py`).
            fields.map.insert("hidden_size_per_layer_input".into(), 0.into());
            Ok(())
        }
        Family::KimiLinear => kimi_layers(fields),
        Family::Gemma3n => one_width(fields),
        Family::GraniteMoeHybrid => granite(fields),
        Family::Lfm2 => short_mlp(fields),
        _ => Ok(()),
    }
}

/// `M` Mamba-2, `*` attention, `-` an MLP, `E` experts: a letter a layer.
fn pattern(fields: &mut Fields) -> Result<(), String> {
    if let Some(Value::String(pattern)) = fields.map.get("hybrid_override_pattern")
        && !fields.map.contains_key("layer_types")
    {
        let types: Option<Vec<Value>> = pattern
            .chars()
            .take(MOST_LAYERS as usize + 1)
            .map(|letter| {
                Some(match letter {
                    'M' => "mamba".into(),
                    '*' => "attention".into(),
                    '-' => "mlp".into(),
                    'E' => "moe".into(),
                    _ => return None,
                })
            })
            .collect();
        let types = types.ok_or("`hybrid_override_pattern` has a letter that is none of M, *, - and E")?;
        fields.give("layer_types", types);
    }
    let listed = fields.map.get("layer_types").and_then(Value::as_array).map(Vec::len);
    let listed = listed.ok_or("`hybrid_override_pattern` is missing")?;
    fields.give("num_hidden_layers", listed as u64);
    Ok(())
}

/// `linear_attn_config` numbers its layers from 1.
fn kimi_layers(fields: &mut Fields) -> Result<(), String> {
    let Some(full) = fields.nested("linear_attn_config", "full_attn_layers").and_then(Value::as_array) else {
        return Ok(());
    };
    let full: Vec<u64> = full.iter().filter_map(Value::as_u64).collect();
    let layers = fields.count("num_hidden_layers")?.unwrap_or(0).min(MOST_LAYERS);
    let types: Vec<Value> = (1..=layers)
        .map(|l| if full.contains(&l) { "full_attention" } else { "linear_attention" }.into())
        .collect();
    fields.map.entry("layer_types").or_insert(types.into());
    Ok(())
}

/// Gemma 3n lists a width a layer; published models have one for all.
fn one_width(fields: &mut Fields) -> Result<(), String> {
    if let Some(Value::Array(widths)) = fields.map.get("intermediate_size") {
        let first = widths.first().cloned().unwrap_or(Value::Null);
        if widths.iter().any(|width| *width != first) {
            return Err("layers of different `intermediate_size` are not supported".into());
        }
        fields.give("intermediate_size", first);
    }
    Ok(())
}

/// Granite 4 without experts has its dense MLP under the shared expert's width.
fn granite(fields: &mut Fields) -> Result<(), String> {
    let experts = match fields.count("num_local_experts")? {
        None => fields.count("num_experts")?,
        some => some,
    };
    if experts == Some(0)
        && let Some(shared) = fields.map.get("shared_intermediate_size").cloned()
    {
        fields.give("intermediate_size", shared);
    }
    Ok(())
}

/// LFM2's MLP has two thirds of the stated width, rounded up to a multiple.
fn short_mlp(fields: &mut Fields) -> Result<(), String> {
    if fields.map.get("block_auto_adjust_ff_dim").and_then(Value::as_bool) == Some(false) {
        return Ok(());
    }
    let Some(stated) = fields.count("intermediate_size")? else { return Ok(()) };
    let factor = fields.map.get("block_ffn_dim_multiplier").and_then(Value::as_f64).unwrap_or(1.0);
    let multiple = fields.positive("block_multiple_of")?.unwrap_or(256);
    let width = ((2 * stated / 3) as f64 * factor.clamp(0.0, 64.0)) as u64;
    fields.give("intermediate_size", width.div_ceil(multiple).saturating_mul(multiple));
    fields.give("block_auto_adjust_ff_dim", false);
    Ok(())
}
