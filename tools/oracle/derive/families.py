"""Families beyond those of tracing.py, with the symbols that are theirs alone.

To add one: a line in `N` (dimensions pairwise distinguishable: `L` has them), and a symbol in `syms` for every
dimension that no symbol names yet.
"""

import tracing as D

import models as M

D.FAM["gpt_neo"] = (
    "gpt_neo",
    dict(
        hidden_size=448,
        num_heads=14,
        vocab_size=6080,
        intermediate_size=832,
        max_position_embeddings=8192,
        attention_types=[[["global"], 8]],
        num_layers=8,
    ),
)
D.FAM["mpt"] = (
    "mpt",
    dict(d_model=448, n_heads=14, expansion_ratio=4, vocab_size=6080, max_seq_len=8192, no_bias=True, n_layers=8),
)
D.FAM["glm4"] = ("glm4", dict(D.L, attention_bias=True, pad_token_id=0))
D.FAM["cohere2"] = ("cohere2", dict(D.nohd(), sliding_window=8192))
for n in ("gpt_neo", "mpt", "glm4", "cohere2"):
    mt, kw = D.FAM[n]
    M.R["_" + n] = (mt, kw)
    M.CLS["_" + n] = "causal"
    M.KNOWN["_" + n] = None
D.EAGER |= {"mpt"}
L = D.L
nohd = D.nohd
MH = D.MH
LT = lambda k: [k] * 8
N = {
    "seed_oss": ("seed_oss", dict(L, attention_bias=True)),
    "ernie4_5": ("ernie4_5", dict(L, pad_token_id=0)),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", dict(L, pad_token_id=0)),
    "arcee": ("arcee", dict(L)),
    "apertus": ("apertus", nohd()),
    "nemotron": ("nemotron", dict(L)),
    "exaone4": ("exaone4", dict(L, sliding_window=8192, layer_types=LT("full_attention"))),
    "glm4_moe": (
        "glm4_moe",
        dict(
            L,
            attention_bias=True,
            moe_intermediate_size=368,
            n_routed_experts=37,
            n_shared_experts=1,
            num_experts_per_tok=5,
            first_k_dense_replace=0,
            n_group=1,
            topk_group=1,
        ),
    ),
    "glm4_moe_lite": (
        "glm4_moe_lite",
        dict(D.DS, q_lora_rank=248, n_group=1, topk_group=1, mlp_layer_types=LT("sparse"), pad_token_id=0),
    ),
    "minicpm3": (
        "minicpm3",
        {
            k: v
            for k, v in D.DS.items()
            if k
            not in (
                "moe_intermediate_size",
                "n_routed_experts",
                "n_shared_experts",
                "num_experts_per_tok",
                "first_k_dense_replace",
            )
        }
        | dict(q_lora_rank=248),
    ),
    "mistral4": ("mistral4", dict(D.DS, q_lora_rank=248, n_group=1, topk_group=1)),
    "minimax_m2": ("minimax_m2", dict(L, intermediate_size=368, num_local_experts=37, num_experts_per_tok=5)),
    "afmoe": (
        "afmoe",
        dict(
            L,
            moe_intermediate_size=368,
            num_experts=37,
            num_experts_per_tok=5,
            num_shared_experts=1,
            num_dense_layers=0,
            sliding_window=8192,
            layer_types=LT("full_attention"),
        ),
    ),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        dict(
            L,
            moe_intermediate_size=368,
            moe_num_experts=37,
            moe_k=5,
            moe_num_shared_experts=2,
            moe_layer_start_index=0,
            pad_token_id=0,
        ),
    ),
    "granitemoe": (
        "granitemoe",
        nohd(intermediate_size=368, num_local_experts=37, num_experts_per_tok=5, pad_token_id=0),
    ),
    "granitemoehybrid": (
        "granitemoehybrid",
        nohd(
            shared_intermediate_size=832,
            num_local_experts=0,
            num_experts_per_tok=0,
            layer_types=LT("attention"),
            position_embedding_type="rope",
            pad_token_id=0,
        ),
    ),
    "granitemoehybrid-moe": (
        "granitemoehybrid",
        nohd(
            intermediate_size=368,
            shared_intermediate_size=832,
            num_local_experts=37,
            num_experts_per_tok=5,
            layer_types=LT("attention"),
            position_embedding_type="nope",
            pad_token_id=0,
        ),
    ),
    "mllama": ("mllama_text_model", nohd(cross_attention_layers=[], pad_token_id=0)),
    "llama4": (
        "llama4_text",
        dict(
            L,
            intermediate_size=368,
            intermediate_size_mlp=832,
            num_local_experts=37,
            num_experts_per_tok=1,
            interleave_moe_layer_step=1,
            use_qk_norm=True,
            layer_types=LT("full_attention"),
            pad_token_id=0,
        ),
    ),
    "llama4-dense": (
        "llama4_text",
        dict(
            L,
            intermediate_size=368,
            intermediate_size_mlp=832,
            num_local_experts=37,
            num_experts_per_tok=1,
            moe_layers=[],
            use_qk_norm=True,
            layer_types=LT("full_attention"),
            pad_token_id=0,
        ),
    ),
    "phimoe": ("phimoe", dict(L, intermediate_size=368, num_local_experts=37, num_experts_per_tok=2)),
    "gpt_bigcode": (
        "gpt_bigcode",
        dict(n_embd=448, n_head=14, n_positions=8192, vocab_size=6080, n_inner=832, multi_query=True),
    ),
    "lfm2": ("lfm2", nohd(block_auto_adjust_ff_dim=False, layer_types=LT("full_attention"))),
    "lfm2-conv": ("lfm2", nohd(block_auto_adjust_ff_dim=False, layer_types=LT("conv"))),
    "qwen3_5": (
        "qwen3_5_text",
        dict(
            L,
            layer_types=LT("full_attention"),
            linear_num_key_heads=2,
            linear_num_value_heads=14,
            linear_key_head_dim=24,
            linear_value_head_dim=56,
        ),
    ),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        dict(
            L,
            moe_intermediate_size=368,
            shared_expert_intermediate_size=832,
            num_experts=37,
            num_experts_per_tok=5,
            layer_types=LT("full_attention"),
            linear_num_key_heads=2,
            linear_num_value_heads=14,
            linear_key_head_dim=24,
            linear_value_head_dim=56,
        ),
    ),
    "qwen3_next": (
        "qwen3_next",
        dict(
            L,
            moe_intermediate_size=368,
            shared_expert_intermediate_size=832,
            num_experts=37,
            num_experts_per_tok=5,
            layer_types=LT("full_attention"),
            linear_num_key_heads=2,
            linear_num_value_heads=14,
            linear_key_head_dim=24,
            linear_value_head_dim=56,
        ),
    ),
    "gemma4": (
        "gemma4_text",
        dict(
            L,
            global_head_dim=40,
            num_global_key_value_heads=2,
            sliding_window=8192,
            hidden_size_per_layer_input=0,
            layer_types=LT("full_attention"),
        ),
    ),
    "gemma4-ple": (
        "gemma4_text",
        dict(
            L,
            global_head_dim=40,
            num_global_key_value_heads=2,
            sliding_window=8192,
            hidden_size_per_layer_input=24,
            vocab_size_per_layer_input=6080,
            layer_types=LT("full_attention"),
        ),
    ),
    "gemma4-moe": (
        "gemma4_text",
        dict(
            L,
            global_head_dim=40,
            num_global_key_value_heads=2,
            sliding_window=8192,
            hidden_size_per_layer_input=0,
            enable_moe_block=True,
            num_experts=37,
            top_k_experts=5,
            moe_intermediate_size=368,
            layer_types=LT("full_attention"),
        ),
    ),
    "gemma4-keqv": (
        "gemma4_text",
        dict(
            L,
            global_head_dim=40,
            num_global_key_value_heads=2,
            sliding_window=8192,
            hidden_size_per_layer_input=0,
            attention_k_eq_v=True,
            layer_types=LT("full_attention"),
        ),
    ),
    "gemma4-sliding": (
        "gemma4_text",
        dict(
            L,
            global_head_dim=40,
            num_global_key_value_heads=2,
            sliding_window=8192,
            hidden_size_per_layer_input=0,
            layer_types=LT("sliding_attention"),
        ),
    ),
    "gemma3n": (
        "gemma3n_text",
        dict(
            L,
            sliding_window=8192,
            layer_types=LT("full_attention"),
            hidden_size_per_layer_input=24,
            vocab_size_per_layer_input=6080,
            laurel_rank=16,
            num_kv_shared_layers=0,
            activation_sparsity_pattern=[0.0] * 8,
        ),
    ),
    "olmo3": ("olmo3", MH(sliding_window=8192, layer_types=LT("full_attention"))),
}
for n, (mt, kw) in N.items():
    if "layer_types" in kw or "activation_sparsity_pattern" in kw or "mlp_layer_types" in kw:
        kw.setdefault("num_hidden_layers", 8)
    D.FAM[n] = (mt, kw)
    M.R["_" + n] = (mt, kw)
    M.CLS["_" + n] = "causal"
    M.KNOWN["_" + n] = None
