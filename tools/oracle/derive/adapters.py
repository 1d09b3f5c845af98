"""What adapters add to a frozen layer, in closed form: subtracted from the traces to get the frozen layer itself.

The same rules as src/memory/adapters.rs; `FAM` names each family's linear layers with input, output and the group
that reads the same tensor.
"""

import collections

LL = lambda: {
    "q_proj": ("d", "q", "x"),
    "k_proj": ("d", "k", "x"),
    "v_proj": ("d", "k", "x"),
    "o_proj": ("q", "d", "o"),
    "gate_proj": ("d", "f", "y"),
    "up_proj": ("d", "f", "y"),
    "down_proj": ("f", "d", "z"),
}
LD = lambda: {k: tuple(("d" if s == "q" else s for s in v[:2])) + (v[2],) for k, v in LL().items()}
LDH = lambda: {k: tuple(("d" if s in ("q", "k") else s for s in v[:2])) + (v[2],) for k, v in LL().items()}
FAM = {n: LL() for n in "llama qwen3 gemma gemma2 gemma3_text".split()}
FAM.update({n: LD() for n in "qwen2 smollm3 granite".split()})
FAM.update({n: LDH() for n in "stablelm olmo olmo2".split()})
FAM["phi3"] = {
    "qkv_proj": ("d", "qkv", "x"),
    "o_proj": ("d", "d", "o"),
    "gate_up_proj": ("d", "2f", "y"),
    "down_proj": ("f", "d", "z"),
}
H = LDH()


def mk(names):
    return {n: v for n, v in names}


FAM["gpt2"] = mk(
    [
        ("c_attn", ("d", "qkv", "x")),
        ("attn.c_proj", ("d", "d", "o")),
        ("c_fc", ("d", "f", "y")),
        ("mlp.c_proj", ("f", "d", "z")),
    ]
)
FAM["phi"] = mk(
    [
        ("q_proj", ("d", "d", "x")),
        ("k_proj", ("d", "d", "x")),
        ("v_proj", ("d", "d", "x")),
        ("dense", ("d", "d", "o")),
        ("fc1", ("d", "f", "x")),
        ("fc2", ("f", "d", "z")),
    ]
)
FAM["gpt_neox"] = mk(
    [
        ("query_key_value", ("d", "qkv", "x")),
        ("dense", ("d", "d", "o")),
        ("dense_h_to_4h", ("d", "f", "y")),
        ("dense_4h_to_h", ("f", "d", "z")),
    ]
)
FAM["bloom"] = mk(
    [
        ("query_key_value", ("d", "qkv", "x")),
        ("dense", ("d", "d", "o")),
        ("dense_h_to_4h", ("d", "4d", "y")),
        ("dense_4h_to_h", ("4d", "d", "z")),
    ]
)
FAM["falcon"] = mk(
    [
        ("query_key_value", ("d", "qkv", "x")),
        ("dense", ("d", "d", "o")),
        ("dense_h_to_4h", ("d", "f", "x")),
        ("dense_4h_to_h", ("f", "d", "z")),
    ]
)
FAM["falcon-alibi"] = mk(
    [
        ("query_key_value", ("d", "qkv", "x")),
        ("dense", ("d", "d", "o")),
        ("dense_h_to_4h", ("d", "f", "y")),
        ("dense_4h_to_h", ("f", "d", "z")),
    ]
)
SC = LD()
SC = {
    "q_proj": SC["q_proj"],
    "k_proj": SC["k_proj"],
    "v_proj": SC["v_proj"],
    "o_proj": SC["o_proj"],
    "c_fc": ("d", "f", "y"),
    "c_proj": ("f", "d", "z"),
}
FAM["starcoder2"] = SC
FAM["opt"] = mk(
    [
        ("q_proj", ("d", "d", "x")),
        ("k_proj", ("d", "d", "x")),
        ("v_proj", ("d", "d", "x")),
        ("out_proj", ("d", "d", "o")),
        ("fc1", ("d", "f", "y")),
        ("fc2", ("f", "d", "z")),
    ]
)
for g in ("glm", "glm4"):
    FAM[g] = mk(
        [
            ("q_proj", ("d", "q", "x")),
            ("k_proj", ("d", "k", "x")),
            ("v_proj", ("d", "k", "x")),
            ("o_proj", ("q", "d", "o")),
            ("gate_up_proj", ("d", "2f", "y")),
            ("down_proj", ("f", "d", "z")),
        ]
    )
