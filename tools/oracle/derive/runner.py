"""One training step of a Hugging Face model, every allocation of it recorded.

The model is built with real modules; PyTorch's CUDA dispatch, autograd and caching allocator run over the stub
runtime. Markers (allocations of odd sizes) separate the phases in the allocator's own event trace.
"""

import collections
import gc
import os
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PRELOAD = f"{HERE}/stub/libfakecuda.so:{HERE}/stub/libcuda.so.1:{HERE}/stub/libnvidia-ml.so.1"
DEFAULTS = dict(
    model="gpt2",
    cfg={},
    micro_batch=1,
    seq_len=1024,
    tgt_len=None,
    param_dtype="bf16",
    autocast="none",
    optimizer="adamw",
    ckpt="none",
    reentrant=False,
    attn="sdpa",
    lora_r=0,
    lora_targets="all-linear",
    lora_dropout=0.0,
    lora_fp32=True,
    quant="none",
    kbit_prep=False,
    loss="hf",
    accum=1,
    clip=False,
    dropout=None,
    steps=2,
    freeze_embed=False,
    mask="none",
    keep_outputs=False,
    trainer_fp32_out=False,
    liger=False,
    n_layers=None,
)
import warnings

warnings.filterwarnings("ignore")
import torch

if "libfakecuda" in os.environ.get("LD_PRELOAD", ""):
    torch.backends.cuda.enable_cudnn_sdp(False)
import models as M


def _patch():
    import transformers

    transformers.logging.set_verbosity_error()
    from transformers import masking_utils

    gc.collect()
    gc.freeze()
    masking_utils.find_packed_sequence_indices = lambda position_ids: None


_patched = False
DT = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)
PH = [
    "build",
    "build_end",
    "fwd",
    "fwd_head",
    "fwd_end",
    "bwd_head",
    "bwd",
    "recompute",
    "bwd_end",
    "clip",
    "opt",
    "opt_end",
    "step_end",
]
CODE = {p: 3001 + 2 * i for i, p in enumerate(PH)}
RCODE = {v: k for k, v in CODE.items()}


def mark(p):
    ptr = torch.cuda.caching_allocator_alloc(CODE[p])
    torch.cuda.caching_allocator_delete(ptr)


def replace_quant(model, quant, compute_dtype, skip=("lm_head",)):
    import bitsandbytes as bnb

    for name, mod in list(model.named_modules()):
        for cn, ch in list(mod.named_children()):
            if type(ch) is torch.nn.Linear and cn not in skip and (ch is not model.get_output_embeddings()):
                w = torch.empty(
                    ch.out_features, ch.in_features, dtype=torch.float16 if quant == "int8" else compute_dtype
                )
                b = ch.bias is not None
                if quant in ("nf4", "nf4-nodq", "fp4"):
                    q = bnb.nn.Linear4bit(
                        ch.in_features,
                        ch.out_features,
                        bias=b,
                        compute_dtype=compute_dtype,
                        compress_statistics=quant != "nf4-nodq",
                        quant_type="fp4" if quant == "fp4" else "nf4",
                        device="meta",
                    )
                    q.weight = bnb.nn.Params4bit(
                        w,
                        requires_grad=False,
                        compress_statistics=quant != "nf4-nodq",
                        quant_type="fp4" if quant == "fp4" else "nf4",
                        module=q,
                    )
                else:
                    q = bnb.nn.Linear8bitLt(
                        ch.in_features, ch.out_features, bias=b, has_fp16_weights=False, threshold=6.0, device="meta"
                    )
                    q.weight = bnb.nn.Int8Params(w, requires_grad=False, has_fp16_weights=False)
                if b:
                    q.bias = torch.nn.Parameter(torch.empty(ch.out_features, dtype=compute_dtype))
                q = q.to("cuda")
                setattr(mod, cn, q)
                del w


