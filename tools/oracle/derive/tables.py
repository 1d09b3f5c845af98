"""Traces to the text of src/memory/coefficients: `tables.py full|lora TRACES.json...` prints the blocks.

Where two products have the same size at the traced dimensions the wrong one may be named; `fix` and `clean` hold
the cases that were found.
"""

import collections
import json
import os
import sys

import adapters as LB

RN = {"N*T*d": "N*T*d"}


def num(x):
    x = round(x, 3)
    return str(int(x)) if x == int(x) else str(x)


ORDER = "B S N d f fe h q k kv qkv V E T".split()


def expr(c, drop_const=True):
    out = []
    for m, x in sorted(c.items(), key=lambda t: (-t[0].count("*"), t[0])):
        if not x:
            continue
        if m == "1":
            if abs(x) < 60000:
                continue
            out.append(num(x))
            continue
        out.append(num(x) + "*" + m)
    return " + ".join(out)


PARTS = [
    "layer",
    "body",
    "head",
    "head_fwd_peak",
    "loss_bwd_peak",
    "transient",
    "transient_smallS",
    "ckpt_layer",
    "ckpt_body",
    "ckpt_transient",
    "ckpt_transient_smallS",
]
NAME = {
    "layer": "layer",
    "body": "body",
    "head": "head",
    "head_fwd_peak": "head-forward",
    "loss_bwd_peak": "loss-backward",
    "transient": "transient",
    "transient_smallS": "transient-mlp",
    "ckpt_layer": "checkpoint-layer",
    "ckpt_body": "checkpoint-body",
    "ckpt_transient": "checkpoint-transient",
    "ckpt_transient_smallS": "checkpoint-transient-mlp",
}
CONST = {
    # Latent attention under the memory-efficient kernel: sums over padded heads. Matched to the traced
    # bytes, its tiling is not derived: within 1 % in 16 bits, 6 % low in fp32.
    55071744: {"N*qh": 8},
    55293696: {"N*qh": 8},
    44061696: {"N*qh": 6},
    22364160: {"N*q": 4, "N*h": 4},
    22020096: {"N*q": 4},
    11010048: {"N*d": 4},
    20204800: {"N*q": 4},
    3627008: {"h*L*S": 2},
    5510400: {"M*q": 4},
    5682432: {"M*q": 4},
    9309440: {"M*q": 4, "h*L*S": 2},
}


def named(c):
    c = dict(c)
    k = c.pop("1", None)
    if k in CONST:
        for m, x in CONST[k].items():
            c[m] = c.get(m, 0) + x
    elif k is not None:
        c["1"] = k
    return c


def shared_(key, c):
    """DeepSeek's `fe` terms outside the grouped experts are its shared experts (two of them when traced): f = 2·fe."""
    if not key[0].startswith("deepseek"):
        return c
    r = {}
    for m, x in c.items():
        if m in ("N*fe", "d*fe"):
            m = m.replace("fe", "f")
            x /= 2
        r[m] = r.get(m, 0) + x
    return r


def block(key, t, parts=PARTS):
    t = {p: shared(key, named(v)) for p, v in t.items()}
    L = ["[" + " ".join(key) + "]"]
    for p in parts:
        if p not in t:
            continue
        if p.endswith("smallS") and t[p] == t[p[:-7]]:
            continue
        e = expr(t[p])
        L.append(f"{NAME.get(p, p)} = {e}")
    return "\n".join(L) + "\n"


DIM = dict(N=5632, B=8, S=704, d=448, f=832, fe=368, V=6080, h=14, q=560, k=80, hd=40, kv=2, E=37, T=5)
NOHD = {
    "apertus",
    "granitemoe",
    "granitemoehybrid",
    "granitemoehybrid-moe",
    "mllama",
    "lfm2",
    "lfm2-conv",
    "olmo3",
    "gpt_bigcode",
    "mpt",
    "gpt_neo",
    "falcon_h1",
    "jamba",
    "dbrx",
}
HEAD = ("head", "head_fwd_peak", "loss_bwd_peak")


