//! Decoders of Llama's build: token embedding, layers of attention and a gated MLP, a final norm.

use super::{Place, Role, build::Build, deepseek, experts, gemma, mixers};
use crate::catalog::{Family, Layer, LayerMlp, Mixer};

/// Layers in a row of the same build.
#[derive(Clone, Copy)]
struct Run {
    first: u64,
    count: u64,
    layer: Layer,
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
    let embedding = if a.family == Family::NemotronH { "embeddings" } else { "embed_tokens" };
    b.embedding(embedding, rows, d);
    if matches!(a.family, Family::Gemma3n | Family::Gemma4) {
        gemma::before_the_layers(b)?;
    }
    for run in runs(b) {
        b.layers("model.layers", run.first, run.count);
        if matches!(a.family, Family::Gemma3n | Family::Gemma4) {
            gemma::layer(b, run.layer)?;
            continue;
        }
        match run.layer.mixer {
            Mixer::Attention | Mixer::SlidingAttention => attention(b),
            Mixer::DeltaNet => mixers::delta_net(b)?,
            Mixer::KimiDelta => mixers::kimi_delta(b)?,
            Mixer::CrossAttention => cross_attention(b),
            Mixer::Mamba2 => mixers::mamba2(b)?,
            Mixer::Mamba1 => mixers::mamba1(b)?,
            Mixer::AttentionAndMamba2 => {
                mixers::mamba2(b)?;
                attention(b);
            }
            Mixer::ShortConvolution => mixers::short_convolution(b)?,
            Mixer::None => {}
        }
        layer_norms(b);
        match run.layer.mlp {
            LayerMlp::Sparse => experts::mlp(b)?,
            LayerMlp::Dense | LayerMlp::Double => mlp(b),
            LayerMlp::None => {}
        }
    }
    b.at(Place::FinalNorm, "model.");
    match a.family {
        Family::Phi => b.norm("final_layernorm", d, true),
        Family::StableLm | Family::Starcoder2 | Family::Phimoe | Family::Nemotron => b.norm("norm", d, true),
        Family::FalconH1 | Family::Jamba => b.norm("final_layernorm", d, false),
        Family::NemotronH => b.norm("norm_f", d, false),
        Family::Lfm2 | Family::Lfm2Moe => b.norm("embedding_norm", d, false),
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

/// The layers in order, split where their build changes.
fn runs(b: &Build<'_>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for index in 0..b.a.layers {
        let layer = b.a.layer(index);
        match runs.last_mut() {
            Some(run) if run.layer == layer => run.count += 1,
            _ => runs.push(Run { first: index, count: 1, layer }),
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
        _ if a.mla.is_some() => return deepseek::attention(b),
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
    let module = if a.family == Family::NemotronH { "mixer" } else { "self_attn" };
    b.linear(&format!("{module}.q_proj"), d, q + gates, bias, attention);
    b.linear(&format!("{module}.k_proj"), d, kv, bias, attention);
    b.linear(&format!("{module}.v_proj"), d, kv, bias, attention);
    let out = match a.family {
        Family::Phi => "dense",
        Family::Lfm2 | Family::Lfm2Moe => "out_proj",
        _ => "o_proj",
    };
    b.linear(&format!("{module}.{out}"), q, d, out_bias, attention);
    if a.family == Family::Afmoe {
        b.linear("self_attn.gate_proj", d, q, false, attention);
    }
    match a.family {
        Family::Glm4Moe if a.config_bool("use_qk_norm") != Some(true) => {}
        Family::Qwen3
        | Family::Qwen3Moe
        | Family::Qwen35
        | Family::Qwen35Moe
        | Family::Qwen3Next
        | Family::Glm4Moe
        | Family::Exaone4
        | Family::Apertus
        | Family::Afmoe
        | Family::Gemma3Text => {
            b.norm("self_attn.q_norm", a.head_dim, false);
            b.norm("self_attn.k_norm", a.head_dim, false);
        }
        Family::Lfm2 | Family::Lfm2Moe => {
            b.norm("self_attn.q_layernorm", a.head_dim, false);
            b.norm("self_attn.k_layernorm", a.head_dim, false);
        }
        Family::HunyuanDense | Family::HunyuanMoe => {
            b.norm("self_attn.query_layernorm", a.head_dim, false);
            b.norm("self_attn.key_layernorm", a.head_dim, false);
        }
        Family::Olmo2 | Family::MiniMaxM2 => {
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

fn layer_norms(b: &mut Build<'_>) {
    let a = b.a;
    let d = a.hidden_size;
    let (names, bias): (&[&str], bool) = match a.family {
        Family::Olmo => (&[], false),
        Family::Olmo2 | Family::Exaone4 => {
            (&["post_attention_layernorm", "post_feedforward_layernorm"], false)
        }
        Family::Apertus => (&["attention_layernorm", "feedforward_layernorm"], false),
        Family::FalconH1 | Family::Jamba => (&["input_layernorm", "pre_ff_layernorm"], false),
        Family::Lfm2 | Family::Lfm2Moe => (&["operator_norm", "ffn_norm"], false),
        Family::NemotronH => (&["norm"], false),
        Family::Afmoe => (
            &["input_layernorm", "post_attention_layernorm", "pre_mlp_layernorm", "post_mlp_layernorm"],
            false,
        ),
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
        Family::StableLm | Family::Starcoder2 | Family::Phimoe | Family::Nemotron => {
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
        Family::Arcee | Family::Apertus | Family::Nemotron => {
            b.linear("mlp.up_proj", d, f, bias, Role::Mlp);
            b.linear("mlp.down_proj", f, d, bias, Role::Mlp);
            if a.family == Family::Apertus {
                b.parameter("mlp.act_fn.alpha_p", &[1], Role::Mlp);
                b.parameter("mlp.act_fn.alpha_n", &[1], Role::Mlp);
            }
        }
        Family::NemotronH => {
            b.linear("mixer.up_proj", d, f, bias, Role::Mlp);
            b.linear("mixer.down_proj", f, d, bias, Role::Mlp);
        }
        Family::GraniteMoeHybrid => {
            b.linear("shared_mlp.input_linear", d, 2 * f, false, Role::Mlp);
            b.linear("shared_mlp.output_linear", f, d, false, Role::Mlp);
        }
        Family::FalconH1 | Family::Jamba => gated(b, "feed_forward", d, f, bias),
        Family::Lfm2 | Family::Lfm2Moe => {
            b.linear("feed_forward.w1", d, f, false, Role::Mlp);
            b.linear("feed_forward.w3", d, f, false, Role::Mlp);
            b.linear("feed_forward.w2", f, d, false, Role::Mlp);
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
