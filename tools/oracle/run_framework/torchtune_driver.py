"""torchtune: `tune run RECIPE --config FILE`; the recipe is the one that the file's header comment names.

The checkpoint is zeros without storage, the tokenizer counts words, and the process group of a
distributed recipe is PyTorch's fake one: rank 0 of as many processes as the comment asks for.
"""

import os
import re
import runpy
import sys
from pathlib import Path

from common import dataset, words

BASE = {
    "#": "tune run full_finetune_single_device --config run.yaml",
    "model._component_": "torchtune.models.llama3_2.llama3_2_1b",
    "tokenizer._component_": "torchtune.models.llama3.llama3_tokenizer",
    "tokenizer.path": "tokenizer.model",
    "tokenizer.max_seq_len": 1024,
    "dataset._component_": "torchtune.datasets.text_completion_dataset",
    "dataset.source": "json",
    "dataset.data_files": "data/text/train.jsonl",
    "checkpointer._component_": "torchtune.training.FullModelHFCheckpointer",
    "checkpointer.checkpoint_dir": "checkpoint",
    "checkpointer.checkpoint_files": ["model.safetensors"],
    "checkpointer.output_dir": "out",
    "checkpointer.model_type": "LLAMA3_2",
    "optimizer._component_": "torch.optim.AdamW",
    "optimizer.lr": 2.0e-5,
    "loss._component_": "torchtune.modules.loss.LinearCrossEntropyLoss",
    "metric_logger._component_": "torchtune.training.metric_logging.DiskLogger",
    "metric_logger.log_dir": "out/logs",
    "log_level": "INFO",
    "output_dir": "out",
    "device": "cuda",
    "dtype": "bf16",
    "seed": 1,
    "shuffle": False,
    "epochs": 1,
    "max_steps_per_epoch": 4,
    "batch_size": 2,
    "gradient_accumulation_steps": 1,
    "optimizer_in_bwd": False,
    "compile": False,
    "resume_from_checkpoint": False,
}
ADAPTED = {
    "model._component_": "torchtune.models.llama3_2.lora_llama3_2_1b",
    "model.lora_attn_modules": ["q_proj", "v_proj"],
    "model.lora_rank": 8,
    "model.lora_alpha": 16,
    "model.apply_lora_to_mlp": False,  # the recipe asks for these two
    "model.apply_lora_to_output": False,
}
LORA = dict(BASE, **ADAPTED, **{
    "#": "tune run lora_finetune_single_device --config run.yaml",
    "lr_scheduler._component_": "torchtune.training.lr_schedulers.get_cosine_schedule_with_warmup",
    "lr_scheduler.num_warmup_steps": 2,
})
ALL = {"model.lora_attn_modules": ["q_proj", "k_proj", "v_proj", "output_proj"], "model.apply_lora_to_mlp": True}
QLORA = {"model._component_": "torchtune.models.llama3_2.qlora_llama3_2_1b"}
DPO = dict(LORA, **{
    "#": "tune run lora_dpo_single_device --config run.yaml",
    "loss._component_": "torchtune.rlhf.loss.DPOLoss",
    "loss.beta": 0.1,
    "dataset._component_": "torchtune.datasets.preference_dataset",
    "dataset.data_files": "data/pairs/train.jsonl",
    "batch_size": 1,
    "enable_activation_checkpointing": False,  # this recipe asks for it
})
SHARDED = dict(BASE, **{"#": "tune run --nproc_per_node 4 full_finetune_distributed --config run.yaml"})
SHARDED_LORA = dict(LORA, **{"#": "tune run --nproc_per_node 4 lora_finetune_distributed --config run.yaml"})
QWEN = {"model._component_": "torchtune.models.qwen2_5.qwen2_5_0_5b", "checkpointer.model_type": "QWEN2"}
AC, OFFLOAD = "enable_activation_checkpointing", "enable_activation_offloading"