def fix(f, part, c):
    c = dict(c)
    one = c.get("1", 0)
    if "1" in c and abs(one) < 60000:
        c.pop("1")
    kv = 14 if f == "olmo3" else 2
    if part in HEAD:
        for m in list(c):
            v = {
                "N*kv": kv * 5632,
                "S*hd": (32 if f in NOHD else 40) * 704,
                "N*T": (1 if f.startswith("llama4") else 2 if f == "phimoe" else 5) * 5632,
                "N*hv": 6 * 5632,
                "N*h": 14 * 5632,
                "N*E": 37 * 5632,
            }.get(m)
            if v and abs(abs(c[m]) * v - 8 * 5632) < 1:
                s = 1 if c[m] > 0 else -1
                c.pop(m)
                c["N"] = c.get("N", 0) + 8 * s
    elif f in NOHD and "body" not in part and abs(c.get("S*hd", 0)) and (c["S*hd"] % 2 == 0) and (f != "gpt_bigcode"):
        x = c.pop("S*hd")
        c["N*kv"] = c.get("N*kv", 0) + x * 2
    if f == "lfm2-conv" and one > 1000000.0:
        c.pop("1", None)
        4 if one > 6000000.0 and one < 11000000.0 and (round(one / (448 * 706 * 8)) == 4) else 2
        c["N*d"] = c.get("N*d", 0) + round(one / (448 * 706 * 8))
    return {m: x for m, x in c.items() if abs(x) > 1e-09}


def shared(f, c):
    two = {
        "kimi_linear",
        "kimi_linear-delta",
        "deepseek_v2",
        "deepseek_v3",
        "glm4_moe_lite",
        "mistral4",
        "ernie4_5_moe",
    }
    onex = {"glm4_moe", "afmoe", "llama4"}
    if f not in two | onex:
        return c
    n = 2 if f in two else 1
    r = {}
    for m, x in c.items():
        if m in ("N*fe", "d*fe"):
            m = m.replace("fe", "f")
            x /= n
        if f == "llama4" and m == "N*T*fe":
            m = "N*f"
        r[m] = r.get(m, 0) + x
    return r


def mixed(c):
    r = {}
    for m, x in c.items():
        if m in ("N*mx", "d*mx"):
            a = m[0]
            r[a + "*kd"] = r.get(a + "*kd", 0) + 2 * x
            r[a + "*vd"] = r.get(a + "*vd", 0) + x
        elif m in ("N*kdvd", "d*kdvd"):
            a = m[0]
            r[a + "*kd"] = r.get(a + "*kd", 0) + 2 * x
            r[a + "*vd"] = r.get(a + "*vd", 0) + 2 * x
        else:
            r[m] = r.get(m, 0) + x
    return r


PREC = [""]
STATE = {
    "mx": (("mi", 1), ("mg*mn", 2)),
    "mp": (("mi", 2), ("mg*mn", 2), ("mh", 1)),
    "mgn": (("mg*mn", 1),),
    "mgc": (("mg*mc", 1),),
    "msgn": (("ms*mg*mn", 1),),
    "msgc": (("ms*mg*mc", 1),),
    "mxp": (("mr", 1), ("mn", 2)),
    "3vd": (("vd", 3),),
    "rope": (("kvrr", 1), ("kvr", -1)),
}
# Values of state in a micro-batch, in fp32, at the traced dimensions.
STATES = {860160: "B*mi*mn", 1720320: "B*mi*mn"}


def state(f, c):
    """Widths that are sums of others, and names that mean something else in a block without the usual one."""
    r = collections.Counter()
    for m, x in c.items():
        if f == "nemotron_h-mamba" and m in ("N*f", "d*f"):
            m = m.replace("f", "mx")
        if m == "1" and x in STATES and ("-mamba" in f or f == "falcon_h1"):
            m, x = (STATES[x], 4)
        if f == "dbrx" and m in ("S*d", "S*fe", "S"):
            m, x = (m.replace("S", "N*T"), x / 32)
        if f.startswith("gemma3n") and m == "S" and abs(x) >= 128:  # AltUp's four by four, B = 8
            m, x = ("N", x / 8)
        if f.startswith("jamba"):
            m = "*".join("fe" if y == "f" else y for y in m.split("*"))
        for width, parts in STATE.items():
            if width in m.split("*"):
                for part, k in parts:
                    r["*".join(part if y == width else y for y in m.split("*"))] += k * x
                break
        else:
            r[m] += x
    return dict(r)


