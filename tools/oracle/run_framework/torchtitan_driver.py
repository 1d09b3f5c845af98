"""torchtitan: `python -m torchtitan.train --job.config_file FILE`.

Several ranks are torchtitan's own `--comm.mode fake_backend`: rank 0 of the product of the file's
degrees, or the first rank of the pipeline stage in the file's first comment, `# pipeline rank 1`.
Parameters are initialised, not loaded.
"""

import os
from pathlib import Path

import pipeline
from common import dataset, tokenizer, words

BASE = {
    "job.dump_folder": "out",
    "model.name": "llama3",
    "model.flavor": "debugmodel",
    "model.hf_assets_path": "assets",
    "optimizer.name": "AdamW",
    "training.dataset": "c4_test",
    "training.dataset_path": "data/text",
    "training.local_batch_size": 8,
    "training.seq_len": 2048,
    "training.steps": 4,
    "metrics.log_freq": 1,
    "activation_checkpoint.mode": "none",
    "parallelism.data_parallel_shard_degree": 1,
}
QWEN = dict(BASE, **{"model.name": "qwen3", "model.flavor": "0.6B", "training.local_batch_size": 1})
LLAMA = dict(BASE, **{"model.flavor": "8B", "training.local_batch_size": 1, "activation_checkpoint.mode": "full", "training.steps": 2})
MODE, OPTION = "activation_checkpoint.mode", "activation_checkpoint.selective_ac_option"
SHARD, REPLICATE = "parallelism.data_parallel_shard_degree", "parallelism.data_parallel_replicate_degree"
TENSOR = "parallelism.tensor_parallel_degree"

CASES = {
    "debug": (BASE, {}),
    "qwen": (QWEN, {}),
    "qwen-checkpointing-absent": (QWEN, {MODE: None}),
    "qwen-full": (QWEN, {MODE: "full"}),
    "qwen-selective-op": (QWEN, {MODE: "selective", OPTION: "op"}),
    "qwen-selective-2": (QWEN, {MODE: "selective", OPTION: "2"}),
    "qwen-selective-option-absent": (QWEN, {MODE: "selective"}),
    "qwen-batch-4": (QWEN, {"training.local_batch_size": 4}),
    "qwen-batch-absent": (QWEN, {"training.local_batch_size": None, MODE: "full"}),
    "qwen-length-absent": (QWEN, {"training.seq_len": None}),
    "qwen-length-4096": (QWEN, {"training.seq_len": 4096}),
    "qwen-bf16": (QWEN, {"training.dtype": "bfloat16"}),
    "qwen-foreach": (QWEN, {"optimizer.implementation": "foreach"}),
    "qwen-for-loop": (QWEN, {"optimizer.implementation": "for-loop"}),
    "qwen-optimizer-absent": (QWEN, {"optimizer.name": None}),
    "qwen-adam": (QWEN, {"optimizer.name": "Adam"}),
    "qwen-accumulation": (QWEN, {"training.global_batch_size": 4}),
    "qwen-no-mixed": (QWEN, {"training.mixed_precision_param": "float32"}),
    "qwen-validation": (QWEN, {"validation.enable": True, "validation.freq": 2, "validation.steps": 2, "validation.dataset": "c4_test",
                               "validation.dataset_path": "data/text", "validation.seq_len": 2048}),
    "llama-8b-hsdp": (LLAMA, {REPLICATE: 2, SHARD: 4}),
    "llama-8b-shard-8-keep": (LLAMA, {SHARD: 8, "parallelism.fsdp_reshard_after_forward": "never"}),
    "llama-8b-shard-8-reduce-bf16": (LLAMA, {SHARD: 8, "training.mixed_precision_reduce": "bfloat16"}),
    "llama-8b-shard-8": (LLAMA, {SHARD: 8}),
    "llama-8b-shard-8-absent": (LLAMA, {SHARD: 8, MODE: None}),
    "llama-8b-shard-8-op": (LLAMA, {SHARD: 8, MODE: "selective", OPTION: "op"}),
    "llama-8b-shard-8-none": (LLAMA, {SHARD: 8, MODE: "none"}),
    "llama-8b-shard-64": (LLAMA, {SHARD: 64, "training.seq_len": 8192}),
    "llama-8b-tensor-4": (LLAMA, {TENSOR: 4}),
    "llama-8b-shard-4-tensor-2": (LLAMA, {SHARD: 4, TENSOR: 2}),
    "llama-8b-shard-8-tensor-8": (LLAMA, {SHARD: 8, TENSOR: 8, "training.local_batch_size": 2, "training.seq_len": 8192}),
    "llama-8b-shard-8-tensor-8-none": (LLAMA, {SHARD: 8, TENSOR: 8, "training.local_batch_size": 2, "training.seq_len": 8192, MODE: "none"}),
    "llama-8b-shard-8-tensor-8-op": (LLAMA, {SHARD: 8, TENSOR: 8, "training.local_batch_size": 2, "training.seq_len": 8192, MODE: "selective", OPTION: "op"}),
    "llama-8b-tensor-2-op": (LLAMA, {TENSOR: 2, MODE: "selective", OPTION: "op", "training.dtype": "bfloat16"}),
    "qwen-shard-2-tensor-4": (QWEN, {SHARD: 2, TENSOR: 4, "training.local_batch_size": 4, "training.seq_len": 4096}),
    "qwen-shard-2-tensor-4-full": (QWEN, {SHARD: 2, TENSOR: 4, "training.local_batch_size": 4, "training.seq_len": 4096, MODE: "full"}),
    "llama-8b-context-8": (LLAMA, {"parallelism.context_parallel_degree": 8, "training.seq_len": 65536}),
    "llama-8b-shard-4-context-2": (LLAMA, {SHARD: 4, "parallelism.context_parallel_degree": 2}),
    "llama-8b-shard-4-pipeline-2": (LLAMA, {SHARD: 4, "parallelism.pipeline_parallel_degree": 2, "training.local_batch_size": 4}),
}


