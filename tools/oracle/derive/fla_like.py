"""What flash-linear-attention's and causal-conv1d's functions allocate and keep, as autograd functions without kernels.

Read in fla/ops/gated_delta_rule/chunk.py, fla/ops/common/chunk_o.py and chunk_delta_h.py (bc3b101) and in
causal_conv1d/causal_conv1d_interface.py: shapes and dtypes only. `h` is a value head, `k` and `v` head widths.
"""

import torch

CHUNK = 64


class GatedDelta(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, g, beta):
        q, k, v, g, beta = (x.contiguous() for x in (q, k, v, g, beta))
        B, T, H, K = k.shape
        HV, V = v.shape[-2:]
        qn, q_rstd = (torch.empty_like(q), torch.empty(B * T * H, dtype=torch.float32, device=q.device))
        kn, k_rstd = (torch.empty_like(k), torch.empty(B * T * H, dtype=torch.float32, device=q.device))
        g = torch.empty_like(g, dtype=torch.float32)
        A = torch.empty(B, T, HV, CHUNK, dtype=k.dtype, device=k.device)
        w, u = (k.new_empty(B, T, HV, K), torch.empty_like(v))
        h, v_new = (k.new_empty(B, -(-T // CHUNK), HV, K, V), torch.empty_like(u))
        o = torch.empty_like(v)
        ctx.save_for_backward(qn, q_rstd, kn, k_rstd, v, g, beta, A)
        return o

    @staticmethod
    def backward(ctx, do):
        q, q_rstd, k, k_rstd, v, g, beta, A = ctx.saved_tensors
        do = do.contiguous()
        B, T, H, K = k.shape
        HV, V = v.shape[-2:]
        w, u = (k.new_empty(B, T, HV, K), torch.empty_like(v))
        h, v_new = (k.new_empty(B, -(-T // CHUNK), HV, K, V), torch.empty_like(u))
        dv = torch.empty_like(do)
        dh = q.new_empty(B, -(-T // CHUNK), HV, K, V)
        dv = torch.empty_like(dv)
        dq, dk = (q.new_empty(B, T, HV, K), k.new_empty(B, T, HV, K))
        dg = torch.empty(1, *g.shape, dtype=torch.float32, device=g.device)
        dw = torch.empty_like(w)
        if HV > H:
            dq = dq.view(B, T, H, HV // H, K).sum(3)
            dk = dk.view(B, T, H, HV // H, K).sum(3)
        dg = dg.sum(0)
        dk2 = k.new_empty(B, T, HV, K)
        dv2, dg2, db = (torch.empty_like(v), torch.empty_like(g), torch.empty_like(beta))
        if HV > H:
            dk2 = dk2.view(B, T, H, HV // H, K).sum(3)
        dk.add_(dk2)
        dg.add_(dg2)
        dg = torch.empty_like(dg)
        dq, dk = (torch.empty_like(q), torch.empty_like(k))
        return (dq, dk, dv2, dg, db)


def chunk_gated_delta_rule(query, key, value, g, beta, **kwargs):
    return (GatedDelta.apply(query, key, value, g, beta), None)


class CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, dout):
        x, weight = ctx.saved_tensors
        return (torch.empty_like(x), torch.zeros_like(weight, dtype=torch.float32).to(weight.dtype))


def causal_conv1d_fn(hidden_states, weight, bias=None, activation=None, **kwargs):
    return CausalConv.apply(hidden_states, weight)


class KimiDelta(torch.autograd.Function):
    """fla/ops/kda/chunk.py with chunk_fwd.py, chunk_bwd.py, chunk_intra.py and wy_fast.py."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, q, k, v, g, beta):
        q, k, v, g, beta = (x.contiguous() for x in (q, k, v, g, beta))
        B, T, H, K = k.shape
        V = v.shape[-1]
        rows = (B * T * H,)
        qn, q_rstd = (torch.empty_like(q), torch.empty(rows, dtype=torch.float32, device=q.device))
        kn, k_rstd = (torch.empty_like(k), torch.empty(rows, dtype=torch.float32, device=q.device))
        g_in = g
        g = torch.empty_like(g, dtype=torch.float32)
        Aqk = torch.empty(B, T, H, CHUNK, dtype=k.dtype, device=k.device)
        Akk = torch.empty_like(Aqk)
        Akkd = torch.empty(B, T, H, 16, dtype=torch.float32, device=k.device)
        w, u, kg = (k.new_empty(B, T, H, K), torch.empty_like(v), k.new_empty(B, T, H, K))
        del Akkd
        h, v_new = (k.new_empty(B, -(-T // CHUNK), H, K, V), torch.empty_like(u))
        o = torch.empty_like(v)
        del w, u, kg, h, v_new
        ctx.save_for_backward(qn, q_rstd, kn, k_rstd, v, g, g_in, beta, Aqk, Akk)
        return o

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, do):
        q, q_rstd, k, k_rstd, v, g, g_in, beta, Aqk, Akk = ctx.saved_tensors
        do = do.contiguous()
        B, T, H, K = k.shape
        V = v.shape[-1]
        n = -(-T // CHUNK)
        w, u, qg, kg = (k.new_empty(B, T, H, K), torch.empty_like(v), k.new_empty(B, T, H, K), k.new_empty(B, T, H, K))
        h, v_new = (k.new_empty(B, n, H, K, V), torch.empty_like(u))
        dAqk, dv = (v.new_empty(B, T, H, CHUNK, dtype=torch.float32), torch.empty_like(do))
        dh = q.new_empty(B, n, H, K, V)
        dv = torch.empty_like(dv)
        dq, dk = (g.new_empty(B, T, H, K), g.new_empty(B, T, H, K))
        dv2, dg = (torch.empty_like(v), torch.empty_like(g))
        db, dAkk = (torch.empty_like(beta, dtype=torch.float32), torch.empty_like(Akk, dtype=torch.float32))
        dv = dv2
        dq2, dk2, dg2 = (torch.empty_like(dq), torch.empty_like(dk), torch.empty_like(dg))
        dq, dk, dg = (dq2, dk2, dg2)
        del dq2, dk2, dg2
        dg = torch.empty_like(dg)
        dq, dk = (torch.empty_like(q), torch.empty_like(k))
        return (dq, dk, dv.to(v.dtype), dg.to(g_in.dtype), db.to(beta.dtype))


def chunk_kda(
    q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, use_qk_l2norm_in_kernel=False
):
    return (KimiDelta.apply(q, k, v, g, beta), None)


def install():
    import transformers.models.qwen3_5.modeling_qwen3_5 as a
    import transformers.models.qwen3_5_moe.modeling_qwen3_5_moe as b
    import transformers.models.qwen3_next.modeling_qwen3_next as c

    for m in (a, b, c):
        assert hasattr(m, "torch_chunk_gated_delta_rule") and hasattr(m, "causal_conv1d_fn")
        m.torch_chunk_gated_delta_rule = chunk_gated_delta_rule
        m.causal_conv1d_fn = causal_conv1d_fn