def clean(f, part, c):
    c = state(f, shared(f, fix(f, part, named(c))))
    wide = PREC[0] in ("fp32", "fp32/fp32-adapters")
    if f.endswith("-linear") and wide and (abs(c.get("N*kdvd", 0)) == 2):
        s = c.pop("N*kdvd")
        c["N*hv"] = c.get("N*hv", 0) + 128 * s
    c = mixed(c)
    if f.endswith("-linear"):
        step = 99 if wide else 16
        x = c.get("N*kd", 0)
        s = 1 if x > 0 else -1
        if abs(x) >= step:
            c["N*kd"] = x - s * step
            c["N*hv"] = c.get("N*hv", 0) + s * 8 * step
    if f == "llama4":
        for m in list(c):
            if m in ("N*h", "N*kv", "S"):
                pass
    return {m: x for m, x in c.items() if abs(x) > 1e-09}


def block(key, t, parts=PARTS):
    PREC[0] = key[2] if key[0] == "lora" else key[1]
    t = {p: clean(key[1] if key[0] == "lora" else key[0], p, v) for p, v in t.items()}
    L = ["[" + " ".join(key) + "]"]
    for p in parts:
        if p not in t or (p.endswith("smallS") and t[p] == t[p[:-7]]):
            continue
        L.append(f"{NAME.get(p, p)} = {expr(t[p])}")
    return "\n".join(L) + "\n"


def full(files):
    T = {}
    for f in files:
        if os.path.exists(f):
            T.update(json.load(open(f)))
    B = []
    for k in T:
        p = k.split("|")
        if p[0] in SKIP or (p[0].endswith(ATTENTION_FREE) and p[2] != "sdpa"):
            continue
        if p[1] == "amp16":
            o = T.get(k.replace("amp16", "bf16"))
            if o and block(p, T[k]).split("\n", 1)[1] == block(p, o).split("\n", 1)[1]:
                continue
        B.append(block(p, T[k]))
    return B


SKIP = set()
ATTENTION_FREE = ("-linear", "-conv", "-delta", "-mamba", "-mamba-moe", "nemotron_h-mlp", "nemotron_h-moe")
X = LB.FAM
L, LD, LDH = (LB.LL, LB.LD, LB.LDH)


def attn(b):
    return {k: v for k, v in b.items() if k in ("q_proj", "k_proj", "v_proj", "o_proj")}


for n in ("seed_oss", "ernie4_5", "hunyuan_v1_dense", "exaone4", "llama4-dense", "gemma4", "gemma4-ple"):
    X[n] = L()
X["mllama"] = LD()
X["apertus"] = {k: v for k, v in LD().items() if k != "gate_proj"}
X["olmo3"] = LDH()
for n in ("arcee", "nemotron"):
    X[n] = {k: v for k, v in L().items() if k != "gate_proj"}