def build(j):
    over = dict(j["cfg"])
    cfg = M.make_config(j["model"], **over)
    if j["n_layers"]:
        for a in ("num_hidden_layers", "n_layer", "num_layers"):
            if hasattr(cfg, a):
                setattr(cfg, a, j["n_layers"])
                break
        types = getattr(cfg, "layer_types", None)
        if types and len(types) > j["n_layers"]:
            cfg.layer_types = types[: j["n_layers"]]
    cfg.use_cache = False
    if j["dropout"] is not None:
        for a in vars(cfg):
            if "drop" in a and a != "layerdrop" and ("layerdrop" not in a) and isinstance(getattr(cfg, a), float):
                setattr(cfg, a, float(j["dropout"]))
    from transformers.initialization import no_init_weights

    dt = DT[j["param_dtype"]]
    attn = j["attn"].split(":")[0]
    old = torch.get_default_dtype()
    torch.set_default_dtype(dt)
    try:
        if j["quant"] == "none":
            with torch.device("cuda"), no_init_weights():
                m = M.auto_class(j["model"]).from_config(cfg, attn_implementation=attn)
            m.tie_weights()
        else:
            with torch.device("meta"), no_init_weights():
                m = M.auto_class(j["model"]).from_config(cfg, attn_implementation=attn)
            # mamba-ssm's fused function reads the output projection's weight itself.
            fused = cfg.model_type in ("falcon_h1", "nemotron_h", "granitemoehybrid")
            kept = ("lm_head", "out_proj") if fused else ("lm_head",)
            if cfg.model_type == "gemma3n_text":  # training clamps these, which packed weights refuse
                kept += ("prediction_coefs", "correction_coefs")
            replace_quant(m, j["quant"], dt, kept)
            object.__setattr__(cfg, "_is_quantized", True)
            object.__setattr__(m.config, "_is_quantized", True)
            for mod in m.modules():
                for n, p in list(mod._parameters.items()):
                    if p is not None and p.device.type == "meta":
                        mod._parameters[n] = torch.nn.Parameter(
                            torch.empty_like(p, device="cuda"), requires_grad=p.requires_grad
                        )
                for n, b in list(mod._buffers.items()):
                    if b is not None and b.device.type == "meta":
                        mod._buffers[n] = torch.empty_like(b, device="cuda")
            m.tie_weights()
            for p in m.parameters():
                p.requires_grad_(False)
            m.is_loaded_in_4bit = j["quant"] != "int8"
            m.is_loaded_in_8bit = j["quant"] == "int8"
    finally:
        torch.set_default_dtype(old)
    return (m, cfg)


def add_lora(m, j):
    from peft import LoraConfig, get_peft_model

    if j["kbit_prep"]:
        for n, p in m.named_parameters():
            if p.__class__.__name__ not in ("Params4bit", "Int8Params") and p.dtype in (torch.float16, torch.bfloat16):
                p.data = p.data.to(torch.float32)
    t = j["lora_targets"]
    tm = "all-linear" if t == "all-linear" else t.split("+")
    lc = LoraConfig(
        r=j["lora_r"],
        lora_alpha=2 * j["lora_r"],
        target_modules=tm,
        lora_dropout=j["lora_dropout"],
        bias="none",
        task_type=None,
    )
    return get_peft_model(m, lc, autocast_adapter_dtype=j["lora_fp32"])


def make_opt(j, params):
    o = j["optimizer"]
    kw = dict(lr=0.0001)
    if o.startswith("bnb_"):
        import bitsandbytes as bnb

        return {
            "bnb_adamw8bit": bnb.optim.AdamW8bit,
            "bnb_paged_adamw8bit": bnb.optim.PagedAdamW8bit,
            "bnb_paged_adamw32bit": bnb.optim.PagedAdamW32bit,
            "bnb_adamw32bit": bnb.optim.AdamW32bit,
            "bnb_lion32bit": bnb.optim.Lion32bit,
            "bnb_lion8bit": bnb.optim.Lion8bit,
        }[o](params, **kw)
    if o == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(params, scale_parameter=False, relative_step=False, lr=0.0001)
    return {
        "none": lambda p: None,
        "sgd": lambda p: torch.optim.SGD(p, **kw),
        "sgd_momentum": lambda p: torch.optim.SGD(p, momentum=0.9, **kw),
        "sgd_single": lambda p: torch.optim.SGD(p, foreach=False, **kw),
        "sgd_momentum_fused": lambda p: torch.optim.SGD(p, momentum=0.9, fused=True, **kw),
        "adamw": lambda p: torch.optim.AdamW(p, **kw),
        "adam": lambda p: torch.optim.Adam(p, **kw),
        "adamw_fused": lambda p: torch.optim.AdamW(p, fused=True, **kw),
        "adamw_single": lambda p: torch.optim.AdamW(p, foreach=False, **kw),
        "adagrad": lambda p: torch.optim.Adagrad(p, **kw),
        "rmsprop": lambda p: torch.optim.RMSprop(p, **kw),
        "torch_adafactor": lambda p: torch.optim.Adafactor(p, **kw),
    }[o](params)


