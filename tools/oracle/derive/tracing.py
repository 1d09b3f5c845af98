"""What a layer saves for backward and what its backward adds, read off the allocator's trace.

Dimensions are chosen so that every block's size factors into one product of symbols; two depths tell a layer's
blocks from the model's. `FAM` holds the families, `derive` traces one of them in one precision and attention.
"""

import collections
import os
import sys

import runner as O

if "libfakecuda" not in os.environ.get("LD_PRELOAD", ""):
    os.environ.update(
        LD_PRELOAD=O.PRELOAD, OMP_NUM_THREADS="1", CUBLAS_WORKSPACE_CONFIG=":0:0", CUBLASLT_WORKSPACE_SIZE="0"
    )
    os.execv(sys.executable, [sys.executable] + sys.argv)
import torch

import models as M

L = dict(
    hidden_size=448,
    intermediate_size=832,
    num_attention_heads=14,
    num_key_value_heads=2,
    head_dim=40,
    vocab_size=6080,
    max_position_embeddings=8192,
    tie_word_embeddings=False,
)
nohd = lambda **k: dict({a: b for a, b in L.items() if a != "head_dim"}, **k)
MH = lambda **k: nohd(num_key_value_heads=14, **k)
G2 = dict(n_embd=448, n_head=14, n_positions=8192, vocab_size=6080, n_inner=832)
MOE = dict(L)
DS = dict(
    hidden_size=448,
    intermediate_size=832,
    moe_intermediate_size=368,
    num_attention_heads=14,
    num_key_value_heads=14,
    n_routed_experts=37,
    n_shared_experts=2,
    num_experts_per_tok=5,
    first_k_dense_replace=0,
    kv_lora_rank=232,
    qk_nope_head_dim=72,
    qk_rope_head_dim=16,
    v_head_dim=136,
    vocab_size=6080,
    tie_word_embeddings=False,
    max_position_embeddings=8192,
)
FAM = {
    "llama": ("llama", L),
    "mistral": ("mistral", dict(L, sliding_window=None)),
    "qwen2": ("qwen2", nohd()),
    "qwen3": ("qwen3", L),
    "gemma": ("gemma", L),
    "gemma2": ("gemma2", dict(L, sliding_window=8192)),
    "gemma3_text": ("gemma3_text", dict(L, sliding_window=8192)),
    "phi3": ("phi3", nohd(pad_token_id=0)),
    "phi": ("phi", MH()),
    "gpt2": ("gpt2", G2),
    "gpt_neox": (
        "gpt_neox",
        dict(
            hidden_size=448,
            intermediate_size=832,
            num_attention_heads=14,
            vocab_size=6080,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "gptj": (
        "gptj",
        dict(
            n_embd=448,
            n_head=14,
            n_positions=8192,
            vocab_size=6080,
            n_inner=832,
            rotary_dim=16,
            tie_word_embeddings=False,
        ),
    ),
    "gpt_neo": (
        "gpt_neo",
        dict(
            hidden_size=448,
            num_heads=14,
            vocab_size=6080,
            intermediate_size=832,
            max_position_embeddings=8192,
            attention_types=[[["global"], 1]],
        ),
    ),
    "opt": (
        "opt",
        dict(
            hidden_size=448,
            ffn_dim=832,
            num_attention_heads=14,
            vocab_size=6080,
            max_position_embeddings=8192,
            word_embed_proj_dim=448,
        ),
    ),
    "bloom": ("bloom", dict(hidden_size=448, n_head=14, vocab_size=6080)),
    "falcon-alibi": (
        "falcon",
        dict(
            hidden_size=448,
            num_attention_heads=14,
            vocab_size=6080,
            multi_query=False,
            parallel_attn=False,
            bias=True,
            alibi=True,
            new_decoder_architecture=False,
            ffn_hidden_size=832,
        ),
    ),
    "falcon": (
        "falcon",
        dict(
            hidden_size=448,
            num_attention_heads=14,
            vocab_size=6080,
            multi_query=True,
            parallel_attn=True,
            bias=False,
            alibi=False,
            new_decoder_architecture=False,
            ffn_hidden_size=832,
        ),
    ),
    "stablelm": ("stablelm", MH(use_qkv_bias=True)),
    "starcoder2": ("starcoder2", nohd()),
    "olmo": ("olmo", MH()),
    "olmo2": ("olmo2", MH()),
    "smollm3": ("smollm3", nohd(pad_token_id=0)),
    "granite": ("granite", nohd()),
    "glm": ("glm", dict(L, attention_bias=True, pad_token_id=0)),
    "cohere": ("cohere", nohd()),
    "mixtral": (
        "mixtral",
        dict(L, num_local_experts=37, num_experts_per_tok=5, intermediate_size=368, sliding_window=None),
    ),
    "qwen3_moe": (
        "qwen3_moe",
        dict(
            L,
            moe_intermediate_size=368,
            num_experts=37,
            num_experts_per_tok=5,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
    ),
    "qwen2_moe": (
        "qwen2_moe",
        nohd(
            moe_intermediate_size=368,
            shared_expert_intermediate_size=832,
            num_experts=37,
            num_experts_per_tok=5,
            decoder_sparse_step=1,
            mlp_only_layers=[],
        ),
    ),
    "olmoe": ("olmoe", MH(intermediate_size=368, num_experts=37, num_experts_per_tok=5)),
    "gpt_oss": (
        "gpt_oss",
        dict(L, intermediate_size=368, num_local_experts=37, num_experts_per_tok=5, sliding_window=8192),
    ),
    "deepseek_v2": ("deepseek_v2", dict(DS, q_lora_rank=None, topk_method="greedy", n_group=1, topk_group=1)),
    "deepseek_v3": ("deepseek_v3", dict(DS, q_lora_rank=248, n_group=1, topk_group=1)),
    "bert": (
        "bert",
        dict(
            hidden_size=448,
            num_attention_heads=14,
            intermediate_size=832,
            vocab_size=6080,
            max_position_embeddings=8192,
        ),
    ),
    "roberta": (
        "roberta",
        dict(
            hidden_size=448,
            num_attention_heads=14,
            intermediate_size=832,
            vocab_size=6080,
            max_position_embeddings=8200,
        ),
    ),
    "distilbert": (
        "distilbert",
        dict(dim=448, n_heads=14, hidden_dim=832, vocab_size=6080, max_position_embeddings=8192, n_layers=2),
    ),
}
for n, (mt, kw) in FAM.items():
    M.R["_" + n] = (mt, kw)
    M.CLS["_" + n] = "mlm" if n in ("bert", "roberta", "distilbert") else "causal"
    M.KNOWN["_" + n] = None
EAGER = {"gemma2", "bloom", "gpt_oss", "gptj", "gpt_neo"}
DROP = {"gpt2", "opt", "bert", "roberta", "distilbert"}


def syms(n, B, S):
    mt, kw = FAM[n]
    h = 14
    kv = kw.get("num_key_value_heads", 14)
    hd = kw.get("head_dim") or 32
    if n == "falcon":
        kv = 1
    s = dict(N=B * S, B=B, S=S, d=448, f=832, fe=368, V=6080, h=h, q=h * hd, k=kv * hd, hd=hd, kv=kv, E=37, T=5)
    if not any((x in n for x in ("moe", "mixtral", "gpt_oss", "deepseek"))):
        [s.pop(x) for x in ("E", "T", "fe")]
    if n.startswith("deepseek"):
        s.update(
            qh=14 * (72 + 16),
            vh=14 * 136,
            nv=14 * (72 + 136),
            nope=14 * 72,
            kvr=232,
            rope=16,
            kvrr=248 if False else 232 + 16,
            qr=248,
        )
        s.pop("q")
        s.pop("k")
        s.pop("hd")
        s.pop("kv")
    return s


MONO = (
    "N;N*d;N*f;N*fe;N*q;N*k;N*h;N*kv;N*V;N*E;N*T;N*T*d;N*T*fe;B*h*S*S;B*S*S;S*S;h*S*S;S*hd;N*hd;d*d;d*f;d*q;d*k;V*d;d;f;q;k;V;E*d*fe;E*d;E*fe;E;S*d;N*qh;N*vh;N*nv;N*nope;N*kvr;N*rope;N*kvrr;N*qr;d*qh;d*vh;d*kvrr;kvr*nv;d*qr;qr*qh;d*fe;S*rope;B*h;B;S;hd".split(
        ";"
    )
    + [
        "N*E*d",
        "N*E*fe",
        "E*fe*d",
        "N*hp",
        "d*hp",
        "N*kd",
        "N*vd",
        "N*hv",
        "N*hv*kw",
        "N*vd*kw",
        "d*kd",
        "d*vd",
        "d*mx",
        "N*mx",
        "d*hv",
        "kd",
        "vd",
        "hv",
        "mx",
        "mx*r",
        "kd*r",
        "vd*r",
        "hv*r",
        "N*r",
        "r",
        "d*r",
        "f*r",
        "q*r",
        "k*r",
    ]
)


def table(n, B, S):
    s = syms(n, B, S)
    out = []
    for m in MONO:
        v = 1
        try:
            for x in m.split("*"):
                v *= s[x]
        except KeyError:
            continue
        out.append((v, m))
    if "q" in s:
        out.append((s["N"] * (s["q"] + 2 * s["k"]), "N*qkv"))
        out.append((s["d"] * (s["q"] + 2 * s["k"]), "d*qkv"))
    if "h" in s:
        out.append((B * s["h"] * S * (S + 1), "B*h*S*S1"))
    return out


W = {1: 1, 2: 0, 4: 0, 8: 0.6, 16: 0.9, 6: 0.8, 12: 0.9, 10: 1.5, 20: 1.5, 3: 1.5, 24: 1.5, 32: 1.5}
PREF = {
    "N*kv": 0.4,
    "N": 0.1,
    "S*d": 2,
    "h*S*S": 2,
    "S*rope": 1,
    "N*d": 0,
    "N*q": 0.2,
    "N*k": 0.2,
    "N*f": 0,
    "N*h": 0.1,
    "d*d": 0.1,
    "d*q": 0.2,
    "d*f": 0,
    "N*qkv": 0.3,
    "N*T": 0.2,
    "N*T*d": 0.1,
    "N*T*fe": 0.1,
    "N*fe": 0.2,
}


def name(size, tb):
    best = None
    for v, m in tb:
        if size % v == 0 and size // v in W:
            pen = W[size // v] + PREF.get(m, 0.25) + 0.3 * m.count("*") * 0
            if best is None or pen < best[0]:
                best = (pen, size // v, m)
    return (best[1], best[2]) if best else (size, "1")


class Trace:
    """Replays the events of the last step: live sets at marks, transients between marks."""

    def __init__(s, events):
        s.events = events
        s.last = max((i for i, e in enumerate(events) if e["action"] == "alloc" and e["size"] == O.CODE["fwd"]))
        live = {}
        ph = ""
        s.segs = []
        seg = None
        cur = 0
        s.fe = None
        for i, e in enumerate(events):
            if e["action"] == "alloc":
                if e["size"] in O.RCODE:
                    ph = O.RCODE[e["size"]]
                    if i > s.last and ph in ("layer", "bwd", "bwd_head", "bwd_end", "fwd_end", "fwd_head"):
                        if ph == "fwd_end":
                            s.fe = [v for v in live.values() if v[0] > s.last]
                        if seg:
                            s.segs.append(seg)
                        seg = dict(name=ph, base=cur, live0=dict(live), pk=cur, livepk=dict(live))
                    live[e["addr"]] = (i, 0, ph)
                    continue
                cur += e["size"]
                live[e["addr"]] = (i, e["size"], ph)
                if seg and cur > seg["pk"]:
                    seg["pk"] = cur
                    seg["livepk"] = dict(live)
            elif e["action"] == "free_requested":
                x = live.pop(e["addr"], None)
                if x:
                    cur -= x[1]
        if seg:
            s.segs.append(seg)

    def net(s, seg, tb):
        a = collections.Counter()
        i0 = {v[0] for v in seg["live0"].values()}
        ip = {v[0] for v in seg["livepk"].values()}
        for v in seg["livepk"].values():
            if v[0] not in i0 and v[1] > 64:
                c, m = name(v[1], tb)
                a[m] += c
        for v in seg["live0"].values():
            if v[0] not in ip and v[1] > 64:
                c, m = name(v[1], tb)
                a[m] -= c
        return {m: c for m, c in a.items() if c}


O.PH.append("layer")
O.CODE["layer"] = 4001
O.RCODE[4001] = "layer"
oh = O.hooks


def hooks(model, cfg, state):
    hs = oh(model, cfg, state)
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    from transformers.modeling_layers import GradientCheckpointingLayer

    def fh(m, a, o):
        t = o[0] if isinstance(o, tuple) else o
        if torch.is_tensor(t) and t.requires_grad and (state["in"] == "fwd"):
            t.register_hook(lambda g: (O.mark("layer"), None)[1])

    for mod in core.modules():
        if isinstance(mod, GradientCheckpointingLayer):
            hs.append(mod.register_forward_hook(fh))
    return hs


O.hooks = hooks


def trace(job):
    box = {}
    orig = O.analyse

    def an(ev, known, explain=False):
        box["t"] = Trace(ev)
        return orig(ev, known, False)

    O.analyse = an
    try:
        O.run(job)
    finally:
        O.analyse = orig
    return box["t"]


def derive(n, mode, attn, ckpt, B, S, extra):
    pd, ac = {"bf16": ("bf16", "none"), "fp32": ("fp32", "none"), "autocast": ("fp32", "bf16")}[mode]
    tb = table(n, B, S)
    T = {}
    for nl in (2, 4):
        T[nl] = trace(
            dict(
                model="_" + n,
                micro_batch=B,
                seq_len=S,
                param_dtype=pd,
                autocast=ac,
                attn=attn.replace("+mask", ""),
                mask="padded" if "+mask" in attn else "none",
                n_layers=nl,
                steps=1,
                optimizer="none",
                ckpt=ckpt,
                **dict(dict(dropout=0.0), **extra),
            )
        )
    cnt = {nl: collections.Counter(((v[1], v[2] == "fwd_head") for v in t.fe)) for nl, t in T.items()}
    lay = collections.Counter()
    body = collections.Counter()
    head = collections.Counter()
    for k in set(cnt[2]) | set(cnt[4]):
        dl = (cnt[4][k] - cnt[2][k]) / 2
        c, m = name(k[0], tb)
        if dl:
            lay[m] += dl * c
        rest = cnt[2][k] - 2 * dl
        if rest:
            (head if k[1] else body)[m] += rest * c
    segs = [s for s in T[4].segs if s["name"] == "layer"]
    tr = T[4].net(segs[2], tb) if len(segs) > 2 else {}
    hd_ = [s for s in T[4].segs if s["name"] == "fwd_head"]
    lb = [s for s in T[4].segs if s["name"] == "bwd_head"]
    clean = lambda c: {m: round(v, 3) for m, v in sorted(c.items()) if v}
    return dict(
        layer=clean(lay),
        body=clean(body),
        head=clean(head),
        layer_transient=clean(tr),
        head_fwd_peak=clean(T[4].net(hd_[-1], tb)) if hd_ else {},
        loss_bwd_peak=clean(T[4].net(lb[-1], tb)) if lb else {},
    )
