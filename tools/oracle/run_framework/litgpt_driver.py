"""LitGPT: `litgpt COMMAND --config FILE`; the command is the one that the file's header comment names.

The checkpoint is zeros without storage. `torch.compile` does not run over the stub, so pretraining
runs as written, without it.
"""

import json
import re
import sys
from pathlib import Path

from common import tokenizer, words

ONE_B = "checkpoints/meta-llama/Llama-3.2-1B"
PYTHIA = "checkpoints/EleutherAI/pythia-410m"
BASE = {
    "#": "litgpt finetune_full --config run.yaml",
    "checkpoint_dir": ONE_B,
    "out_dir": "out",
    "precision": "bf16-true",
    "data.class_path": "litgpt.data.JSON",
    "data.init_args": {"json_path": "data/litgpt.json", "val_split_fraction": 0.25, "num_workers": 0},
    "train.max_steps": 3,
    "train.lr_warmup_steps": 1,
    "train.global_batch_size": 2,
    "train.micro_batch_size": 2,
    "train.max_seq_length": 1024,
    "train.save_interval": 1000,
    "train.epochs": 1,
    "eval.interval": 1000,
    "eval.max_iters": 2,
    "eval.initial_validation": False,
    "eval.final_validation": False,
}
LORA = dict(BASE, **{"#": "litgpt finetune_lora --config run.yaml", "lora_r": 8})
EVERYWHERE = {key: True for key in ("lora_query", "lora_key", "lora_value", "lora_projection", "lora_mlp")}
PRETRAIN = {key: value for key, value in BASE.items() if key not in ("checkpoint_dir", "data.init_args")}
PRETRAIN = dict(PRETRAIN, **{
    "#": "litgpt pretrain --config run.yaml",
    "model_name": "pythia-410m",
    "data.class_path": "litgpt.data.TextFiles",
    "data.init_args": {"train_data_path": "data/text"},
    "logger_name": "csv",
    "devices": 1,
    "train.max_tokens": 2 * 1024 * 6,
    "train.epochs": None,
    "train.max_steps": None,
})

CASES = {
    "full": (BASE, {}),
    "full-precision-absent": (BASE, {"precision": None}),
    "full-batch-absent": (BASE, {"train.micro_batch_size": None}),
    "full-batch-4": (BASE, {"train.micro_batch_size": 4, "train.global_batch_size": 4}),
    "full-length-2048": (BASE, {"train.max_seq_length": 2048}),
    "full-mixed": (BASE, {"precision": "bf16-mixed"}),
    "full-fp32": (BASE, {"precision": "32-true"}),
    "full-accumulation": (BASE, {"train.global_batch_size": 8}),
    "full-global-absent": (BASE, {"train.global_batch_size": None}),
    "full-sgd": (BASE, {"optimizer": "SGD"}),
    "full-8bit": (BASE, {"optimizer.class_path": "bitsandbytes.optim.AdamW8bit"}),
    "full-pythia": (BASE, {"checkpoint_dir": PYTHIA}),
    "full-pythia-precision-absent": (BASE, {"checkpoint_dir": PYTHIA, "precision": None}),
    "full-evaluation": (BASE, {"eval.interval": 1, "train.micro_batch_size": 1}),
    "lora": (LORA, {}),
    "lora-precision-absent": (LORA, {"precision": None}),
    "lora-batch-absent": (LORA, {"train.micro_batch_size": None}),
    "lora-rank-64": (LORA, {"lora_r": 64}),
    "lora-everywhere": (LORA, EVERYWHERE),
    "lora-head": (LORA, {**EVERYWHERE, "lora_head": True}),
    "lora-dropout-0": (LORA, {"lora_dropout": 0.0}),
    "lora-batch-8": (LORA, {"train.micro_batch_size": 8, "train.global_batch_size": 8}),
    "lora-mixed": (LORA, {"precision": "bf16-mixed"}),
    "lora-fp32": (LORA, {"precision": "32-true"}),
    "lora-pythia": (LORA, {"checkpoint_dir": PYTHIA}),
    "lora-evaluation": (LORA, {"eval.interval": 1}),
    "qlora": (LORA, {"quantize": "bnb.nf4"}),
    "qlora-double": (LORA, {"quantize": "bnb.nf4-dq", **EVERYWHERE}),
    "qlora-int8": (LORA, {"quantize": "bnb.int8-training"}),
    "qlora-pythia": (LORA, {"quantize": "bnb.nf4", "checkpoint_dir": PYTHIA}),
    "pretrain": (PRETRAIN, {}),
    "pretrain-precision-absent": (PRETRAIN, {"precision": None}),
    "pretrain-batch-absent": (PRETRAIN, {"train.micro_batch_size": None, "train.global_batch_size": 4}),
}