class ChunkedLinearCE(torch.autograd.Function):
    """Liger's fused linear cross entropy, its tensors reproduced in plain PyTorch (kernels in place, as there)."""

    @staticmethod
    def forward(ctx, x, weight, target):
        BT, H = x.shape
        V = weight.shape[0]
        inc = -(-V // H)
        cs = 1 << max(0, -(-BT // inc) - 1).bit_length()
        nchunk = -(-BT // cs)
        gi = torch.zeros_like(x)
        gw = torch.zeros_like(weight) if weight.requires_grad else None
        loss_1d = torch.zeros(BT, dtype=torch.float32, device=x.device)
        for c in range(nchunk):
            s, e = (c * cs, min((c + 1) * cs, BT))
            xc = x[s:e]
            lg = xc @ weight.t()
            gi[s:e] = lg @ weight
            if gw is not None:
                gw += torch.mm(lg.t(), xc)
        ctx.save_for_backward(gi, gw)
        return loss_1d.sum()

    @staticmethod
    def backward(ctx, g):
        gi, gw = ctx.saved_tensors
        return (gi, gw, None)


def loss_of(model, cfg, j, batch):
    if j["loss"] == "hf":
        out = model(**batch)
        if j["trainer_fp32_out"]:
            out.logits = out.logits.float()
        return (out.loss, out) if j["keep_outputs"] else (out.loss, None)
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    b = dict(batch)
    labels = b.pop("labels")
    if j["loss"] == "fused_linear_ce":
        h = core.base_model(**b)[0]
        mark("fwd_head")
        tgt = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:].reshape(-1)
        hf = h.reshape(-1, h.shape[-1])
        if hf.requires_grad:
            hf.register_hook(lambda g: (mark("bwd"), None)[1])
        w = core.get_output_embeddings().weight
        if j["autocast"] != "none":
            hf = hf.to(DT[j["autocast"]])
            w = w.to(DT[j["autocast"]])
        return (ChunkedLinearCE.apply(hf, w, tgt), None)
    if j["loss"] == "no_upcast":
        logits = core(**b).logits
        return (torch.nn.functional.cross_entropy(logits.view(-1, logits.shape[-1]), labels.view(-1)), None)
    if j["loss"] == "old_hf_shift":
        logits = core(**b).logits.float()
        sl = logits[..., :-1, :].contiguous()
        tl = labels[..., 1:].contiguous()
        return (torch.nn.functional.cross_entropy(sl.view(-1, sl.shape[-1]), tl.view(-1)), None)
    if j["loss"] == "chunked8":
        h = core.base_model(**b)[0]
        mark("fwd_head")
        tgt = torch.nn.functional.pad(labels, (0, 1), value=-100)[..., 1:]
        W = core.get_output_embeddings()
        if h.requires_grad:
            h.register_hook(lambda g: (mark("bwd"), None)[1])
        logits = [W(c) for c in h.chunk(8, dim=1)]
        tot = 0.0
        for lg, t in zip(logits, tgt.chunk(8, dim=1)):
            tot = tot + torch.nn.functional.cross_entropy(
                lg.reshape(-1, lg.shape[-1]).float(), t.reshape(-1), reduction="sum"
            )
        return (tot, None)
    raise ValueError(j["loss"])


def ptrs(ts):
    return {
        t.untyped_storage().data_ptr() for t in ts if t is not None and t.is_cuda and t.untyped_storage().data_ptr()
    }


class Recorder:
    """Remembers, at each marker, which addresses belong to which category."""

    def __init__(self):
        self.at = []

    n = 0


def analyse(events, known, explain=False):
    """events: allocator trace. known: list aligned with marker occurrences: marker ordinal -> {cat: ptrset}."""
    blocks = []
    live = {}
    phase = "build"
    marks = []
    cur = 0
    peak = 0
    ipk = -1
    len(events)
    for i, e in enumerate(events):
        a = e["action"]
        if a == "alloc":
            if e["size"] in RCODE:
                phase = RCODE[e["size"]]
                marks.append((i, phase, cur))
                live[e["addr"]] = None
                continue
            b = [e["addr"], e["size"], i, None, phase, None, e.get("frames")]
            blocks.append(b)
            live[e["addr"]] = b
            cur += -(-e["size"] // 512) * 512
            if cur > peak:
                peak, ipk = (cur, i)
        elif a == "free_requested":
            b = live.pop(e["addr"], None)
            if b is not None:
                b[3] = i
                cur -= -(-b[1] // 512) * 512
    for k, (i, name, _) in enumerate(marks):
        kn = known.get(k)
        if not kn:
            continue
        for b in blocks:
            if b[2] < i and (b[3] is None or b[3] > i):
                for cat, s in kn.items():
                    if b[0] in s:
                        b[5] = cat
    fw = None
    for k, (i, name, _) in enumerate(marks):
        if name == "fwd":
            fw = i
        if name == "fwd_end":
            for b in blocks:
                if b[5] is None and fw < b[2] < i and (b[3] is None or b[3] > i):
                    b[5] = "loss_saved" if b[4] == "fwd_head" else "act"
        if name == "build_end":
            for b in blocks:
                if b[5] is None and b[2] < i and (b[3] is None or b[3] > i):
                    b[5] = "buffers"
    for b in blocks:
        if b[5] is None:
            if b[3] is None:
                b[5] = "workspace"
            else:
                b[5] = "tmp_" + {
                    "build": "build",
                    "build_end": "build",
                    "fwd": "fwd",
                    "fwd_head": "loss_fwd",
                    "fwd_end": "bwd",
                    "bwd_head": "loss_bwd",
                    "bwd": "bwd",
                    "recompute": "recompute",
                    "bwd_end": "opt",
                    "clip": "opt",
                    "opt": "opt",
                    "opt_end": "opt",
                    "step_end": "fwd",
                }.get(b[4], "bwd")

    def at(ix):
        br = collections.Counter()
        liveb = []
        for b in blocks:
            if b[2] <= ix and (b[3] is None or b[3] > ix):
                br[b[5]] += -(-b[1] // 512) * 512
                liveb.append(b)
        return (br, liveb)

    br, lb = at(ipk)
    ph = "build"
    for i, name, _ in marks:
        if i <= ipk:
            ph = name
    pm = collections.OrderedDict()
    cur = 0
    phase = "build"
    nstep = 0
    tot_steps = sum((1 for m in marks if m[1] == "step_end"))
    live = {}
    for i, e in enumerate(events):
        if e["action"] == "alloc":
            if e["size"] in RCODE:
                phase = RCODE[e["size"]]
                if phase == "step_end":
                    nstep += 1
                live[e["addr"]] = 0
                if nstep == tot_steps - 1:
                    pm[phase] = max(pm.get(phase, 0), cur)
                continue
            s = -(-e["size"] // 512) * 512
            live[e["addr"]] = s
            cur += s
            if nstep == tot_steps - 1:
                pm[phase] = max(pm.get(phase, 0), cur)
        elif e["action"] == "free_requested":
            cur -= live.pop(e["addr"], 0)
    fe = [c for i, n, c in marks if n == "fwd_end"]
    se = [c for i, n, c in marks if n == "step_end"]
    fe_br = None
    for i, n, c in marks:
        if n == "fwd_end":
            fe_br = at(i)[0]
    return dict(
        peak=peak,
        phase=ph,
        br=br,
        live=lb,
        phase_max=pm,
        fwd_end=fe[-1] if fe else 0,
        steady=se[-1] if se else 0,
        fwd_end_br=fe_br,
    )


def hooks(model, cfg, state):
    core = model.get_base_model() if hasattr(model, "get_base_model") else model
    hs = []
    out = core.get_output_embeddings()
    if out is not None:

        def pre(mod, args):
            if state["in"] == "fwd":
                mark("fwd_head")
                if torch.is_tensor(args[0]) and args[0].requires_grad:
                    args[0].register_hook(lambda g: (mark("bwd"), None)[1])

        hs.append(out.register_forward_pre_hook(pre))
    from transformers.modeling_layers import GradientCheckpointingLayer

    for mod in core.modules():
        if isinstance(mod, GradientCheckpointingLayer):
            hs.append(mod.register_forward_pre_hook(lambda m_, a_: mark("recompute") if state["in"] == "bwd" else None))
            hs.append(mod.register_forward_hook(lambda m_, a_, o_: mark("bwd") if state["in"] == "bwd" else None))
    return hs


def run(job, explain=False):
    global _patched
    if not _patched:
        _patch()
        _patched = True
    j = dict(DEFAULTS)
    j.update(job)
    unknown = set(job) - set(DEFAULTS) - {"id", "group"}
    if unknown:
        raise ValueError(f"unknown keys {unknown}")
    t0 = time.time()
    gc.collect()
    torch.cuda.synchronize()
    torch._C._cuda_clearCublasWorkspaces()
    torch.cuda.empty_cache()
    base = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.cuda.memory._record_memory_history(enabled=None)
    torch.cuda.memory._record_memory_history(
        enabled="all", context="alloc" if explain else None, stacks="python", max_entries=20000000, clear_history=True
    )
    known = {}
    nmark = [0]
    res = dict(job)
    real_mark = globals()["mark"]
    state = {"in": "fwd"}

    def m(p, **cats):
        real_mark(p)

    def mk(p):
        real_mark(p)
        nmark[0] += 1

    globals()["mark"] = mk
    try:
        model, cfg = build(j)
        if j["liger"]:
            import liger_support

            liger_support.apply(model, cfg)
        if j["lora_r"]:
            model = add_lora(model, j)
        if j["freeze_embed"]:
            model.get_input_embeddings().weight.requires_grad_(False)
        if j["ckpt"] != "none":
            core = model.get_base_model() if hasattr(model, "get_base_model") else model
            core.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": bool(j["reentrant"])})
            if j["lora_r"]:
                core.enable_input_require_grads()
        model.train()
        params = list({id(p): p for p in model.parameters()}.values())
        train = [p for p in params if p.requires_grad]
        state["in"] = "build"
        k = nmark[0]
        mk("build_end")
        known[k] = {"params": ptrs((p.data for p in params))}

        def logical(p):
            return p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()

        res.update(total_params=sum((logical(p) for p in params)), trainable_params=sum((p.numel() for p in train)))
        core = model.get_base_model() if hasattr(model, "get_base_model") else model
        inp = core.get_input_embeddings().weight
        oe = core.get_output_embeddings()
        res.update(
            embedding_params=inp.numel(), lm_head_tied=int(oe is not None and oe.weight is inp), arch=cfg.model_type
        )
        res["build_bytes"] = torch.cuda.memory_allocated() - base
        opt = make_opt(j, train)
        hs = hooks(model, cfg, state)
        B, S = (j["micro_batch"], j["seq_len"])
        ids = torch.zeros(B, S, dtype=torch.long, device="cuda")
        labels = (
            torch.zeros(B, j["tgt_len"] or S, dtype=torch.long, device="cuda")
            if M.CLS[j["model"]] == "seq2seq"
            else torch.zeros(B, S, dtype=torch.long, device="cuda")
        )
        batch = dict(input_ids=ids, labels=labels)
        if M.CLS[j["model"]] == "causal" and cfg.model_type not in ("mamba",):
            batch["use_cache"] = False
        if j["mask"] == "padded":
            batch["attention_mask"] = torch.ones(B, S, dtype=torch.long, device="cuda")
        ac = DT.get(j["autocast"])
        backend = j["attn"].split(":")[1] if ":" in j["attn"] else None
        import contextlib

        from torch.nn.attention import SDPBackend, sdpa_kernel

        for step in range(j["steps"]):
            for mb in range(j["accum"]):
                state["in"] = "fwd"
                mk("fwd")
                with contextlib.ExitStack() as st:
                    if backend:
                        st.enter_context(
                            sdpa_kernel(
                                {
                                    "math": SDPBackend.MATH,
                                    "efficient": SDPBackend.EFFICIENT_ATTENTION,
                                    "flash": SDPBackend.FLASH_ATTENTION,
                                    "cudnn": SDPBackend.CUDNN_ATTENTION,
                                }[backend]
                            )
                        )
                    if ac is not None:
                        st.enter_context(torch.autocast("cuda", dtype=ac))
                    loss, keep = loss_of(model, cfg, j, batch)
                state["in"] = "bwd"
                mk("fwd_end")
                mk("bwd_head")
                with contextlib.ExitStack() as st:
                    if backend:
                        st.enter_context(
                            sdpa_kernel(
                                {
                                    "math": SDPBackend.MATH,
                                    "efficient": SDPBackend.EFFICIENT_ATTENTION,
                                    "flash": SDPBackend.FLASH_ATTENTION,
                                    "cudnn": SDPBackend.CUDNN_ATTENTION,
                                }[backend]
                            )
                        )
                    loss.backward()
                state["in"] = "opt"
                k = nmark[0]
                mk("bwd_end")
                known[k] = {"grads": ptrs((p.grad for p in train if p.grad is not None))}
                del loss, keep
            if j["clip"]:
                mk("clip")
                torch.nn.utils.clip_grad_norm_(train, 1.0)
            mk("opt")
            if opt is not None:
                opt.step()
            k = nmark[0]
            mk("opt_end")
            if opt is not None:
                st_t = []
                for s in opt.state.values():
                    for v in s.values() if isinstance(s, dict) else []:
                        if torch.is_tensor(v):
                            st_t.append(v)
                known[k] = {"optimizer": ptrs(st_t)}
                res["paged_state_bytes"] = sum(
                    (v.numel() * v.element_size() for v in st_t if not v.is_cuda and v.numel() > 1)
                )
            for p in train:
                p.grad = None
            mk("step_end")
        st = torch.cuda.memory_stats()
        res.update(
            peak=st["allocated_bytes.all.peak"] - base,
            requested_peak=st["requested_bytes.all.peak"],
            reserved=st["reserved_bytes.all.peak"],
        )
        ev = torch.cuda.memory._snapshot()["device_traces"][0]
        torch.cuda.memory._record_memory_history(enabled=None)
        a = analyse(ev, known, explain)
        res.update(phase=a["phase"], slack=res["peak"] - a["peak"])
        for c in (
            "params",
            "buffers",
            "grads",
            "optimizer",
            "act",
            "loss_saved",
            "tmp_fwd",
            "tmp_loss_fwd",
            "tmp_loss_bwd",
            "tmp_bwd",
            "tmp_recompute",
            "tmp_opt",
            "workspace",
        ):
            res["b_" + c] = a["br"].get(c, 0)
        res["b_other"] = sum((v for c, v in a["br"].items() if "b_" + c not in res))
        res["fwd_end"] = a["fwd_end"]
        res["steady_after_step"] = a["steady"]
        res["fwd_end_act"] = a["fwd_end_br"].get("act", 0)
        res["fwd_end_loss"] = a["fwd_end_br"].get("loss_saved", 0)
        for p_ in ("fwd", "fwd_head", "bwd_head", "bwd", "recompute", "opt"):
            res["max_" + p_] = a["phase_max"].get(p_, 0)
        res["n_events"] = len(ev)
        res["ok"] = 1
        if explain:
            g = collections.OrderedDict()
            for b in sorted(a["live"], key=lambda b: b[2]):
                fr = b[6] or []
                f = next(
                    (
                        f"{os.path.basename(x['filename'])}:{x['line']} {x['name']}"
                        for x in fr
                        if "/torch/" not in x["filename"] and "oracle.py" not in x["filename"]
                    ),
                    "",
                ) or (f"{os.path.basename(fr[0]['filename'])}:{fr[0]['line']} {fr[0]['name']}" if fr else "")
                key = (b[5], b[1], f)
                g[key] = g.get(key, 0) + 1
            res["_explain"] = [(c, s, n, f) for (c, s, f), n in g.items()]
    finally:
        globals()["mark"] = real_mark
        torch.cuda.memory._record_memory_history(enabled=None)
    del model, opt, params, train, hs, ids, labels, batch, inp, oe, core
    ev = a = None
    gc.collect()
    res["wall_s"] = round(time.time() - t0, 2)
    return res
