//! What mixes tokens in place of attention, or beside it: delta nets, state spaces, convolutions.

use super::{Role, build::Build};
use crate::catalog::Family;

/// A dimension that the layer cannot do without.
pub(super) fn need(b: &Build<'_>, key: &str) -> Result<u64, String> {
    b.a.dimension(key)?.ok_or_else(|| format!("`{key}` is missing"))
}

/// A gated delta net (Qwen3-Next, Qwen3.5).
pub(super) fn delta_net(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let need = |key: &str| need(b, key);
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

/// Kimi's delta attention, with its own low-rank gates.
pub(super) fn kimi_delta(b: &mut Build<'_>) -> Result<(), String> {
    let d = b.a.hidden_size;
    let (heads, width) = (need(b, "linear_num_heads")?, need(b, "linear_head_dim")?);
    let kernel = need(b, "linear_conv_kernel_dim")?;
    let all = heads.saturating_mul(width);
    for name in ["q_proj", "k_proj", "v_proj"] {
        b.linear(&format!("self_attn.{name}"), d, all, false, Role::Mixer);
    }
    b.parameter("self_attn.conv1d.weight", &[all.saturating_mul(3), 1, kernel], Role::Mixer);
    b.linear("self_attn.forget_gate.f_a_proj", d, width, false, Role::Mixer);
    b.linear("self_attn.forget_gate.f_b_proj", width, all, false, Role::Mixer);
    b.parameter("self_attn.forget_gate.dt_bias", &[all], Role::Mixer);
    b.parameter("self_attn.forget_gate.A_log", &[1, 1, heads, 1], Role::Mixer);
    b.linear("self_attn.b_proj", d, heads, false, Role::Mixer);
    b.linear("self_attn.g_a_proj", d, width, false, Role::Mixer);
    b.linear("self_attn.g_b_proj", width, all, false, Role::Mixer);
    b.norm("self_attn.o_norm", width, false);
    b.linear("self_attn.o_proj", all, d, false, Role::Mixer);
    Ok(())
}

/// A state space of the second kind. Its inner width is heads times head width.
pub(super) fn mamba2(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let nemotron = a.family == Family::NemotronH;
    let name = |theirs: &'static str, nemotron_s: &'static str| if nemotron { nemotron_s } else { theirs };
    let heads = need(b, name("mamba_n_heads", "mamba_num_heads"))?;
    let groups = need(b, name("mamba_n_groups", "n_groups"))?;
    let state = need(b, name("mamba_d_state", "ssm_state_size"))?;
    let kernel = need(b, name("mamba_d_conv", "conv_kernel"))?;
    let inner = match a.family {
        Family::NemotronH => heads.saturating_mul(need(b, "mamba_head_dim")?),
        Family::FalconH1 => match a.dimension("mamba_d_ssm")? {
            Some(inner) => inner,
            None => d.saturating_mul(need(b, "mamba_expand")?),
        },
        _ => d.saturating_mul(need(b, "mamba_expand")?),
    };
    let mixed = inner.saturating_add(groups.saturating_mul(state).saturating_mul(2));
    let bias = |key: &str| a.config_bool(key) == Some(true);
    let projections = bias(name("mamba_proj_bias", "use_bias")) || bias("projectors_bias");
    let module = if nemotron { "mixer" } else { "mamba" };
    for vector in ["dt_bias", "A_log", "D"] {
        b.parameter(&format!("{module}.{vector}"), &[heads], Role::Mixer);
    }
    b.parameter(&format!("{module}.conv1d.weight"), &[mixed, 1, kernel], Role::Mixer);
    if bias(name("mamba_conv_bias", "use_conv_bias")) {
        b.parameter(&format!("{module}.conv1d.bias"), &[mixed], Role::Mixer);
    }
    let into = inner.saturating_add(mixed).saturating_add(heads);
    b.linear(&format!("{module}.in_proj"), d, into, projections, Role::Mixer);
    if a.family != Family::FalconH1 || bias("mamba_rms_norm") {
        b.norm(&format!("{module}.norm"), inner, false);
    }
    b.linear(&format!("{module}.out_proj"), inner, d, projections, Role::Mixer);
    Ok(())
}

/// A state space of the first kind, with Jamba's norms.
pub(super) fn mamba1(b: &mut Build<'_>) -> Result<(), String> {
    let a = b.a;
    let d = a.hidden_size;
    let inner = d.saturating_mul(need(b, "mamba_expand")?);
    let (state, kernel) = (need(b, "mamba_d_state")?, need(b, "mamba_d_conv")?);
    // `auto`: a sixteenth of the hidden size, rounded up.
    let rank = a.config_u64("mamba_dt_rank").filter(|rank| *rank <= d).unwrap_or_else(|| d.div_ceil(16));
    let bias = |key: &str| a.config_bool(key) == Some(true);
    let (projections, convolution) = (bias("mamba_proj_bias"), bias("mamba_conv_bias"));
    b.parameter("mamba.A_log", &[inner, state], Role::Mixer);
    b.parameter("mamba.D", &[inner], Role::Mixer);
    b.parameter("mamba.conv1d.weight", &[inner, 1, kernel], Role::Mixer);
    if convolution {
        b.parameter("mamba.conv1d.bias", &[inner], Role::Mixer);
    }
    b.linear("mamba.in_proj", d, inner.saturating_mul(2), projections, Role::Mixer);
    b.linear("mamba.x_proj", inner, rank + 2 * state, false, Role::Mixer);
    b.linear("mamba.dt_proj", rank, inner, true, Role::Mixer);
    b.linear("mamba.out_proj", inner, d, projections, Role::Mixer);
    b.norm("mamba.dt_layernorm", rank, false);
    b.norm("mamba.b_layernorm", state, false);
    b.norm("mamba.c_layernorm", state, false);
    Ok(())
}

/// LFM2's gated short convolution.
pub(super) fn short_convolution(b: &mut Build<'_>) -> Result<(), String> {
    let d = b.a.hidden_size;
    let kernel = need(b, "conv_L_cache")?;
    let bias = b.a.config_bool("conv_bias") == Some(true);
    b.parameter("conv.conv.weight", &[d, 1, kernel], Role::Mixer);
    if bias {
        b.parameter("conv.conv.bias", &[d], Role::Mixer);
    }
    b.linear("conv.in_proj", d, d.saturating_mul(3), bias, Role::Mixer);
    b.linear("conv.out_proj", d, d, bias, Role::Mixer);
    Ok(())
}
