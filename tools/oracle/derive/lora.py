"""Traces families with frozen weights under adapters: `lora.py OUT.json FAMILY,FAMILY`.

Every storage of the base, precision and kind of adapters that PEFT can make of them.
"""

import collections
import json
import os
import sys
import families  # noqa: F401, registers them
import tracing as D

O_r = 24
KB = [False]
_s = D.syms
D.syms = lambda n, B, S: dict(_s(n, B, S), r=O_r)
D.PREF["N*r"] = 0.1


def run(n, pd, ac, quant, fp32, targets, drop, ckpt, B=8, S=704, attn="sdpa"):
    tb = D.table(n, B, S)
    T = {}
    for nl in (2, 4):
        T[nl] = D.trace(
            dict(
                model="_" + n,
                micro_batch=B,
                seq_len=S,
                param_dtype=pd,
                autocast=ac,
                attn=attn,
                n_layers=nl,
                steps=1,
                optimizer="none",
                ckpt=ckpt,
                dropout=0.0,
                lora_r=O_r,
                lora_targets=targets,
                lora_fp32=fp32,
                quant=quant,
                lora_dropout=drop,
                kbit_prep=KB[0],
            )
        )
    cnt = {nl: collections.Counter(((v[1], v[2] == "fwd_head") for v in t.fe)) for nl, t in T.items()}
    lay = collections.Counter()
    body = collections.Counter()
    head = collections.Counter()
    for k in set(cnt[2]) | set(cnt[4]):
        dl = (cnt[4][k] - cnt[2][k]) / 2
        c, m = D.name(k[0], tb)
        if dl:
            lay[m] += dl * c
        rest = cnt[2][k] - 2 * dl
        if rest:
            (head if k[1] else body)[m] += rest * c
    segs = [s for s in T[4].segs if s["name"] == "layer"]
    tr = T[4].net(segs[1], tb)
    hd = [s for s in T[4].segs if s["name"] == "fwd_head"]
    lb = [s for s in T[4].segs if s["name"] == "bwd_head"]
    cl = lambda c: {m: round(v, 3) for m, v in sorted(c.items()) if v and (not (m == "1" and abs(v) < 60000))}
    return dict(
        layer=cl(lay),
        body=cl(body),
        head=cl(head),
        transient=cl(tr),
        head_fwd_peak=cl(T[4].net(hd[-1], tb)) if hd else {},
        loss_bwd_peak=cl(T[4].net(lb[-1], tb)) if lb else {},
    )


def flat_inputs():
    """transformers 5.23 gives latent attention's kv_b_proj four dimensions, which LLM.int8 refuses: earlier ones three."""
    import bitsandbytes as bnb

    c = bnb.nn.Linear8bitLt
    forward = c.forward
    c.forward = lambda m, x: forward(m, x.flatten(0, -3)).unflatten(0, x.shape[:-2]) if x.dim() > 3 else forward(m, x)


flat_inputs()
fn = sys.argv[1]
out = json.load(open(fn)) if os.path.exists(fn) else {}
QV = {
    "gpt_bigcode": "c_attn",
    "mpt": "Wqkv",
    "dbrx": "Wqkv",
    "minicpm3": "q_b_proj+kv_b_proj",
    "modernbert": "Wqkv",
    "gpt_neo": "q_proj+v_proj",
    "phi3": "qkv_proj",
    "gpt_neox": "query_key_value",
    "bloom": "query_key_value",
    "falcon": "query_key_value",
    "falcon-alibi": "query_key_value",
    "gpt2": "c_attn",
    "deepseek_v2": "q_proj+kv_b_proj",
    "deepseek_v3": "q_b_proj+kv_b_proj",
    "bert": "query+value",
    "roberta": "query+value",
    "distilbert": "q_lin+v_lin",
}
LAB = (
    ("bf16/fp32-adapters", "bf16", "none", "none", True),
    ("bf16/bf16-adapters", "bf16", "none", "none", False),
    ("bf16+autocast/fp32-adapters", "bf16", "bf16", "none", True),
    ("nf4+autocast/fp32-adapters", "bf16", "bf16", "nf4", True),
    ("int8+autocast/fp32-adapters", "bf16", "bf16", "int8", True),
    ("nf4+autocast+kbit_prep/fp32-adapters", "bf16", "bf16", "nf4", True),
    ("int8+autocast+kbit_prep/fp32-adapters", "bf16", "bf16", "int8", True),
    ("fp32/fp32-adapters", "fp32", "none", "none", True),
    ("fp32+autocast/fp32-adapters", "fp32", "bf16", "none", True),
    ("nf4/bf16-adapters", "bf16", "none", "nf4", False),
    ("nf4/fp32-adapters", "bf16", "none", "nf4", True),
    ("nf4+autocast/bf16-adapters", "bf16", "bf16", "nf4", False),
    ("bf16+autocast/bf16-adapters", "bf16", "bf16", "none", False),
)
FIRST = (
    "bf16+autocast/fp32",
    "nf4+autocast/fp32",
    "int8+autocast/fp32",
    "bf16+autocast/bf16",
    "nf4+autocast/bf16",
    "nf4/bf16",
)
if len(sys.argv) > 3:
    LAB = [row for row in LAB if row[0].removesuffix("-adapters") in FIRST]
