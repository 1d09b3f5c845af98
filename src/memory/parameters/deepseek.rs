//! DeepSeek's multi-head latent attention.

use super::{Role, build::Build};

pub(super) fn attention(b: &mut Build<'_>) {
    let a = b.a;
    let Some(mla) = &a.mla else { return };
    let (d, h, bias, role) = (a.hidden_size, a.heads, a.qkv_bias, Role::Attention);
    let q = h * (mla.qk_nope_head_dim + mla.qk_rope_head_dim);
    match mla.q_lora_rank {
        Some(rank) => {
            b.linear("self_attn.q_a_proj", d, rank, bias, role);
            b.norm("self_attn.q_a_layernorm", rank, false);
            b.linear("self_attn.q_b_proj", rank, q, false, role);
        }
        None => b.linear("self_attn.q_proj", d, q, false, role),
    }
    b.linear("self_attn.kv_a_proj_with_mqa", d, mla.kv_lora_rank + mla.qk_rope_head_dim, bias, role);
    b.norm("self_attn.kv_a_layernorm", mla.kv_lora_rank, false);
    b.linear(
        "self_attn.kv_b_proj",
        mla.kv_lora_rank,
        h * (mla.qk_nope_head_dim + mla.v_head_dim),
        false,
        role,
    );
    b.linear("self_attn.o_proj", h * mla.v_head_dim, d, a.attention_out_bias, role);
}