CASES = {
    "plain": (BASE, {}),
    "checkpointing": (BASE, {AC: True}),
    "checkpointing-off": (BASE, {AC: False}),
    "offloading": (BASE, {AC: True, OFFLOAD: True}),
    "batch-4": (BASE, {"batch_size": 4}),
    "length-4096": (BASE, {"tokenizer.max_seq_len": 4096, "batch_size": 1}),
    "fp32": (BASE, {"dtype": "fp32"}),
    "accumulation": (BASE, {"gradient_accumulation_steps": 4}),
    "clipping": (BASE, {"clip_grad_norm": 1.0}),
    "loss-full": (BASE, {"loss._component_": "torch.nn.CrossEntropyLoss"}),
    "loss-chunked": (BASE, {"loss._component_": "torchtune.modules.loss.CEWithChunkedOutputLoss"}),
    "loss-chunks-16": (BASE, {"loss.num_output_chunks": 16}),
    "loss-chunks-1": (BASE, {"loss.num_output_chunks": 1}),
    "fused": (BASE, {"optimizer.fused": True}),
    "in-backward": (BASE, {"optimizer_in_bwd": True}),
    "in-backward-8bit": (BASE, {"optimizer_in_bwd": True, "optimizer._component_": "bitsandbytes.optim.PagedAdamW8bit"}),
    "8bit": (BASE, {"optimizer._component_": "bitsandbytes.optim.AdamW8bit"}),
    "paged-8bit": (BASE, {"optimizer._component_": "bitsandbytes.optim.PagedAdamW8bit", AC: True}),
    "torchao-8bit": (BASE, {"optimizer._component_": "torchao.optim.AdamW8bit"}),
    "sgd": (BASE, {"optimizer._component_": "torch.optim.SGD"}),
    "qwen": (BASE, QWEN),
    "qwen-checkpointing": (BASE, {**QWEN, AC: True}),
    "llama2": (BASE, {
        "model._component_": "torchtune.models.llama2.llama2", "checkpointer.model_type": "LLAMA2", "model.vocab_size": 32000,
        "model.num_layers": 8, "model.num_heads": 12, "model.num_kv_heads": 4, "model.embed_dim": 1536, "model.max_seq_len": 4096}),
    "lora": (LORA, {}),
    "lora-checkpointing": (LORA, {AC: True}),
    "lora-offloading": (LORA, {AC: True, OFFLOAD: True}),
    "lora-all": (LORA, {**ALL, "model.lora_rank": 64}),
    "lora-dropout": (LORA, {"model.lora_dropout": 0.1}),
    "lora-fp32": (LORA, {"dtype": "fp32"}),
    "lora-batch-8": (LORA, {"batch_size": 8}),
    "dora": (LORA, {"model.use_dora": True}),
    "qlora": (LORA, QLORA),
    "qlora-checkpointing": (LORA, {**QLORA, **ALL, AC: True}),
    "dpo": (DPO, {}),
    "dpo-checkpointing": (DPO, {AC: True}),
    "sharded": (SHARDED, {}),
    "sharded-checkpointing": (SHARDED, {AC: True}),
    "sharded-fp32": (SHARDED, {"dtype": "fp32"}),
    "sharded-selective": (SHARDED, {"ac_mode": "selective", "ac_option": 2}),
    "sharded-in-backward": (SHARDED, {"optimizer_in_bwd": True}),
    "sharded-loss-full": (SHARDED, {"loss._component_": "torch.nn.CrossEntropyLoss"}),
    "sharded-keep": (SHARDED, {"fsdp_reshard_after_forward": False}),
    "sharded-offload": (SHARDED, {"fsdp_cpu_offload": True}),
    "sharded-validation": (SHARDED, {"run_val_every_n_steps": 2, "dataset_val._component_": "torchtune.datasets.text_completion_dataset",
                                     "dataset_val.source": "json", "dataset_val.data_files": "data/text/train.jsonl",
                                     "batch_size_val": 8}),
    "sharded-lora": (SHARDED_LORA, {}),
    "sharded-lora-checkpointing": (SHARDED_LORA, {AC: True}),
}