_s = D.syms


def syms(n, B, S):
    s = _s(n, B, S)
    if n in ("glm4_moe_lite", "minicpm3", "mistral4"):
        s = _s("deepseek_v3", B, S)
    if n in (
        "qwen3_next",
        "qwen3_next-linear",
        "minimax_m2",
        "afmoe",
        "granitemoehybrid-moe",
        "llama4",
        "llama4-dense",
    ):
        s.update(E=37, T=5, fe=368)
    if n == "llama4":
        s["T"] = 1
    if n == "phimoe":
        s["T"] = 2
    if n == "minicpm3":
        [s.pop(x) for x in ("E", "T", "fe")]
    if n == "gpt_bigcode":
        s.update(kv=1, k=32)
    return s


D.syms = syms
D.DROP |= {"seed_oss"}
_s2 = D.syms


def syms2(n, B, S):
    s = _s2(n, B, S)
    if n in ("gemma4-ple", "gemma3n"):
        s["hp"] = 24
    return s


D.syms = syms2
D.PREF["N*hp"] = 0.05
D.PREF["d*hp"] = 0.05
import fla_like

fla_like.install()
LIN = dict(
    layer_types=["linear_attention"] * 8,
    linear_num_key_heads=2,
    linear_num_value_heads=6,
    linear_key_head_dim=24,
    linear_value_head_dim=56,
)
for n in ("qwen3_5", "qwen3_5_moe", "qwen3_next"):
    mt, kw = D.FAM[n]
    m = n + "-linear"
    D.FAM[m] = (mt, dict(kw, **LIN))
    M.R["_" + m] = D.FAM[m]
    M.CLS["_" + m] = "causal"
    M.KNOWN["_" + m] = None