X["lfm2"] = {
    "q_proj": ("d", "d", "x"),
    "k_proj": ("d", "k", "x"),
    "v_proj": ("d", "k", "x"),
    "out_proj": ("d", "d", "o"),
    "w1": ("d", "f", "y"),
    "w3": ("d", "f", "y"),
    "w2": ("f", "d", "z"),
}
X["granitemoehybrid"] = {**attn(LD()), "input_linear": ("d", "2f", "y"), "output_linear": ("f", "d", "z")}
X["modernbert"] = {
    "Wqkv": ("d", "qkv", "x"),
    "attn.Wo": ("d", "d", "o"),
    "Wi": ("d", "2f", "y"),
    "mlp.Wo": ("f", "d", "z"),
}
X["qwen3_5"] = dict(L(), q_proj=("d", "2q", "x"))
MOE = {
    "llama4": attn(L()),
    "glm4_moe": attn(L()),
    "qwen3_5_moe": dict(attn(L()), q_proj=("d", "2q", "x")),
    "qwen3_next": dict(attn(L()), q_proj=("d", "2q", "x")),
    "gemma4-moe": attn(L()),
    "gemma4-ple": attn(L()),
    "minimax_m2": attn(L()),
    "afmoe": attn(L()),
    "phimoe": attn(L()),
    "granitemoe": attn(LD()),
    "granitemoehybrid-moe": attn(LD()),
    "ernie4_5_moe": attn(L()),
}
X["mpt"] = {
    "Wqkv": ("d", "qkv", "x"),
    "out_proj": ("d", "d", "o"),
    "up_proj": ("d", "4d", "y"),
    "down_proj": ("4d", "d", "z"),
}
MOE["deepseek_v3"] = {"q_b_proj": ("kvrr", "qh", "a"), "kv_b_proj": ("kvr", "nv", "b")}
MOE["deepseek_v2"] = {"q_proj": ("d", "qh", "x"), "kv_b_proj": ("kvr", "nv", "b")}
X["lfm2-conv"] = {"w1": ("d", "f", "y"), "w3": ("d", "f", "y"), "w2": ("f", "d", "z")}
X.update(MOE)
lin = {"gate_proj": ("d", "f", "y"), "up_proj": ("d", "f", "y"), "down_proj": ("f", "d", "z")}
for n in ("qwen3_5-linear", "qwen3_5_moe-linear", "qwen3_next-linear"):
    X[n] = lin

X["falcon_h1"] = dict(LD(), in_proj=("d", "mp", "m"))
X["jamba"] = LD()
X["jamba-mamba"] = dict(lin, in_proj=("d", "2mi", "m"), x_proj=("mi", "mxp", "c"), out_proj=("mi", "d", "o"))
X["jamba-mamba-moe"] = {k: v for k, v in X["jamba-mamba"].items() if k not in lin}
X["nemotron_h"] = attn(L())
X["nemotron_h-mamba"] = X["granitemoehybrid-moe-mamba"] = {"in_proj": ("d", "mp", "m")}
X["nemotron_h-mlp"] = X["nemotron_h-moe"] = {"up_proj": ("d", "f", "y"), "down_proj": ("f", "d", "z")}
X["granitemoehybrid-mamba"] = {"input_linear": ("d", "2f", "y"), "output_linear": ("f", "d", "z")}
X["kimi_linear-delta"] = {**{n: ("d", "vd", "x") for n in ("q_proj", "k_proj", "v_proj")}, "o_proj": ("vd", "d", "o")}
X["lfm2_moe-conv"] = {"in_proj": ("d", "3d", "m")}
X["gemma3n"] = X["gemma3n-sparse"] = L()
MOE["jamba-moe"] = MOE["lfm2_moe"] = attn(LD())
MOE["hunyuan_v1_moe"] = attn(L())
MOE["kimi_linear"] = {"q_proj": ("d", "qh", "x"), "kv_b_proj": ("kvr", "nv", "b")}
X["gpt_neo"] = {
    "q_proj": ("d", "d", "x"),
    "k_proj": ("d", "d", "x"),
    "v_proj": ("d", "d", "x"),
    "out_proj": ("d", "d", "o"),
    "c_fc": ("d", "f", "y"),
    "c_proj": ("f", "d", "z"),
}
X["gpt_bigcode"] = {
    "c_attn": ("d", "qkv", "x"),
    "attn.c_proj": ("d", "d", "o"),
    "c_fc": ("d", "f", "y"),
    "mlp.c_proj": ("f", "d", "z"),
}
X["distilbert"] = {
    "q_lin": ("d", "d", "x"),
    "k_lin": ("d", "d", "x"),
    "v_lin": ("d", "d", "x"),
    "out_lin": ("d", "d", "o"),
    "lin1": ("d", "f", "y"),
    "lin2": ("f", "d", "z"),
}
MOE["minicpm3"] = {"q_b_proj": ("kvrr", "qh", "a"), "kv_b_proj": ("kvr", "nv", "b")}
MOE["dbrx"] = {"Wqkv": ("d", "qkv", "x")}
X.update(MOE)
# Blocks traced with fewer modules than `X` has; the rest tells what an adapted output projection keeps.
PART = {
    "jamba-mamba": list(lin),
    "jamba-mamba-moe": ["in_proj"],
    "kimi_linear-delta": ["q_proj", "k_proj", "v_proj"],
    "nemotron_h": ["q_proj", "v_proj"],
}


