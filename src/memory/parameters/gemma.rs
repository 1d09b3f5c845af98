//! Gemma 3n and Gemma 4: embeddings a layer, shared keys and values, layers of two widths.

use super::{Place, Role, build::Build, decoders::gated, mixers::need};
use crate::catalog::{Family, Layer, LayerMlp, Mixer};

/// What stands beside the token embedding: an embedding for every layer, Gemma 3n's streams.
pub(super) fn before_the_layers(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let each = a.dimension("hidden_size_per_layer_input")?.unwrap_or(0);
    if each > 0 {
        let rows = need(b, "vocab_size_per_layer_input")?;
        let all = a.layers.saturating_mul(each);
        b.parameter("embed_tokens_per_layer.weight", &[rows, all], Role::InputEmbedding);
        b.at(Place::Other, "model.");
        b.linear("per_layer_model_projection", d, all, false, Role::Other);
        b.norm("per_layer_projection_norm", each, false);
    }
    if a.family == Family::Gemma3n {
        b.at(Place::Other, "model.");
        for stream in 1..need(b, "altup_num_inputs")?.min(64) {
            b.linear(&format!("altup_projections.{}", stream - 1), d, d, false, Role::Other);
            b.linear(&format!("altup_unembed_projections.{}", stream - 1), d, d, false, Role::Other);
        }
    }
    Ok(())
}

pub(super) fn layer(b: &mut Build<'_>, layer: Layer) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    attention(b, layer)?;
    let width = if layer.mlp == LayerMlp::Double { 2 } else { 1 };
    gated(b, "mlp", d, a.intermediate_size.saturating_mul(width), false);
    for name in [
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "post_feedforward_layernorm",
    ] {
        b.norm(name, d, false);
    }
    if layer.mlp == LayerMlp::Sparse {
        experts(b)?;
    }
    if a.family == Family::Gemma3n {
        streams(b)?;
    }
    let each = a.dimension("hidden_size_per_layer_input")?.unwrap_or(0);
    if each > 0 {
        b.linear("per_layer_input_gate", d, each, false, Role::Mlp);
        b.linear("per_layer_projection", each, d, false, Role::Mlp);
        b.norm("post_per_layer_input_norm", d, false);
    }
    Ok(())
}

fn attention(b: &mut Build<'_>, layer: Layer) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let global = a.family == Family::Gemma4 && layer.mixer == Mixer::Attention;
    let one_for_both = global && a.config_bool("attention_k_eq_v") == Some(true);
    let width = if global { need(b, "global_head_dim")? } else { a.head_dim };
    let kv_heads = match a.dimension("num_global_key_value_heads")? {
        Some(heads) if one_for_both => heads,
        _ => a.kv_heads,
    };
    let bias = a.qkv_bias;
    let (q, kv) = (a.heads.saturating_mul(width), kv_heads.saturating_mul(width));
    b.linear("self_attn.q_proj", d, q, bias, Role::Attention);
    b.norm("self_attn.q_norm", width, false);
    if !layer.shares_keys {
        b.norm("self_attn.k_norm", width, false);
        b.linear("self_attn.k_proj", d, kv, bias, Role::Attention);
        if !one_for_both {
            b.linear("self_attn.v_proj", d, kv, bias, Role::Attention);
        }
    }
    b.linear("self_attn.o_proj", q, d, bias, Role::Attention);
    Ok(())
}

/// Gemma 4's experts, beside its dense MLP.
fn experts(b: &mut Build<'_>) -> Result<(), String> {
    let d = b.a.hidden_size;
    let moe = b.a.moe.as_ref().ok_or("a sparse layer without experts")?;
    let (e, f) = (moe.experts, moe.intermediate_size);
    b.parameter("router.scale", &[d], Role::Router);
    b.parameter("router.per_expert_scale", &[e], Role::Router);
    b.linear("router.proj", d, e, false, Role::Router);
    b.parameter("experts.gate_up_proj", &[e, 2 * f, d], Role::Expert);
    b.parameter("experts.down_proj", &[e, d, f], Role::Expert);
    for name in
        ["post_feedforward_layernorm_1", "post_feedforward_layernorm_2", "pre_feedforward_layernorm_2"]
    {
        b.norm(name, d, false);
    }
    Ok(())
}

/// Gemma 3n's alternating updates of several streams, and its low-rank residual.
fn streams(b: &mut Build<'_>) -> Result<(), String> {
    let d = b.a.hidden_size;
    let (n, rank) = (need(b, "altup_num_inputs")?.min(64), need(b, "laurel_rank")?);
    b.parameter("altup.correct_output_scale", &[d], Role::Other);
    b.linear("altup.correction_coefs", n, n, false, Role::Other);
    b.linear("altup.prediction_coefs", n, n * n, false, Role::Other);
    b.linear("altup.modality_router", d, n, false, Role::Other);
    b.norm("altup.router_norm", d, false);
    b.linear("laurel.linear_left", d, rank, false, Role::Other);
    b.linear("laurel.linear_right", rank, d, false, Role::Other);
    b.norm("laurel.post_laurel_norm", d, false);
    Ok(())
}
