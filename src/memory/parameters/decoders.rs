//! Decoders of Llama's build: token embedding, layers of attention and a gated MLP, a final norm.

use super::{Place, Role, build::Build, deepseek, experts};
use crate::catalog::Family;

/// What a layer mixes tokens with.
#[derive(Clone, Copy, PartialEq)]
enum Mixer {
    Attention,
    DeltaNet,
    CrossAttention,
}

/// Layers in a row of the same build.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    count: u64,
    sparse: bool,
    mixer: Mixer,
}

pub(super) fn model(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    if a.family == Family::Dbrx {
        experts::dbrx(b);
        return Ok(());
    }
    b.at(Place::Embedding, "model.");
    // Llama 3.2 Vision has eight more rows than its head: the image token's.
    let rows = if a.family == Family::Mllama { a.vocab_size + 8 } else { a.vocab_size };
    b.embedding("embed_tokens", rows, d);
    for run in runs(b) {
        b.layers("model.layers", run.first, run.count);
        match run.mixer {
            Mixer::Attention => attention(b),
            Mixer::DeltaNet => linear_attention(b)?,
            Mixer::CrossAttention => cross_attention(b),
        }
        layer_norms(b);
        if run.sparse { experts::mlp(b)? } else { mlp(b) }
    }
    b.at(Place::FinalNorm, "model.");
    match a.family {
        Family::Phi => b.norm("final_layernorm", d, true),
        Family::StableLm | Family::Starcoder2 | Family::Phimoe => b.norm("norm", d, true),
        Family::Olmo => {}
        _ => b.norm("norm", d, false),
    }
    b.at(Place::Head, "");
    let bias = match a.family {
        Family::Phi => true,
        Family::Phimoe => a.config_bool("lm_head_bias") == Some(true),
        _ => false,
    };
    b.head("lm_head", d, bias);
    Ok(())
}

/// The layers in order, split where dense and sparse MLPs change.
fn runs(b: &Build<'_>) -> Vec<Run> {
    let a = b.a;
    let mut runs: Vec<Run> = Vec::new();
    for layer in 0..a.layers {
        let sparse = a.moe.is_some() && a.layer_is_sparse(layer);
        let mixer = if a.layer_is_linear_attention(layer) {
            Mixer::DeltaNet
        } else if a.layer_is_cross_attention(layer) {
            Mixer::CrossAttention
        } else {
            Mixer::Attention
        };
        match runs.last_mut() {
            Some(run) if run.sparse == sparse && run.mixer == mixer => run.count += 1,
            _ => runs.push(Run { first: layer, count: 1, sparse, mixer }),
        }
    }
    runs
}

fn attention(b: &mut Build<'_>) {
    let a = b.a;
    let d = a.hidden_size;
    let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
    let (bias, out_bias) = (a.qkv_bias, a.attention_out_bias);
    let attention = Role::Attention;
    match a.family {
        Family::DeepseekV2 | Family::DeepseekV3 => return deepseek::attention(b),
        Family::Phi3 => {
            b.linear("self_attn.o_proj", q, d, out_bias, attention);
            b.linear("self_attn.qkv_proj", d, q + 2 * kv, bias, attention);
            return;
        }
        Family::GptOss => b.parameter("self_attn.sinks", &[a.heads], attention),
        _ => {}
    }
    // Queries and their gates in one projection.
    let gates =
        if matches!(a.family, Family::Qwen35 | Family::Qwen35Moe | Family::Qwen3Next) { q } else { 0 };
    b.linear("self_attn.q_proj", d, q + gates, bias, attention);
    b.linear("self_attn.k_proj", d, kv, bias, attention);
    b.linear("self_attn.v_proj", d, kv, bias, attention);
    let out = if a.family == Family::Phi { "self_attn.dense" } else { "self_attn.o_proj" };
    b.linear(out, q, d, out_bias, attention);
    match a.family {
        Family::Glm4Moe if a.config_bool("use_qk_norm") != Some(true) => {}
        Family::Qwen3
        | Family::Qwen3Moe
        | Family::Qwen35
        | Family::Qwen35Moe
        | Family::Qwen3Next
        | Family::Glm4Moe
        | Family::Gemma3Text => {
            b.norm("self_attn.q_norm", a.head_dim, false);
            b.norm("self_attn.k_norm", a.head_dim, false);
        }
        Family::Olmo2 => {
            b.norm("self_attn.q_norm", q, false);
            b.norm("self_attn.k_norm", kv, false);
        }
        Family::Olmoe => {
            b.norm("self_attn.q_norm", d, false);
            b.norm("self_attn.k_norm", kv, false);
        }
        // One row of scales a head.
        Family::Cohere if a.config_bool("use_qk_norm") == Some(true) => {
            b.parameter("self_attn.q_norm.weight", &[a.heads, a.head_dim], Role::Norm);
            b.parameter("self_attn.k_norm.weight", &[a.kv_heads, a.head_dim], Role::Norm);
        }
        Family::Phi if a.config_bool("qk_layernorm") == Some(true) => {
            b.norm("self_attn.q_layernorm", a.head_dim, true);
            b.norm("self_attn.k_layernorm", a.head_dim, true);
        }
        // A norm of its own for each head.
        Family::StableLm if a.config_bool("qk_layernorm") == Some(true) => {
            b.parameters("self_attn.q_layernorm.norms.weight", &[a.head_dim], Role::Norm, a.heads);
            b.parameters("self_attn.k_layernorm.norms.weight", &[a.head_dim], Role::Norm, a.kv_heads);
        }
        _ => {}
    }
}