def pipelines():
    """One rank each of a pipeline: the schedule, what is recomputed, the stages, the micro-batches, FSDP and tensor ranks."""
    schedules = {"1f1b": "1F1B", "gpipe": "GPipe", "interleaved": "Interleaved1F1B", "looped": "LoopedBFS",
                 "izb": "InterleavedZeroBubble", "zbv": "ZBVZeroBubble"}
    rows = """
        1f1b 4 8 full 4 1 0,1,3
        1f1b 4 8 none 4 1 0,1,3
        1f1b 4 16 full 4 1 0,3
        1f1b 4 4 none 4 1 0,3
        1f1b 2 4 op 4 1 0,1
        gpipe 4 8 full 4 1 0,1,3
        gpipe 4 4 none 4 1 0,3
        interleaved 4 8 full 4 1 0,1,3
        interleaved 4 8 none 4 1 0,3
        interleaved 2 4 full 8 1 0,1
        interleaved 4 16 full 4 1 0,3
        looped 4 8 full 4 1 0,3
        izb 4 8 none 4 1 0,3
        zbv 4 8 none 4 1 0,1,3
        1f1b 4 8 full 1 1 0,1,3
        1f1b 4 8 none 1 1 1
        gpipe 4 8 full 1 1 0,3
        interleaved 4 8 full 1 1 0,1,3
        1f1b 4 8 full 4 4 0,1,3
        1f1b 4 8 none 2 2 0,3
        interleaved 4 8 full 4 4 0,3
        gpipe 4 8 full 2 4 1
        1f1b 4 8 full 1 4 0,1,3
    """
    for row in rows.split("\n"):
        if not row.strip():
            continue
        schedule, stages, batches, recomputed, shards, tensor, ranks = row.split()
        for rank in ranks.split(","):
            changes = {
                "#": f"pipeline rank {rank}",
                "parallelism.pipeline_parallel_schedule": schedules[schedule],
                "parallelism.pipeline_parallel_degree": int(stages),
                "training.local_batch_size": int(batches),
                "training.steps": 3,
                MODE: "selective" if recomputed == "op" else recomputed,
                OPTION: "op" if recomputed == "op" else None,
                SHARD: int(shards),
                TENSOR: int(tensor) if tensor != "1" else None,
            }
            yield f"{schedule}-{stages}-{batches}-{recomputed}-shard-{shards}-tensor-{tensor}-rank-{rank}", (LLAMA, changes)


CASES.update(pipelines())


def prepare(_folder):
    dataset("data", "text", [{"text": words(4096 + 64, n)} for n in range(64)])
    Path("assets").mkdir(exist_ok=True)
    tokenizer("assets")


def load():
    """Imports nothing of torchtitan: it starts CUDA, which no fork survives."""
    from importlib.metadata import version

    return f"torchtitan {version('torchtitan')}, torch {version('torch').split('+')[0]}"


def ranks(config):
    """The product of the file's degrees, which is the number of GPUs it is for."""
    product = 1
    for key, degree in degrees(config).items():
        if not key.startswith("expert"):
            product *= int(degree)
    return product


def degrees(config):
    import tomllib

    parallel = tomllib.loads(Path(config).read_text()).get("parallelism", {})
    return {key: degree for key, degree in parallel.items() if key.endswith("_degree")}


def run(config):
    from torchtitan.config import ConfigManager
    from torchtitan.train import Trainer, main

    world = ranks(config)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE=str(world), NGPU=str(world), MASTER_ADDR="localhost", MASTER_PORT="0")
    without_cudnn()
    on_pipeline_rank(pipeline.of_file(Path(config)), degrees(config).get("pipeline_parallel_degree", 1))
    # The command line was read at import.
    ConfigManager.parse_args.__defaults__ = (["--job.config_file", str(config), "--comm.mode", "fake_backend"],)
    main(Trainer)


def without_cudnn():
    """cuDNN's attention comes first in torchtitan, and does not run over the stub. FlashAttention,
    its second choice, keeps the same tensors."""
    from torch.nn.attention import SDPBackend
    from torchtitan.models import attention

    start = attention.ScaledDotProductAttentionWrapper.__init__

    def init(self):
        start(self)
        self.sdpa_backends = [backend for backend in self.sdpa_backends if backend != SDPBackend.CUDNN_ATTENTION]

    attention.ScaledDotProductAttentionWrapper.__init__ = init


def on_pipeline_rank(stage, stages):
    import torch
    from torchtitan.config import TORCH_DTYPE_MAP
    from torchtitan.distributed import pipeline_parallel, utils

    def start(world_size, _mode="fake_backend"):
        torch.distributed.init_process_group("fake", rank=stage * (world_size // stages), world_size=world_size)

    utils.init_fake_mode = start
    build = pipeline_parallel.build_pipeline_schedule

    def schedule(job_config, parts, loss_fn):
        parallel, training = job_config.parallelism, job_config.training
        sharded = isinstance(parts[0].submod, torch.distributed.fsdp.FSDPModule)
        shape = (parallel.pipeline_parallel_microbatch_size,
                 training.seq_len // parallel.context_parallel_degree // parallel.tensor_parallel_degree,
                 parts[0].submod.model_args.dim)
        pipeline.over_fake_group(shape, TORCH_DTYPE_MAP[training.mixed_precision_param if sharded else training.dtype])
        return build(job_config, parts, loss_fn)

    pipeline_parallel.build_pipeline_schedule = schedule