_s3 = D.syms


def syms3(n, B, S):
    s = _s3(n, B, S)
    if n.endswith("-linear"):
        for x in ("h", "q", "k", "hd", "kv"):
            s.pop(x, None)
        s.update(kd=48, vd=336, hv=6, kw=24, mx=432)
        s.setdefault("r", 24)
    return s


D.syms = syms3
D.PREF.update({"N*mx": 0.1, "N*vd": 0.1, "N*kd": 0.1, "N*hv": 0.2, "d*mx": 0.2})
_t = D.table


def table(n, B, S):
    if not n.endswith("-linear"):
        return _t(n, B, S)
    s = D.syms(n, B, S)
    out = []
    for m in D.MONO:
        v = 1
        try:
            for x in m.split("*"):
                v *= s[x]
        except KeyError:
            continue
        out.append((v, m))
    out.append((s["N"] * 2 * (s["kd"] + s["vd"]), "N*kdvd"))
    out.append((s["d"] * 2 * (s["kd"] + s["vd"]), "d*kdvd"))
    return out


D.table = table
D.W[128] = 0.8
_n = D.name


def name(size, tb):
    c, m = _n(size, tb)
    if m == "1" and size > 64:
        for v, k in tb:
            if k == "N*vd*kw" and size * 32 % v == 0 and (size * 32 // v in (1, 2)):
                return (size / v, k)
    return (c, m)


D.name = name

# Layers that all attend to everything; `+mask` is what local layers keep under SDPA.
D.FAM["modernbert"] = (
    "modernbert",
    dict(
        hidden_size=448,
        num_attention_heads=14,
        intermediate_size=832,
        vocab_size=6080,
        max_position_embeddings=8192,
        layer_types=["full_attention"] * 8,
        num_hidden_layers=8,
        pad_token_id=0,
    ),
)
M.R["_modernbert"] = D.FAM["modernbert"]
M.CLS["_modernbert"] = "mlm"
M.KNOWN["_modernbert"] = None