/// Attention to the image, with its gates (Llama 3.2 Vision).
fn cross_attention(b: &mut Build<'_>) {
    let a = b.a;
    let d = a.hidden_size;
    let (q, kv) = (a.heads * a.head_dim, a.kv_heads * a.head_dim);
    b.parameter("cross_attn_attn_gate", &[1], Role::Attention);
    b.parameter("cross_attn_mlp_gate", &[1], Role::Attention);
    b.linear("cross_attn.q_proj", d, q, false, Role::Attention);
    b.linear("cross_attn.k_proj", d, kv, false, Role::Attention);
    b.linear("cross_attn.v_proj", d, kv, false, Role::Attention);
    b.linear("cross_attn.o_proj", q, d, false, Role::Attention);
    b.norm("cross_attn.q_norm", a.head_dim, false);
    b.norm("cross_attn.k_norm", a.head_dim, false);
}

/// A gated delta net (Qwen3-Next, Qwen3.5).
fn linear_attention(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let need = |key: &str| a.dimension(key)?.ok_or_else(|| format!("`{key}` is missing"));
    let (keys, values) = (need("linear_num_key_heads")?, need("linear_num_value_heads")?);
    let width = need("linear_value_head_dim")?;
    let (key, value) = (keys * need("linear_key_head_dim")?, values.saturating_mul(width));
    let kernel = need("linear_conv_kernel_dim")?;
    let d = a.hidden_size;
    let mixed = key.saturating_mul(2).saturating_add(value);
    b.parameter("linear_attn.dt_bias", &[values], Role::Mixer);
    b.parameter("linear_attn.A_log", &[values], Role::Mixer);
    b.parameter("linear_attn.conv1d.weight", &[mixed, 1, kernel], Role::Mixer);
    b.norm("linear_attn.norm", width, false);
    b.linear("linear_attn.out_proj", value, d, false, Role::Mixer);
    if a.family == Family::Qwen3Next {
        b.linear("linear_attn.in_proj_qkvz", d, mixed.saturating_add(value), false, Role::Mixer);
        b.linear("linear_attn.in_proj_ba", d, 2 * values, false, Role::Mixer);
    } else {
        b.linear("linear_attn.in_proj_qkv", d, mixed, false, Role::Mixer);
        b.linear("linear_attn.in_proj_z", d, value, false, Role::Mixer);
        b.linear("linear_attn.in_proj_b", d, values, false, Role::Mixer);
        b.linear("linear_attn.in_proj_a", d, values, false, Role::Mixer);
    }
    Ok(())
}

fn layer_norms(b: &mut Build<'_>) {
    let a = b.a;
    let d = a.hidden_size;
    let (names, bias): (&[&str], bool) = match a.family {
        Family::Olmo => (&[], false),
        Family::Olmo2 => (&["post_attention_layernorm", "post_feedforward_layernorm"], false),
        Family::Gemma2 | Family::Gemma3Text => (
            &[
                "input_layernorm",
                "post_attention_layernorm",
                "pre_feedforward_layernorm",
                "post_feedforward_layernorm",
            ],
            false,
        ),
        Family::Glm4 => (
            &[
                "input_layernorm",
                "post_attention_layernorm",
                "post_self_attn_layernorm",
                "post_mlp_layernorm",
            ],
            false,
        ),
        Family::Cohere | Family::Cohere2 => (&["input_layernorm"], false),
        Family::Phi => (&["input_layernorm"], true),
        Family::StableLm if a.parallel_residual => (&["input_layernorm"], true),
        Family::StableLm | Family::Starcoder2 | Family::Phimoe => {
            (&["input_layernorm", "post_attention_layernorm"], true)
        }
        _ => (&["input_layernorm", "post_attention_layernorm"], false),
    };
    for name in names {
        b.norm(name, d, bias);
    }
}

/// The dense MLP.
fn mlp(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f, bias) = (a.hidden_size, a.intermediate_size, a.mlp_bias);
    match a.family {
        Family::Phi => {
            b.linear("mlp.fc1", d, f, bias, Role::Mlp);
            b.linear("mlp.fc2", f, d, bias, Role::Mlp);
        }
        Family::Starcoder2 => {
            b.linear("mlp.c_fc", d, f, bias, Role::Mlp);
            b.linear("mlp.c_proj", f, d, bias, Role::Mlp);
        }
        Family::Phi3 | Family::Glm | Family::Glm4 => {
            b.linear("mlp.gate_up_proj", d, 2 * f, bias, Role::Mlp);
            b.linear("mlp.down_proj", f, d, bias, Role::Mlp);
        }
        Family::Llama4 => {
            gated(b, "feed_forward", d, a.config_u64("intermediate_size_mlp").unwrap_or(f), bias);
        }
        _ => gated(b, "mlp", d, f, bias),
    }
}

/// Gate, up and down projections under `name`.
pub(super) fn gated(b: &mut Build<'_>, name: &str, d: u64, f: u64, bias: bool) {
    b.linear(&format!("{name}.gate_proj"), d, f, bias, Role::Mlp);
    b.linear(&format!("{name}.up_proj"), d, f, bias, Role::Mlp);
    b.linear(&format!("{name}.down_proj"), f, d, bias, Role::Mlp);
}
