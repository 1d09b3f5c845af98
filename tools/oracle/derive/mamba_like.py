"""What mamba-ssm's and causal-conv1d's functions allocate and keep, as autograd functions without kernels.

Read in mamba_ssm/ops/triton/ssd_combined.py, ssd_chunk_state.py, ssd_state_passing.py, ssd_chunk_scan.py, ssd_bmm.py,
layernorm_gated.py, mamba_ssm/ops/selective_scan_interface.py and csrc/selective_scan/selective_scan.cpp
(state-spaces/mamba e9594ce) and in causal_conv1d/causal_conv1d_interface.py: shapes, dtypes and lifetimes only.
"""

import math
import sys
import types

import torch

F32 = torch.float32
# Multiprocessors of the card: they decide into how many parts some gradients are summed.
SM = [132]


def empty(like, *shape, dtype=None):
    return torch.empty(*shape, dtype=dtype or like.dtype, device=like.device)


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1))


def cumsum_fwd(dt, chunk):
    b, s, h = dt.shape
    n = -(-s // chunk)
    out = empty(dt, b, h, n, chunk, dtype=F32)
    return empty(dt, b, h, n, chunk, dtype=F32), out


def state_fwd(B, x, dt):
    b, s, h, p = x.shape
    return empty(x, b, dt.shape[2], h, p, B.shape[-1], dtype=F32)


def passing_fwd(states, dtype):
    out = empty(states, *states.shape, dtype=dtype)
    return out, empty(states, states.shape[0], *states.shape[2:], dtype=F32)


def chunk_product(C, chunk):
    b, s, g, _ = C.shape
    return empty(C, b, -(-s // chunk), g, chunk, chunk, dtype=F32)


def dense(t):
    return t if t.stride(-1) == 1 else t.contiguous()


def scan_fwd(x, dt, A, B, C, chunk, D=None, z=None, dt_bias=None):
    B, C = (dense(B), dense(C))
    if x.stride(-1) != 1 and x.stride(1) != 1:
        x = x.contiguous()
    dA_cumsum, dt = cumsum_fwd(dt, chunk)
    states = state_fwd(B, x, dt)
    states, final_states = passing_fwd(states, C.dtype)
    CB = chunk_product(C, chunk)  # noqa: F841, lives as long as the function
    out = empty(x, *x.shape)
    out_x = empty(x, *x.shape) if z is not None else None
    return (out, out_x, dt, dA_cumsum, states, final_states)


def splits(x, chunks, groups):
    b, s, h, p = x.shape
    ratio = h // groups
    each = max(min(math.ceil(b * chunks * h / SM[0]), ratio), 1)
    return -(-ratio // each)


def scan_bwd(
    dout,
    x,
    dt,
    A,
    B,
    C,
    out,
    chunk,
    D=None,
    z=None,
    dt_bias=None,
    dx=None,
    ddt=None,
    dB=None,
    dC=None,
    dz=None,
    recompute=False,
):
    if dout.stride(-1) != 1:
        dout = dout.contiguous()
    b, s, h, p = x.shape
    n = math.ceil(s / chunk)
    g, state = B.shape[2:]
    dB_given = dB if dB is not None else torch.empty_like(B)
    dC_given = dC if dC is not None else torch.empty_like(C)
    ddt_given = ddt if ddt is not None else torch.empty_like(dt)
    dt_in = dt.clone()
    dA_cumsum, dt = cumsum_fwd(dt_in, chunk)
    CB = chunk_product(C, chunk)
    states = state_fwd(B, x, dt)
    states, _ = passing_fwd(states, states.dtype)
    outz = out
    if z is not None:
        if dz is None:
            dz = torch.empty_like(z)
        if recompute:
            outz = torch.empty_like(x)
        dout = torch.empty_like(dout)
    dstates = empty(C, b, n, h, p, state, dtype=states.dtype)
    converted = empty(states, *states.shape, dtype=x.dtype) if x.dtype != states.dtype else states
    dstates = empty(dstates, *dstates.shape, dtype=x.dtype)
    states = converted
    ddA_chunk = empty(x, b, h, n, dtype=F32)
    if dx is None:
        dx = torch.empty_like(x)
    ddt_ = torch.zeros(b, h, n, chunk, dtype=F32, device=x.device)
    k = splits(x, n, g)
    part = empty(x, b, s, k, g, state, dtype=F32)
    ddA_next = torch.zeros(b, h, n, chunk, dtype=F32, device=x.device)
    dB = part.sum(2)
    del part
    part = empty(x, b, s, k, g, state, dtype=F32)
    ddA_prev_ = torch.zeros(b, h, n, chunk, dtype=F32, device=x.device)
    dC = part.sum(2)
    del part
    part = empty(x, b, n, k, g, chunk, chunk, dtype=F32)
    dCB = part.sum(2)
    del part
    ddA_prev = ddA_prev_.flip([-1]).cumsum(dim=-1).flip([-1])
    part = empty(x, b, h, n, -(-chunk // 32), chunk, dtype=F32)
    ddA = part.sum(3)
    del part
    ddA += ddA_next + ddA_prev
    dA, dbias = (torch.empty_like(A, dtype=F32), None if dt_bias is None else torch.empty_like(dt_bias, dtype=F32))
    dD = None if D is None else torch.empty_like(D)
    r = (dx, ddt_given, dA, dB_given, dC_given, dD, dz, dbias)
    return (*r, outz) if recompute else r


def conv_layout(x):
    return x if x.stride(2) == 1 or x.stride(1) == 1 else x.contiguous()


class CausalConv(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias):
        x = conv_layout(x)
        ctx.save_for_backward(x, weight, bias)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, dout):
        x, weight, bias = ctx.saved_tensors
        dout = conv_layout(dout)
        dx = torch.empty_like(x)
        dw = torch.zeros_like(weight, dtype=F32)
        db = torch.zeros_like(bias, dtype=F32) if bias is not None else None
        return (dx, dw.to(weight.dtype), db.to(bias.dtype) if bias is not None else None)


def causal_conv1d_fn(
    x,
    weight,
    bias=None,
    seq_idx=None,
    initial_states=None,
    return_final_states=False,
    final_states_out=None,
    activation=None,
):
    return CausalConv.apply(x, weight, bias)


class Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, dt, A, B, C, chunk, D, z, dt_bias):
        out, out_x, dt_out, dA_cumsum, states, final_states = scan_fwd(x, dt, A, B, C, chunk, D, z, dt_bias)
        ctx.save_for_backward(out if z is None else out_x, x, dt, dA_cumsum, A, B, C, D, z, dt_bias)
        ctx.chunk = chunk
        return out

    @staticmethod
    def backward(ctx, dout):
        out, x, dt, dA_cumsum, A, B, C, D, z, dt_bias = ctx.saved_tensors
        dx, ddt, dA, dB, dC, dD, dz, dbias = scan_bwd(dout, x, dt, A, B, C, out, ctx.chunk, D=D, z=z, dt_bias=dt_bias)
        return (dx, ddt, dA, dB, dC, None, dD, dz, dbias)


def mamba_chunk_scan_combined(
    x,
    dt,
    A,
    B,
    C,
    chunk_size,
    D=None,
    z=None,
    dt_bias=None,
    initial_states=None,
    seq_idx=None,
    dt_softplus=False,
    dt_limit=None,
    return_final_states=False,
):
    return Scan.apply(x, dt, A, B, C, chunk_size, D, z, dt_bias)


class SplitScan(torch.autograd.Function):
    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, zxbcdt, cw, cb, dt_bias, A, D, chunk, nw, ow, ob, headdim, groups):
        h = D.shape[0]
        dim = h * headdim
        state = (cw.shape[0] - dim) // groups // 2
        z, xBC, dt = torch.split(zxbcdt, [dim, dim + groups * state * 2, h], dim=-1)
        xBC_conv = torch.empty_like(conv_layout(xBC.transpose(1, 2))).transpose(1, 2)
        x, B, C = torch.split(xBC_conv, [dim, groups * state, groups * state], dim=-1)
        x, z = (heads_of(x, h), heads_of(z, h))
        B, C = (heads_of(B, groups), heads_of(C, groups))
        if nw is None:
            out, out_x, dt_out, dA_cumsum, states, final_states = scan_fwd(x, dt, A, B, C, chunk, D, z, dt_bias)
            out = out.flatten(2)
            rstd = None
        else:
            out_x, _, dt_out, dA_cumsum, states, final_states = scan_fwd(x, dt, A, B, C, chunk, D, None, dt_bias)
            rows = out_x.shape[0] * out_x.shape[1]
            out = empty(out_x, rows, dim).view(*out_x.shape[:2], dim)
            rstd = empty(out_x, groups * rows, dtype=F32)
        if ow is not None:
            if torch.is_autocast_enabled():
                t = torch.get_autocast_dtype("cuda")
                out, ow = (out.to(t), ow.to(t))
                ob = ob.to(t) if ob is not None else None
            out = torch.nn.functional.linear(out, ow, ob)
        ctx.save_for_backward(zxbcdt, cw, cb, out_x, A, D, dt_bias, nw, rstd, ow, ob)
        ctx.chunk, ctx.headdim, ctx.groups = (chunk, headdim, groups)
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, dout):
        zxbcdt, cw, cb, out, A, D, dt_bias, nw, rstd, ow, ob = ctx.saved_tensors
        groups, headdim = (ctx.groups, ctx.headdim)
        h = D.shape[0]
        dim = h * headdim
        state = (cw.shape[0] - dim) // groups // 2
        recompute = ow is not None
        if recompute:
            out_recompute = empty(out, *out.shape[:2], dim)
        parts = [dim, dim + groups * state * 2, h]
        z, xBC, dt = torch.split(zxbcdt, parts, dim=-1)
        xBC_conv = torch.empty_like(conv_layout(xBC.transpose(1, 2))).transpose(1, 2)
        x, B, C = torch.split(xBC_conv, [dim, groups * state, groups * state], dim=-1)
        x = heads_of(x, h)
        B, C = (heads_of(B, groups), heads_of(C, groups))
        dzxbcdt = torch.empty_like(zxbcdt)
        dz, dxBC_given, ddt_given = torch.split(dzxbcdt, parts, dim=-1)
        dxBC = torch.empty_like(xBC)
        dx, dB, dC = torch.split(dxBC, [dim, groups * state, groups * state], dim=-1)
        z, dx = (heads_of(z, h), heads_of(dx, h))
        dB, dC = (heads_of(dB, groups), heads_of(dC, groups))
        if ow is not None:
            dout_og = dout
            dout = torch.nn.functional.linear(dout, ow.t())
        dout = heads_of(dout, h)
        dnw = None
        if nw is None:
            dx, ddt, dA, dB, dC, dD, dz, dbias, *rest = scan_bwd(
                dout,
                x,
                dt,
                A,
                B,
                C,
                out,
                ctx.chunk,
                D=D,
                z=z,
                dt_bias=dt_bias,
                dx=dx,
                ddt=ddt_given,
                dB=dB,
                dC=dC,
                dz=heads_of(dz, h),
                recompute=recompute,
            )
            out_for_linear = rest[0].flatten(2) if recompute else None
        else:
            dout = empty(dout, *dout.shape)
            dnw = torch.empty_like(nw)
            out_for_linear = out_recompute if recompute else None
            dx, ddt, dA, dB, dC, dD, _, dbias = scan_bwd(
                dout, x, dt, A, B, C, out, ctx.chunk, D=D, dt_bias=dt_bias, dx=dx, ddt=ddt_given, dB=dB, dC=dC
            )
        dow, dob = (None, None)
        if ow is not None:
            dow = torch.einsum("bso,bsd->od", dout_og, out_for_linear)
            dob = dout_og.sum(dim=(0, 1)) if ob is not None else None
        dw = torch.zeros_like(cw, dtype=F32).to(cw.dtype)
        dcb = None if cb is None else torch.zeros_like(cb, dtype=F32).to(cb.dtype)
        return (dzxbcdt, dw, dcb, dbias, dA, dD, None, dnw, dow, dob, None, None)


def mamba_split_conv1d_scan_combined(
    zxbcdt,
    conv1d_weight,
    conv1d_bias,
    dt_bias,
    A,
    D,
    chunk_size,
    initial_states=None,
    seq_idx=None,
    dt_limit=None,
    return_final_states=False,
    activation="silu",
    rmsnorm_weight=None,
    rmsnorm_eps=1e-6,
    outproj_weight=None,
    outproj_bias=None,
    headdim=None,
    ngroups=1,
    norm_before_gate=True,
):
    return SplitScan.apply(
        zxbcdt,
        conv1d_weight,
        conv1d_bias,
        dt_bias,
        A,
        D,
        chunk_size,
        rmsnorm_weight,
        outproj_weight,
        outproj_bias,
        headdim,
        ngroups,
    )


class SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias):
        u, delta, B, C, z = (dense(t) for t in (u, delta, B, C, z))
        b, dim, s = u.shape
        out_z = torch.empty_like(z)
        out = torch.empty_like(delta)
        x = empty(u, b, dim, -(-s // 2048), A.shape[1] * 2, dtype=F32)
        ctx.save_for_backward(u, delta, A, B, C, D, z, delta_bias, x, out)
        return out_z

    @staticmethod
    def backward(ctx, dout):
        u, delta, A, B, C, D, z, delta_bias, x, out = ctx.saved_tensors
        dout = dense(dout)
        dz = torch.empty_like(z)
        du, ddelta = (torch.empty_like(u), torch.empty_like(delta))
        dA = torch.zeros_like(A)
        dB, dC = (torch.zeros_like(B, dtype=F32), torch.zeros_like(C, dtype=F32))
        dD, dbias = (torch.zeros_like(D), torch.zeros_like(delta_bias))
        return (du, ddelta, dA, dB.to(B.dtype), dC.to(C.dtype), dD, dz, dbias)


def selective_scan_fn(
    u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False
):
    return SelectiveScan.apply(u, delta, A, B, C, D, z, delta_bias)


class Inner(torch.autograd.Function):
    """mamba_inner_fn, as selective_scan_interface.py's MambaInnerFn at its usual checkpoint level."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda")
    def forward(ctx, xz, cw, cb, xw, dw, ow, A, D, delta_bias):
        length = xz.shape[-1]
        rank, state = (dw.shape[1], A.shape[1])
        if torch.is_autocast_enabled():
            t = torch.get_autocast_dtype("cuda")
            xw, dw, ow = (w.to(t) for w in (xw, dw, ow))
        xz = dense(xz)
        x, z = xz.chunk(2, dim=1)
        b, dim = x.shape[:2]
        conv = torch.empty_like(x)
        x_dbl = torch.nn.functional.linear(conv.transpose(1, 2).reshape(-1, dim), xw)
        delta = (dw @ x_dbl[:, :rank].t()).view(dim, b, length).transpose(0, 1)
        B = x_dbl[:, rank : rank + state].view(b, 1, length, state).transpose(2, 3).contiguous()
        C = x_dbl[:, -state:].view(b, 1, length, state).transpose(2, 3).contiguous()
        out_z, out = (torch.empty_like(z), torch.empty_like(delta))
        steps = empty(x, b, dim, -(-length // 2048), state * 2, dtype=F32)
        ctx.save_for_backward(xz, cw, cb, x_dbl, xw, dw, ow, A, B, C, D, delta_bias, steps, out)
        return torch.nn.functional.linear(out_z.transpose(1, 2), ow)

    @staticmethod
    @torch.amp.custom_bwd(device_type="cuda")
    def backward(ctx, dout):
        xz, cw, cb, x_dbl, xw, dw, ow, A, B, C, D, delta_bias, steps, out = ctx.saved_tensors
        length = xz.shape[-1]
        rank = dw.shape[1]
        x, z = xz.chunk(2, dim=1)
        b, dim = x.shape[:2]
        dout = dense(dout)
        conv = torch.empty_like(x)
        delta = (dw @ x_dbl[:, :rank].t()).view(dim, b, length).transpose(0, 1)
        dxz = torch.empty_like(xz)
        dout = dout.permute(2, 0, 1).reshape(dout.shape[2], -1)
        dout_y = (ow.t() @ dout).view(dim, b, length).transpose(0, 1)
        dconv, ddelta = (torch.empty_like(conv), torch.empty_like(delta))
        dA, dD, dbias = (torch.zeros_like(A), torch.zeros_like(D), torch.zeros_like(delta_bias))
        dB, dC = (torch.zeros_like(t, dtype=F32) for t in (B, C))
        out_z = torch.empty_like(out)
        dow = torch.einsum("eB,dB->ed", dout, out_z.transpose(0, 1).reshape(dim, -1))
        dx_dbl = torch.empty_like(x_dbl)
        del dB, dC
        ddelta = ddelta.transpose(0, 1).reshape(dim, -1)
        ddw = torch.einsum("dB,Br->dr", ddelta, x_dbl[:, :rank])
        dx_dbl[:, :rank] = torch.einsum("dB,dr->Br", ddelta, dw)
        dconv = dconv.transpose(0, 1).reshape(dim, -1)
        dxw = torch.einsum("Br,Bd->rd", dx_dbl, conv.transpose(1, 2).reshape(-1, dim))
        dcw = torch.zeros_like(cw, dtype=F32).to(cw.dtype)
        dcb = None if cb is None else torch.zeros_like(cb, dtype=F32).to(cb.dtype)
        return (dxz, dcw, dcb, dxw, ddw, dow, dA, dD, dbias)


def mamba_inner_fn(
    xz,
    conv1d_weight,
    conv1d_bias,
    x_proj_weight,
    delta_proj_weight,
    out_proj_weight,
    out_proj_bias,
    A,
    B=None,
    C=None,
    D=None,
    delta_bias=None,
    delta_softplus=True,
):
    return Inner.apply(
        xz, conv1d_weight, conv1d_bias, x_proj_weight, delta_proj_weight, out_proj_weight, A, D, delta_bias
    )


def install():
    """Before transformers' modelling files are imported: they look for the packages then."""
    import importlib.machinery

    import fla_like

    for name in ("mamba_ssm", "causal_conv1d", "fla"):
        m = types.ModuleType(name)
        m.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = m
    sys.modules["causal_conv1d"].causal_conv1d_fn = causal_conv1d_fn
    m = sys.modules["mamba_ssm"]
    for f in (mamba_split_conv1d_scan_combined, mamba_chunk_scan_combined, selective_scan_fn, mamba_inner_fn):
        setattr(m, f.__name__, f)
    sys.modules["fla"].chunk_kda = fla_like.chunk_kda