HYBRID = {"falcon_h1", "jamba-mamba", "jamba-mamba-moe", "kimi_linear-delta"}


def body_of(fam, lab, v, q, labs):
    """With an adapter on what the first layer projects, where there is such a trace."""
    if fam == "granitemoehybrid-mamba":  # the mixer is the same
        return labs.get(("granitemoehybrid-moe-mamba", lab), {}).get(("mlp", False), q)["body"]
    return v.get(("all", False), q)["body"] if fam in HYBRID else q["body"]


def modules(f, tn):
    if tn == "all":
        return list(X[f])
    return PART.get(f, list(X[f])) if tn == "mlp" else QV(f)


def QV(f):
    latent = {
        "deepseek_v3": ["q_b_proj", "kv_b_proj"],
        "deepseek_v2": ["q_proj", "kv_b_proj"],
        "kimi_linear": ["q_proj", "kv_b_proj"],
        "minicpm3": ["q_b_proj", "kv_b_proj"],
        "dbrx": ["Wqkv"],
        "modernbert": ["Wqkv"],
        "gpt_bigcode": ["c_attn"],
        "distilbert": ["q_lin", "v_lin"],
    }
    return latent.get(f) or LB.QV.get(f, ["q_proj", "v_proj"])


def contrib(f, mods, lab, dr):
    c = LB.contrib(f, mods, lab, dr)
    r = collections.Counter()
    for m, x in c.items():
        if m.startswith(("2q*", "2mi*", "3d*")):
            r[m[1:]] += x * int(m[0])
        elif m == "mxp*r":  # as it is named in the traces
            r["mr*r"] += 5 * x
        elif f.startswith(("deepseek", "kimi_linear", "minicpm3")) and m.endswith("*r") and (m not in ("N*r", "d*r")):
            pass
        else:
            r[m] += x
    return r


def sub(a, b):
    c = collections.Counter(a)
    c.subtract(b)
    return {m: x for m, x in c.items() if abs(x) > 1e-09}


