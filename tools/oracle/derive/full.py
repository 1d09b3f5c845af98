"""Traces families with every parameter trained: `full.py OUT.json FAMILY,FAMILY`.

Four precisions, three attentions, with and without checkpointing; rows that OUT.json has are kept.
"""

import json
import os
import sys
import families  # noqa: F401, registers them
import tracing as D

import runner as O

fn = sys.argv[1]
out = json.load(open(fn)) if os.path.exists(fn) else {}
base = O.run
for n in sys.argv[2].split(","):
    for mode in ("bf16", "amp16", "fp32", "autocast"):

        def run(job, *a, mode=mode):
            return base(dict(job, param_dtype="bf16", autocast="bf16") if mode == "amp16" else job, *a)

        O.run = run
        m = "bf16" if mode == "amp16" else mode
        for attn in ("sdpa", "sdpa+mask", "eager"):
            for dr in (0.0, None) if n in D.DROP else (0.0,):
                key = f"{n}|{mode}|{attn}" + ("|dropout" if dr is None else "")
                if key in out:
                    continue
                try:
                    a = D.derive(n, m, attn, "none", 8, 704, dict(dropout=dr))
                    c = D.derive(n, m, attn, "full", 8, 704, dict(dropout=dr))
                    s, sc = (a, c)
                    if n + "~mlp" in D.FAM:
                        s = D.derive(n + "~mlp", m, attn, "none", 8, 704, dict(dropout=dr))
                        sc = D.derive(n + "~mlp", m, attn, "full", 8, 704, dict(dropout=dr))
                    elif attn == "eager":
                        s = D.derive(n, m, attn, "none", 64, 88, dict(dropout=dr))
                        sc = D.derive(n, m, attn, "full", 64, 88, dict(dropout=dr))
                    out[key] = dict(
                        layer=a["layer"],
                        body=a["body"],
                        head=a["head"],
                        head_fwd_peak=a["head_fwd_peak"],
                        loss_bwd_peak=a["loss_bwd_peak"],
                        transient=a["layer_transient"],
                        transient_smallS=s["layer_transient"],
                        ckpt_layer=c["layer"],
                        ckpt_body=c["body"],
                        ckpt_transient=c["layer_transient"],
                        ckpt_transient_smallS=sc["layer_transient"],
                    )
                    print(key, out[key]["layer"], flush=True)
                except Exception as e:
                    print(key, "FAILED", type(e).__name__, str(e)[:160], flush=True)
                json.dump(out, open(fn, "w"), indent=0)