for g in ("cohere", "cohere2"):
    FAM[g] = {n: (v[0], v[1], "x" if v[2] == "y" else v[2]) for n, v in LD().items()}
FAM["gptj"] = mk(
    [
        ("q_proj", ("d", "d", "x")),
        ("k_proj", ("d", "d", "x")),
        ("v_proj", ("d", "d", "x")),
        ("out_proj", ("d", "d", "o")),
        ("fc_in", ("d", "f", "x")),
        ("fc_out", ("f", "d", "z")),
    ]
)
for g in ("bert", "roberta"):
    FAM[g] = mk(
        [
            ("query", ("d", "d", "x")),
            ("key", ("d", "d", "x")),
            ("value", ("d", "d", "x")),
            ("attention.output.dense", ("d", "d", "o")),
            ("intermediate.dense", ("d", "f", "y")),
            ("output.dense", ("f", "d", "z")),
        ]
    )
QV = {
    "mpt": ["Wqkv"],
    "phi3": ["qkv_proj"],
    "gpt2": ["c_attn"],
    "gpt_neox": ["query_key_value"],
    "bloom": ["query_key_value"],
    "falcon": ["query_key_value"],
    "falcon-alibi": ["query_key_value"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
}


def NI(i):
    return "N*" + i


def mono(*xs):
    return "*".join(sorted((x for x in xs))) if False else "*".join(xs)


def contrib(fam, mods, label, drop):
    base, ad = label.split("/")
    ad = ad.split("-")[0]
    amp = "autocast" in base
    kb = "kbit" in base
    q = base.split("+")[0]
    L = FAM[fam]
    c = collections.Counter()
    groups = set()
    for m in mods:
        i, o, g = L[m]
        if ad == "fp32" and (not amp):
            if q == "fp32":
                own = False
                w = 4
                rw = 4
            else:
                own = True
                w = 4
                rw = 4
        elif amp and ad == "fp32" and (q in ("bf16", "fp32")):
            own = True
            w = 2
            rw = 2
        else:
            own = False
            w = 2
            rw = 2
        if kb:
            own = g != "o" or q == "int8"
        if drop:
            if own and (not amp):
                c[NI(i)] += w + 1
            else:
                c[NI(i)] += w + 1
        elif own:
            c[NI(i)] += w
        elif q == "int8" and not kb:
            pass  # the layer under the adapter keeps it
        elif g not in groups and g != "o":
            c[NI(i)] += w
        groups.add(g)
        c["N*r"] += rw
        if amp and ad == "fp32":
            for s in (i, o):
                if s == "2f":
                    c["f*r"] += 4
                elif s == "4d":
                    c["d*r"] += 8
                elif s == "qkv":
                    c["d*r"] += 0
                    c["qkv*r"] += 2
                else:
                    c[s + "*r"] += 2
    return c


_c = contrib
MOE = ("mixtral", "qwen3_moe", "qwen2_moe", "olmoe", "gpt_oss")
for _m in MOE:
    b = LDH() if _m == "olmoe" else LD() if _m == "qwen2_moe" else LL()
    FAM[_m] = {k: v for k, v in b.items() if k in ("q_proj", "k_proj", "v_proj", "o_proj")}


def contrib(*a):
    c = _c(*a)
    if "N*4d" in c:
        c["N*d"] += 4 * c.pop("N*4d")
    return c