def lora(files):
    T = {}
    for f in files:
        if os.path.exists(f):
            T.update({k: v for k, v in json.load(open(f)).items()})
    labs = collections.OrderedDict()
    for k in T:
        p = k.split("|")
        if p[0].startswith("deepseek"):
            [v_.pop("1", None) for v_ in T[k].values()]
        labs.setdefault((p[0], p[1]), {})[p[2], len(p) > 3] = T[k]
    R = []
    bad = []
    for (fam, lab), v in labs.items():
        if fam not in X or fam in SKIP:
            continue
        linear = fam.endswith(ATTENTION_FREE)
        if linear:
            if ("mlp", False) not in v:
                continue
            base = sub(v["mlp", False]["layer"], contrib(fam, modules(fam, "mlp"), lab, False))
            q = v["mlp", False]
            copy = {}
            if ("all", False) in v:
                copy = sub(sub(v["all", False]["layer"], contrib(fam, list(X[fam]), lab, False)), base)
            use = {("mlp", d): x for (t, d), x in v.items() if t == "mlp"}
        elif fam == "nemotron_h":
            if ("all", False) not in v:
                continue
            q = v["qv", False]
            base = sub(q["layer"], contrib(fam, QV(fam), lab, False))
            copy = sub(sub(v["all", False]["layer"], contrib(fam, list(X[fam]), lab, False)), base)
            use = {("qv", d): x for (t, d), x in v.items() if t == "qv"}
        elif fam in MOE:
            if ("qv", False) not in v:
                continue
            base = sub(v["qv", False]["layer"], contrib(fam, QV(fam), lab, False))
            q = v["qv", False]
            copy = {}
            use = {(t, d): x for (t, d), x in v.items() if t == "qv"}
        else:
            if ("qv", False) not in v or ("all", False) not in v:
                continue
            base = sub(v["qv", False]["layer"], contrib(fam, QV(fam), lab, False))
            q = v["qv", False]
            copy = sub(sub(v["all", False]["layer"], contrib(fam, list(X[fam]), lab, False)), base)
            use = v
            copy = {m: x for m, x in copy.items() if not (m == "1" and abs(x) < 60000)}
        if fam == "mpt":  # as many key heads as heads: qkv is 3·d
            x = base.pop("qkv*r", 0)
            base["d*r"] = base.get("d*r", 0) + 3 * x
            base = {m: y for m, y in base.items() if abs(y) > 1e-09}
        if fam == "dbrx":  # other products of the same size were named
            base.pop("qkv*r", None)
        if fam == "gpt_bigcode":  # and there 16·k at the traced dimensions
            x = base.pop("qkv*r", 0)
            base["k*r"] = base.get("k*r", 0) + 16 * x
            base = {m: y for m, y in base.items() if abs(y) > 1e-09}
        if linear and base.get("N*r", 0) < 0:
            x = base.pop("N*r")
            base["N*kd"] = base.get("N*kd", 0) + x / 2
            base = {m: y for m, y in base.items() if abs(y) > 1e-09}
        if fam == "gemma4-ple":  # hp = r at the traced dimensions
            for a in ("N", "d"):
                x = base.get(a + "*r", 0)
                if x < 0:
                    base.pop(a + "*r")
                    base[a + "*hp"] = base.get(a + "*hp", 0) + x
            base = {m: y for m, y in base.items() if abs(y) > 1e-09}
        neg = {m: x for m, x in base.items() if x < -1e-09 and m != "1"}
        if neg:
            bad.append((fam, lab, "negative", neg))
        if copy and any((m not in ("N*d", "N*q", "N*mi", "N*vd") for m in copy)):
            bad.append((fam, lab, "copy", copy))
        for (tn, dr), t in use.items():
            mods = modules(fam, tn)
            b = sub(t["layer"], contrib(fam, mods, lab, dr))
            b = {m: x for m, x in b.items() if not (m == "1" and abs(x) < 60000)}
            base_ = {m: x for m, x in base.items() if not (m == "1" and abs(x) < 60000)}
            if b != base_ and (not (tn == "all" and (not dr))):
                bad.append((fam, lab, tn, dr, sub(b, base_)))
        t = dict(
            layer=base,
            body=body_of(fam, lab, v, q, labs),
            head=q["head"],
            head_fwd_peak=q["head_fwd_peak"],
            loss_bwd_peak=q["loss_bwd_peak"],
            ckpt_layer=q["ckpt_layer"],
            ckpt_body=q["ckpt_body"],
        )
        out = block(("lora", fam, lab), t)
        extra = []
        if copy:
            extra.append("output-copy = " + expr(clean(fam, "layer", copy)))
        for (tn, dr), x in sorted(use.items()):
            mods = modules(fam, tn)
            c = contrib(fam, mods, lab, dr)
            for nm in (
                ("mlp", "attention")
                if linear
                else ("mlp",)
                if tn == "all"
                else ("attention", "mlp")
                if fam in MOE or fam == "nemotron_h"
                else ("attention",)
            ):
                nm += "-dropout" if dr else ""
                extra.append(f"transient-{nm} = {expr(clean(fam, 'transient', x['transient']))}")
                extra.append(
                    f"checkpoint-transient-{nm} = {expr(clean(fam, 'transient', sub(x['ckpt_transient'], c)))}"
                )
            if "mixer" in x and tn != "qv":
                nm = "mixer" + ("-dropout" if dr else "")
                extra.append(f"transient-{nm} = {expr(clean(fam, 'transient', x['mixer']))}")
                extra.append(f"checkpoint-transient-{nm} = {expr(clean(fam, 'transient', sub(x['ckpt_mixer'], c)))}")
        R.append(out + "\n".join(extra) + "\n")
    return (R, bad)


def main():
    kind, *files = sys.argv[1:]
    if kind == "full":
        print("\n".join(full(files)))
    else:
        blocks, bad = lora(files)
        print("\n".join(blocks))
        for row in bad:
            print("not explained by the closed form:", row, file=sys.stderr)


if __name__ == "__main__":
    main()
