//! Sparse MLPs: a router and experts, which transformers 5 holds as one tensor a projection.

use super::{Place, Role, build::Build, decoders::gated};
use crate::catalog::Family;

pub(super) fn mlp(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let moe = a.moe.as_ref().ok_or("a sparse layer without experts")?;
    let (e, f) = (moe.experts, moe.intermediate_size);
    if a.family == Family::GptOss {
        b.parameter("mlp.router.weight", &[e, d], Role::Router);
        b.parameter("mlp.router.bias", &[e], Role::Router);
        b.parameter("mlp.experts.gate_up_proj", &[e, d, 2 * f], Role::Expert);
        b.parameter("mlp.experts.gate_up_proj_bias", &[e, 2 * f], Role::Expert);
        b.parameter("mlp.experts.down_proj", &[e, f, d], Role::Expert);
        b.parameter("mlp.experts.down_proj_bias", &[e, d], Role::Expert);
        return Ok(());
    }
    if a.family == Family::Llama4 {
        b.parameter("feed_forward.experts.gate_up_proj", &[e, d, 2 * f], Role::Expert);
        b.parameter("feed_forward.experts.down_proj", &[e, f, d], Role::Expert);
        b.linear("feed_forward.router", d, e, false, Role::Router);
        gated(b, "feed_forward.shared_expert", d, moe.shared_intermediate_size, false);
        return Ok(());
    }
    if a.family == Family::NemotronH {
        // Routed experts may work in a narrower space (`moe_latent_size`); the shared one does not.
        let inner = a.dimension("moe_latent_size")?.unwrap_or(d);
        b.parameter("mixer.experts.up_proj", &[e, f, inner], Role::Expert);
        b.parameter("mixer.experts.down_proj", &[e, inner, f], Role::Expert);
        if inner != d {
            b.linear("mixer.fc1_latent_proj", d, inner, a.mlp_bias, Role::Mlp);
            b.linear("mixer.fc2_latent_proj", inner, d, a.mlp_bias, Role::Mlp);
        }
        b.parameter("mixer.gate.weight", &[e, d], Role::Router);
        let shared = moe.shared_intermediate_size;
        if shared > 0 {
            b.linear("mixer.shared_experts.up_proj", d, shared, a.mlp_bias, Role::Mlp);
            b.linear("mixer.shared_experts.down_proj", shared, d, a.mlp_bias, Role::Mlp);
        }
        return Ok(());
    }
    let module = match a.family {
        Family::GraniteMoeHybrid => "block_sparse_moe",
        Family::Lfm2Moe | Family::Jamba => "feed_forward",
        _ => "mlp",
    };
    match a.family {
        Family::GraniteMoeHybrid | Family::Jamba => {
            b.parameter(&format!("{module}.router.weight"), &[e, d], Role::Router);
        }
        Family::HunyuanMoe => b.linear("mlp.gate.wg", d, e, false, Role::Router),
        Family::Afmoe => {
            b.linear("mlp.router.gate", d, e, false, Role::Router);
            b.parameter("mlp.expert_bias", &[e], Role::Router);
        }
        Family::Ernie45Moe => {
            b.parameter("mlp.gate.weight", &[e, d], Role::Router);
            b.parameter("mlp.gate.moe_statics.e_score_correction_bias", &[1, e], Role::Router);
        }
        Family::Lfm2Moe => b.parameter("feed_forward.gate.weight", &[e, d], Role::Router),
        // An `nn.Linear` of its own class.
        Family::Phimoe => b.linear("mlp.router", d, e, false, Role::Router),
        // The per-expert correction of DeepSeek-V3's router is a buffer, not a parameter.
        _ => b.parameter("mlp.gate.weight", &[e, d], Role::Router),
    }
    b.parameter(&format!("{module}.experts.gate_up_proj"), &[e, 2 * f, d], Role::Expert);
    b.parameter(&format!("{module}.experts.down_proj"), &[e, d, f], Role::Expert);
    if moe.shared_intermediate_size > 0 {
        let shared = moe.shared_intermediate_size;
        if matches!(a.family, Family::Qwen2Moe | Family::Qwen35Moe | Family::Qwen3Next) {
            gated(b, "mlp.shared_expert", d, shared, false);
            b.linear("mlp.shared_expert_gate", d, 1, false, Role::Router);
        } else if a.family == Family::GraniteMoeHybrid {
            b.linear("shared_mlp.input_linear", d, 2 * shared, false, Role::Mlp);
            b.linear("shared_mlp.output_linear", shared, d, false, Role::Mlp);
        } else if a.family == Family::HunyuanMoe {
            gated(b, "mlp.shared_mlp", d, shared, false);
        } else {
            gated(b, "mlp.shared_experts", d, shared, a.mlp_bias);
        }
    }
    Ok(())
}

/// DBRX: its own names, and experts as tall matrices.
pub(super) fn dbrx(b: &mut Build<'_>) {
    let a = b.a;
    let (d, f) = (a.hidden_size, a.intermediate_size);
    let experts = a.moe.as_ref().map_or(0, |m| m.experts);
    b.at(Place::Embedding, "transformer.");
    b.embedding("wte", a.vocab_size, d);
    b.layers("transformer.blocks", 0, a.layers);
    b.norm("norm_attn_norm.norm_1", d, false);
    b.linear("norm_attn_norm.attn.Wqkv", d, (a.heads + 2 * a.kv_heads) * a.head_dim, false, Role::Attention);
    b.linear("norm_attn_norm.attn.out_proj", d, d, false, Role::Attention);
    b.norm("norm_attn_norm.norm_2", d, false);
    b.linear("ffn.router.layer", d, experts, false, Role::Router);
    for weight in ["w1", "v1", "w2"] {
        b.parameter(&format!("ffn.experts.mlp.{weight}"), &[experts.saturating_mul(f), d], Role::Expert);
    }
    b.at(Place::FinalNorm, "transformer.");
    b.norm("norm_f", d, false);
    b.at(Place::Head, "");
    b.head("lm_head", d, false);
}
