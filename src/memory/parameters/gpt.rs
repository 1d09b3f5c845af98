//! Decoders with module names and norms of their own: GPT-2 and what came after it, Mamba, and
//! the seed guide's plain GPT.

use super::{Place, Role, build::Build};
use crate::catalog::Family;

pub(super) fn model(b: &mut Build<'_>) -> Result<(), String> {
    match b.a.family {
        Family::Gpt2 | Family::GptBigcode | Family::GptNeo | Family::Gptj => gpt2_like(b),
        Family::GptNeox => gpt_neox(b),
        Family::Falcon => falcon(b),
        Family::Opt => opt(b),
        Family::Bloom => bloom(b),
        Family::Mpt => mpt(b),
        Family::Mamba => mamba(b)?,
        _ => guide(b),
    }
    Ok(())
}

fn gpt2_like(b: &mut Build<'_>) {
    let a = b.a;
    let family = a.family;
    let (d, f, kv) = (a.hidden_size, a.intermediate_size, a.kv_heads * a.head_dim);
    b.at(Place::Embedding, "transformer.");
    b.embedding("wte", a.vocab_size, d);
    if family != Family::Gptj {
        b.positions("wpe", a.max_positions, d);
    }
    b.layers("transformer.h", 0, a.layers);
    b.norm("ln_1", d, true);
    let (attention, mlp) = (Role::Attention, Role::Mlp);
    match family {
        Family::Gpt2 => {
            b.conv1d("attn.c_attn", d, 3 * d, attention);
            b.conv1d("attn.c_proj", d, d, attention);
        }
        Family::GptBigcode => {
            b.linear("attn.c_attn", d, d + 2 * kv, true, attention);
            b.linear("attn.c_proj", d, d, true, attention);
        }
        _ => {
            let name = if family == Family::GptNeo { "attn.attention" } else { "attn" };
            for projection in ["k_proj", "v_proj", "q_proj"] {
                b.linear(&format!("{name}.{projection}"), d, d, false, attention);
            }
            b.linear(&format!("{name}.out_proj"), d, d, family == Family::GptNeo, attention);
        }
    }
    if family != Family::Gptj {
        b.norm("ln_2", d, true);
    }
    match family {
        Family::Gpt2 => {
            b.conv1d("mlp.c_fc", d, f, mlp);
            b.conv1d("mlp.c_proj", f, d, mlp);
        }
        Family::Gptj => {
            b.linear("mlp.fc_in", d, f, true, mlp);
            b.linear("mlp.fc_out", f, d, true, mlp);
        }
        _ => {
            b.linear("mlp.c_fc", d, f, true, mlp);
            b.linear("mlp.c_proj", f, d, true, mlp);
        }
    }
    b.at(Place::FinalNorm, "transformer.");
    b.norm("ln_f", d, true);
    b.at(Place::Head, "");
    b.head("lm_head", d, family == Family::Gptj);
}

fn gpt_neox(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    b.at(Place::Embedding, "gpt_neox.");
    b.embedding("embed_in", a.vocab_size, d);
    b.layers("gpt_neox.layers", 0, a.layers);
    b.norm("input_layernorm", d, true);
    b.norm("post_attention_layernorm", d, true);
    b.linear("attention.query_key_value", d, 3 * d, a.qkv_bias, Role::Attention);
    b.linear("attention.dense", d, d, a.attention_out_bias, Role::Attention);
    four_h(b, f, true);
    b.at(Place::FinalNorm, "gpt_neox.");
    b.norm("final_layer_norm", d, true);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
}

fn four_h(b: &mut Build<'_>, f: u64, bias: bool) {
    let d = b.a.hidden_size;
    b.linear("mlp.dense_h_to_4h", d, f, bias, Role::Mlp);
    b.linear("mlp.dense_4h_to_h", f, d, bias, Role::Mlp);
}

fn falcon(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    b.at(Place::Embedding, "transformer.");
    b.embedding("word_embeddings", a.vocab_size, d);
    b.layers("transformer.h", 0, a.layers);
    b.linear(
        "self_attention.query_key_value",
        d,
        d + 2 * a.kv_heads * a.head_dim,
        a.qkv_bias,
        Role::Attention,
    );
    b.linear("self_attention.dense", d, d, a.attention_out_bias, Role::Attention);
    four_h(b, f, a.mlp_bias);
    let new = a.config_bool("new_decoder_architecture") == Some(true);
    let norms = a.config_u64("num_ln_in_parallel_attn").unwrap_or(if new { 2 } else { 1 });
    if !a.parallel_residual {
        b.norm("post_attention_layernorm", d, true);
        b.norm("input_layernorm", d, true);
    } else if norms == 2 {
        b.norm("ln_attn", d, true);
        b.norm("ln_mlp", d, true);
    } else {
        b.norm("input_layernorm", d, true);
    }
    b.at(Place::FinalNorm, "transformer.");
    b.norm("ln_f", d, true);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
}