MOE = {
    "granitemoe",
    "granitemoehybrid-moe",
    "ernie4_5_moe",
    "hunyuan_v1_moe",
    "dbrx",
    "glm4_moe_lite",
    "mistral4",
    "qwen3_next",
    "glm4_moe",
    "afmoe",
    "minimax_m2",
    "phimoe",
    "llama4",
    "gemma4-moe",
    "qwen3_5_moe",
    "mixtral",
    "qwen3_moe",
    "qwen2_moe",
    "olmoe",
    "gpt_oss",
    "deepseek_v2",
    "deepseek_v3",
}
ATTENTION = "q_proj+k_proj+v_proj+o_proj"
DENSE = "gate_proj+up_proj+down_proj"
TARGETS = {
    "falcon_h1": (("all", f"{ATTENTION}+in_proj+{DENSE}"), ("qv", "q_proj+v_proj")),
    "jamba": (("all", f"{ATTENTION}+{DENSE}"), ("qv", "q_proj+v_proj")),
    "jamba-moe": (("qv", "q_proj+v_proj"),),
    "jamba-mamba": (("mlp", DENSE), ("all", f"in_proj+x_proj+out_proj+{DENSE}")),
    "jamba-mamba-moe": (("mlp", "in_proj"), ("all", "in_proj+x_proj+out_proj")),
    "nemotron_h": (("qv", "q_proj+v_proj"), ("all", ATTENTION)),
    "nemotron_h-mamba": (("mlp", "in_proj"),),
    "nemotron_h-mlp": (("mlp", "up_proj+down_proj"),),
    "nemotron_h-moe": (("mlp", "shared_experts.up_proj+shared_experts.down_proj"),),
    "granitemoehybrid-mamba": (("mlp", "input_linear+output_linear"),),
    "granitemoehybrid-moe-mamba": (("mlp", "in_proj"),),
    "gemma3n": (("all", f"{ATTENTION}+{DENSE}"), ("qv", "q_proj+v_proj")),
    "gemma3n-sparse": (("all", f"{ATTENTION}+{DENSE}"), ("qv", "q_proj+v_proj")),
    "kimi_linear": (("qv", "q_proj+kv_b_proj"),),
    "kimi_linear-delta": (("mlp", "q_proj+k_proj+v_proj"), ("all", "q_proj+k_proj+v_proj+o_proj")),
    "lfm2_moe": (("qv", "q_proj+v_proj"),),
    "lfm2_moe-conv": (("mlp", "in_proj"),),
}
for n in sys.argv[2].split(","):
    attn = "eager" if n in D.EAGER else "sdpa"
    qv = QV.get(n, "q_proj+v_proj")
    for lab, pd, ac, quant, fp32 in LAB:
        for tn, tg in TARGETS.get(n) or (
            (("mlp", "w1+w3+w2"),)
            if n == "lfm2-conv"
            else (("mlp", "gate_proj+up_proj+down_proj"),)
            if n.endswith("-linear")
            else (("qv", qv),)
            if n in MOE
            else (("all", "all-linear"), ("qv", qv))
        ):
            for dr in (0.0, 0.05):
                key = f"{n}|{lab}|{tn}" + ("|dropout" if dr else "")
                if key in out:
                    continue
                KB[0] = "kbit_prep" in lab
                try:
                    a = run(n, pd, ac, quant, fp32, tg, dr, "none", attn=attn)
                    c = run(n, pd, ac, quant, fp32, tg, dr, "full", attn=attn)
                    if n + "~mlp" in D.FAM:
                        m = n + "~mlp"
                        ma = run(m, pd, ac, quant, fp32, tg, dr, "none", attn=attn)
                        mc = run(m, pd, ac, quant, fp32, tg, dr, "full", attn=attn)
                        a = dict(a, transient=ma["transient"], mixer=a["transient"])
                        c = dict(c, transient=mc["transient"], mixer=c["transient"])
                        a["ckpt_mixer"] = c["mixer"]
                    out[key] = dict(a, ckpt_layer=c["layer"], ckpt_body=c["body"], ckpt_transient=c["transient"])
                    print(key, out[key]["layer"], flush=True)
                except Exception as e:
                    print(key, "FAILED", type(e).__name__, str(e)[:200], flush=True)
        json.dump(out, open(fn, "w"), indent=0)
print("done")