def prepare(_folder):
    import torch
    from litgpt.config import Config
    from litgpt.model import GPT
    from litgpt.utils import save_config

    for folder in map(Path, (ONE_B, PYTHIA)):
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "lit_model.pth").exists():
            continue
        config = Config.from_name(folder.name)
        save_config(config, folder)
        with torch.device("meta"):
            shapes = {name: value.shape for name, value in GPT(config).state_dict().items()}
        one = torch.zeros((), dtype=torch.bfloat16)
        torch.save({name: one.expand(shape) for name, shape in shapes.items()}, folder / "lit_model.pth")
        tokenizer(folder)
    rows = [{"instruction": words(16, n), "input": "", "output": words(4096, n)} for n in range(64)]
    Path("data").mkdir(exist_ok=True)
    Path("data/litgpt.json").write_text(json.dumps(rows))


def load():
    import lightning
    import lightning.fabric.plugins.precision.bitsandbytes as precision
    import litgpt.finetune.full
    import litgpt.finetune.lora
    import litgpt.lora
    import litgpt.pretrain
    import torch

    precision._BITSANDBYTES_AVAILABLE = True  # LitGPT pins 0.42; what has changed since is in the page
    lightning.Fabric.save = lambda *_, **__: None
    for module in (litgpt.finetune.full, litgpt.finetune.lora, litgpt.pretrain):
        for name in ("save_lora_checkpoint", "merge_lora", "copy_config_files", "save_hyperparameters",
                     "save_prompt_style", "save_checkpoint", "generate_example"):
            if hasattr(module, name):
                setattr(module, name, lambda *_, **__: None)
    torch.compile = lambda model, *_, **__: model
    litgpt.pretrain.get_dataloaders = full_rows
    litgpt.lora.F = Functions()
    return f"litgpt {installed('litgpt')}, lightning {installed('lightning')}"


def full_rows(_fabric, _data, _tokenizer, train, block_size):
    """In place of LitData's streams: rows of the block size."""
    import torch

    rows = torch.ones(64, block_size + 1, dtype=torch.int64)
    return (torch.utils.data.DataLoader(rows, batch_size=train.micro_batch_size),) * 2


def installed(package):
    from importlib.metadata import version

    return version(package)


class Functions:
    """`torch.nn.functional`, but a grouped convolution of width 1 that needs no cuDNN: the same
    tensors are kept and made."""

    def __getattr__(self, name):
        import torch

        return getattr(torch.nn.functional, name)

    def conv1d(self, value, weight, groups=1):
        import torch

        class Conv1x1(torch.autograd.Function):
            @staticmethod
            def forward(ctx, value, weight):
                ctx.save_for_backward(value, weight)
                return value.new_empty(*value.shape[:-2], weight.shape[0], value.shape[-1])

            @staticmethod
            def backward(ctx, _gradient):
                value, weight = ctx.saved_tensors
                return torch.empty_like(value), torch.empty_like(weight)

        return Conv1x1.apply(value, weight)


def run(config):
    from litgpt.__main__ import main

    command = re.search(r"litgpt (\w+)", Path(config).read_text()).group(1)
    sys.argv = ["litgpt", command, "--config", str(config)]
    main()