fn opt(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f, bias) = (a.hidden_size, a.intermediate_size, a.mlp_bias);
    let embedded = a.config_u64("word_embed_proj_dim").unwrap_or(d);
    let affine = a.config_bool("layer_norm_elementwise_affine") != Some(false);
    b.at(Place::Embedding, "model.decoder.");
    b.embedding("embed_tokens", a.vocab_size, embedded);
    // Two rows more than positions: the offset of the original's padding.
    b.positions("embed_positions", a.max_positions + 2, d);
    if embedded != d {
        b.at(Place::Other, "model.decoder.");
        b.linear("project_out", d, embedded, false, Role::Other);
        b.linear("project_in", embedded, d, false, Role::Other);
    }
    b.layers("model.decoder.layers", 0, a.layers);
    for name in ["k_proj", "v_proj", "q_proj", "out_proj"] {
        b.linear(&format!("self_attn.{name}"), d, d, bias, Role::Attention);
    }
    if affine {
        b.norm("self_attn_layer_norm", d, true);
    }
    b.linear("fc1", d, f, bias, Role::Mlp);
    b.linear("fc2", f, d, bias, Role::Mlp);
    if affine {
        b.norm("final_layer_norm", d, true);
    }
    b.at(Place::FinalNorm, "model.decoder.");
    let last = a.config_bool("do_layer_norm_before") != Some(false)
        && a.config_bool("_remove_final_layer_norm") != Some(true);
    if last && affine {
        b.norm("final_layer_norm", d, true);
    }
    b.at(Place::Head, "");
    b.head("lm_head", embedded, false);
}

fn bloom(b: &mut Build<'_>) {
    let a = b.a;
    let d = a.hidden_size;
    b.at(Place::Embedding, "transformer.");
    b.embedding("word_embeddings", a.vocab_size, d);
    b.norm("word_embeddings_layernorm", d, true);
    b.layers("transformer.h", 0, a.layers);
    b.norm("input_layernorm", d, true);
    b.linear("self_attention.query_key_value", d, 3 * d, true, Role::Attention);
    b.linear("self_attention.dense", d, d, true, Role::Attention);
    b.norm("post_attention_layernorm", d, true);
    four_h(b, 4 * d, true);
    b.at(Place::FinalNorm, "transformer.");
    b.norm("ln_f", d, true);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
}

fn mpt(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    b.at(Place::Embedding, "transformer.");
    b.embedding("wte", a.vocab_size, d);
    b.layers("transformer.blocks", 0, a.layers);
    b.norm("norm_1", d, false);
    b.linear("attn.Wqkv", d, 3 * d, false, Role::Attention);
    b.linear("attn.out_proj", d, d, false, Role::Attention);
    b.norm("norm_2", d, false);
    b.linear("ffn.up_proj", d, f, false, Role::Mlp);
    b.linear("ffn.down_proj", f, d, false, Role::Mlp);
    b.at(Place::FinalNorm, "transformer.");
    b.norm("norm_f", d, false);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
}

fn mamba(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let (d, inner) = (a.hidden_size, a.intermediate_size);
    let need = |key: &str| a.dimension(key)?.ok_or_else(|| format!("`{key}` is missing"));
    let (state, kernel) = (need("state_size")?, need("conv_kernel")?);
    // The word `auto` stands for the same as nothing.
    let rank = a.config_u64("time_step_rank").filter(|n| *n <= d).unwrap_or(d.div_ceil(16));
    let bias = a.config_bool("use_bias") == Some(true);
    b.at(Place::Embedding, "backbone.");
    b.embedding("embeddings", a.vocab_size, d);
    b.layers("backbone.layers", 0, a.layers);
    b.norm("norm", d, false);
    b.parameter("mixer.A_log", &[inner, state], Role::Mixer);
    b.parameter("mixer.D", &[inner], Role::Mixer);
    b.parameter("mixer.conv1d.weight", &[inner, 1, kernel], Role::Mixer);
    if a.config_bool("use_conv_bias") != Some(false) {
        b.parameter("mixer.conv1d.bias", &[inner], Role::Mixer);
    }
    b.linear("mixer.in_proj", d, 2 * inner, bias, Role::Mixer);
    b.linear("mixer.x_proj", inner, rank + 2 * state, false, Role::Mixer);
    b.linear("mixer.dt_proj", rank, inner, true, Role::Mixer);
    b.linear("mixer.out_proj", inner, d, bias, Role::Mixer);
    b.at(Place::FinalNorm, "backbone.");
    b.norm("norm_f", d, false);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
    Ok(())
}

/// The seed guide's GPT: 12 d² a layer without biases, two layer norms of 2 d each, learned
/// positions, the output tied to the embedding, no norm at the end.
fn guide(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f, width) = (a.hidden_size, a.intermediate_size, a.heads * a.head_dim);
    b.at(Place::Embedding, "");
    b.embedding("token_embedding", a.vocab_size, d);
    b.positions("position_embedding", a.max_positions, d);
    b.layers("layers", 0, a.layers);
    b.norm("norm_1", d, true);
    for projection in ["query", "key", "value"] {
        b.linear(&format!("attention.{projection}"), d, width, false, Role::Attention);
    }
    b.linear("attention.out", width, d, false, Role::Attention);
    b.norm("norm_2", d, true);
    b.linear("mlp.up", d, f, false, Role::Mlp);
    b.linear("mlp.down", f, d, false, Role::Mlp);
    b.at(Place::Head, "");
    b.head("head", d, false);
}