def prepare(_folder):
    dataset("data", "text", [{"text": words(4096 + 64, n)} for n in range(64)])
    sides = [[{"role": "user", "content": words(16, n)}, {"role": "assistant", "content": words(4096, n + side)}]
             for n in range(16) for side in (0, 7)]
    dataset("data", "pairs", [{"chosen_conversations": as_shared(a), "rejected_conversations": as_shared(b)}
                              for a, b in zip(sides[::2], sides[1::2])])


def as_shared(messages):
    names = {"user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


def load():
    import torchtune  # first, as `tune` does: it asks for expandable segments

    import torch
    import torchtune.training.checkpointing._checkpoint_client as client
    from torchtune.models import llama3

    client.CheckpointClient.load_base_checkpoint = lambda self: zeros(self._cfg)
    client.CheckpointClient.save_checkpoint = lambda *_, **__: None
    llama3.llama3_tokenizer = Words
    where = torch.where

    def all_of_it(condition, *values):
        # The mask's values are zeros over the stub: no token would count, and there would be no loss.
        if values or not condition.is_cuda:
            return where(condition, *values)
        return (torch.arange(condition.numel(), device=condition.device),) * condition.dim()

    torch.where = all_of_it
    supply_missing_names()
    return f"torchtune {version()}, torch {torch.__version__.split('+')[0]}"


def supply_missing_names():
    """The last commit's rlhf/loss/dpo.py uses names that it does not import."""
    import builtins
    import dataclasses
    import typing

    builtins.TypeVar, builtins.Optional, builtins.dataclass = typing.TypeVar, typing.Optional, dataclasses.dataclass


def version():
    from importlib.metadata import version as installed

    return installed("torchtune").split("+")[0]


def zeros(config):
    """The weights a checkpoint would hold: the shapes of the model without its adapters."""
    import torch
    from torchtune import config as tune
    from torchtune import training
    from torchtune.modules.peft import get_adapter_params

    with torch.device("meta"):
        table = dict(config.model)
        table["_component_"] = table["_component_"].replace(".qlora_", ".lora_")
        model = tune.instantiate(tune_config(table))
    adapters = get_adapter_params(model)
    one = torch.zeros((), dtype=training.get_dtype(config.dtype))
    return {training.MODEL_KEY: {name: one.expand(value.shape) for name, value in model.state_dict().items() if name not in adapters}}


def tune_config(table):
    from omegaconf import OmegaConf

    return OmegaConf.create(table)


class Words:
    """Stands in for the tokenizer: one token a word."""

    def __init__(self, path=None, max_seq_len=None, **_):
        self.max_seq_len, self.pad_id, self.eos_id, self.vocab_size = max_seq_len, 0, 2, 1000

    def encode(self, text, **_):
        return [int(word[1:]) % 900 + 10 for word in text.split()]

    def tokenize_messages(self, messages, **_):
        tokens = [token for message in messages for token in self.encode(message.text_content)][: self.max_seq_len]
        return tokens, [False] * len(tokens)

    def __call__(self, sample, inference=False):
        tokens, mask = self.tokenize_messages(sample.pop("messages"))
        return {**sample, "tokens": tokens, "mask": mask}


def recipes():
    """The recipes are files beside the package, which is no package to import."""
    import importlib.util

    return Path(importlib.util.find_spec("torchtune").origin).parent.parent / "recipes"


def launch(config):
    """Recipe and processes of the comment `tune run [--nproc_per_node N] RECIPE --config FILE`."""
    found = re.search(r"tune run (?:--nproc_per_node (\d+) )?(\w+)", Path(config).read_text())
    return found.group(2), int(found.group(1) or 1)


def run(config):
    recipe, processes = launch(config)
    if processes > 1:
        fake_group(processes)
    sys.argv = [recipe, "--config", str(config)]
    runpy.run_path(str(recipes() / f"{recipe}.py"), run_name="__main__")


def fake_group(processes):
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    start = dist.init_process_group

    def fake(*_, **__):
        start("fake", store=FakeStore(), rank=0, world_size=processes)

    dist.init_process_group = fake
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(processes), MASTER_ADDR="localhost", MASTER_PORT="0")
