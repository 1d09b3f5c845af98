#!/usr/bin/env python3
"""Measures one training step of a real Hugging Face model, and prints llmlint's estimate beside it.

    measure.py run.yaml...            on this machine's GPU
    measure.py --stub run.yaml...     without a GPU, over the stub runtime in stub/

A run file is in llmlint's native format (docs/native-format.md), with the model as an
`architecture` and dimensions, or a path to a config.json. Weights are random: the peak does not
depend on them. One JSON object a file is printed, with every setting, the versions, the measured
and the estimated bytes.

Over the stub, PyTorch's dispatcher, autograd and caching allocator are the real ones; device
memory is a reserved address range, kernels do nothing, and copies to the host give zeros. What
is outside the allocator (CUDA context, NCCL) is therefore not seen there.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
STUB = [HERE / "stub" / name for name in ("libfakecuda.so", "libcuda.so.1", "libnvidia-ml.so.1")]
STEPS = 3  # optimizer states exist from the first step on; shapes are fixed

# Native format: Hugging Face config.json.
NAMES = {
    "architecture": "model_type", "d_model": "hidden_size", "d_ff": "intermediate_size",
    "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers", "max_seq_len": "max_position_embeddings",
}


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("files", nargs="+", type=Path)
    arguments.add_argument("--stub", action="store_true", help="run over the stub CUDA runtime")
    arguments.add_argument("--llmlint", default="llmlint", help="the binary whose estimate is printed")
    options = arguments.parse_args()
    if options.stub and "libfakecuda" not in os.environ.get("LD_PRELOAD", ""):
        start_over_stub()
    for path in options.files:
        print(json.dumps(row(path, options), default=str), flush=True)


def start_over_stub():
    missing = [str(path) for path in STUB if not path.exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} missing: run stub/build.sh first")
    environment = dict(
        os.environ,
        LD_PRELOAD=":".join(map(str, STUB)),
        OMP_NUM_THREADS="1",
        # The workspaces of cuBLAS are taken per call here, as PyTorch does from 2.15 on.
        CUBLAS_WORKSPACE_CONFIG=":0:0",
        CUBLASLT_WORKSPACE_SIZE="0",
    )
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def row(path, options):
    import yaml

    run = yaml.safe_load(path.read_text())
    training = run.get("training", {})
    measured = measure(run["model"], training, path.parent)
    return {
        "file": str(path),
        "model": run["model"],
        "training": training,
        "stub": options.stub,
        **versions(),
        **measured,
        "estimate": estimate(path, options.llmlint),
    }


def versions():
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "gpu": torch.cuda.get_device_name()}


def estimate(path, binary):
    done = subprocess.run([binary, "explain", "--format", "json", str(path)], capture_output=True, text=True,
                          env={k: v for k, v in os.environ.items() if k != "LD_PRELOAD"})
    if done.returncode != 0:
        return {"error": done.stderr.strip()}
    if not done.stdout.strip():
        return {"error": "nothing printed: is the binary current?"}
    file = json.loads(done.stdout)["files"][0]
    found = file.get("estimate")
    return found and {k: found[k] for k in ("allocated_bytes", "reserved_bytes", "device_bytes", "phase")} or file.get("unknown")


def dtype(name):
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def build(model, training, folder):
    """The model on the device, trained parameters requiring gradients."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    if "config" in model:
        described = json.loads((folder / model["config"]).read_text())
    else:
        described = {NAMES.get(key, key): value for key, value in model.items()}
    config = AutoConfig.for_model(described.pop("model_type"), **described)
    config.use_cache = False
    if training.get("dropout") is not None:
        for name, value in vars(config).items():
            if "drop" in name and isinstance(value, float):
                setattr(config, name, float(training["dropout"]))
    attention = {"flash": "flash_attention_2"}.get(training.get("attention", "sdpa"), training.get("attention", "sdpa"))
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype(training.get("weights", "bf16")))
    try:
        with torch.device("cuda"), no_init_weights():
            built = AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    finally:
        torch.set_default_dtype(before)
    built.tie_weights()  # skipped when weights are not initialised
    if training.get("kernels") == "liger":
        from liger_kernel.transformers import _apply_liger_kernel_to_instance

        _apply_liger_kernel_to_instance(model=built)
    if training.get("method") == "lora":
        built = adapt(built, training.get("lora", {}))
    if training.get("activation_checkpointing") == "full":
        built.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if training.get("method") == "lora":
            built.enable_input_require_grads()
    elif training.get("activation_checkpointing", "none") != "none":
        sys.exit("only none and full checkpointing can be measured")
    return built.train()


def adapt(model, lora):
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.get("rank", 16),
        target_modules=lora.get("targets", "all-linear"),
        lora_dropout=lora.get("dropout", 0.0),
        use_dora=lora.get("dora", False),
    )
    return get_peft_model(model, settings, autocast_adapter_dtype=lora.get("dtype", "fp32") == "fp32")


def make_optimizer(training, parameters):
    import torch

    name = training.get("optimizer", "adamw")
    how = training.get("optimizer_implementation", "foreach")
    torch_choice = {"fused": {"fused": True}, "foreach": {"foreach": True}, "for-loop": {"foreach": False}}[how]
    match name:
        case "adamw":
            return torch.optim.AdamW(parameters, lr=1e-4, **torch_choice)
        case "adam":
            return torch.optim.Adam(parameters, lr=1e-4, **torch_choice)
        case "sgd":
            return torch.optim.SGD(parameters, lr=1e-4, **torch_choice)
        case "sgd-momentum":
            return torch.optim.SGD(parameters, lr=1e-4, momentum=0.9, **torch_choice)
        case "adafactor":
            from transformers import Adafactor

            return Adafactor(parameters, lr=1e-4, relative_step=False, scale_parameter=False)
        case _:
            import bitsandbytes as bnb

            choice = {"adamw-8bit": bnb.optim.AdamW8bit, "paged-adamw-8bit": bnb.optim.PagedAdamW8bit,
                      "adamw-32bit": bnb.optim.AdamW32bit, "lion": bnb.optim.Lion32bit, "lion-8bit": bnb.optim.Lion8bit}
            return choice[name](parameters, lr=1e-4)


def measure(model, training, folder):
    import torch

    if "libfakecuda" in os.environ.get("LD_PRELOAD", ""):
        torch.backends.cuda.enable_cudnn_sdp(False)  # the stub has no cuDNN
        from transformers import masking_utils

        # Reads device data; on a real GPU one unpacked sequence gives None.
        masking_utils.find_packed_sequence_indices = lambda position_ids: None
    built = build(model, training, folder)
    optimizer = make_optimizer(training, [p for p in built.parameters() if p.requires_grad])
    batch, length = training.get("micro_batch_size", 1), training["sequence_length"]
    ids = torch.zeros(batch, length, dtype=torch.long, device="cuda")
    weights, compute = training.get("weights", "bf16"), training.get("compute", training.get("weights", "bf16"))
    autocast = training.get("autocast", weights != compute)

    def step():
        for _ in range(training.get("gradient_accumulation_steps", 1)):
            with torch.autocast("cuda", dtype=dtype(compute), enabled=autocast):
                loss = built(input_ids=ids, labels=ids).loss
            loss.backward()
            del loss
        if training.get("gradient_clipping"):
            torch.nn.utils.clip_grad_norm_(built.parameters(), training["gradient_clipping"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for number in range(STEPS):
        if number == STEPS - 1:
            torch.cuda.synchronize()
            between = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        step()
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "between_steps_bytes": between,
        "device_bytes": total - free,
    }


if __name__ == "__main__":
    main()
