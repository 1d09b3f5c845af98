"""What every framework's driver needs: the stub, a model folder, a dataset, and the meter.

A model folder holds a config.json, a tokenizer of single words, and weights that are zeros in a
sparse file: the framework's own loading code runs unchanged and takes no room on the disk.
"""

import json
import os
import struct
import sys
from pathlib import Path

STUB = Path(__file__).resolve().parent.parent / "stub"
LIBRARIES = ("libfakecuda.so", "libcuda.so.1", "libnvidia-ml.so.1")
WORDS = 1000
SIZES = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8, "BOOL": 1, "U8": 1}
SHORT = {"torch.bfloat16": "BF16", "torch.float16": "F16", "torch.float32": "F32", "torch.int64": "I64"}


def start_over_stub():
    """Starts this program again over the stub runtime, unless it already runs there."""
    if "libfakecuda" in os.environ.get("LD_PRELOAD", ""):
        return
    libraries = [STUB / name for name in LIBRARIES]
    missing = [str(path) for path in libraries if not path.exists()]
    if missing:
        sys.exit(f"{', '.join(missing)} missing: run stub/build.sh first")
    environment = dict(
        os.environ,
        LD_PRELOAD=":".join(map(str, libraries)),
        OMP_NUM_THREADS="1",
        FAKECUDA_NDEV="1",
        FAKECUDA_TOTAL=os.environ.get("FAKECUDA_TOTAL", str(80 << 30)),
        HF_HUB_OFFLINE="1",
        HF_DATASETS_OFFLINE="1",
        WANDB_DISABLED="true",
        TOKENIZERS_PARALLELISM="false",
    )
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def model_folder(folder, described):
    """Writes config.json, the tokenizer and sparse weights of zeros, in the config's dtype."""
    folder = Path(folder)
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    described = dict(described, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    (folder / "config.json").write_text(json.dumps(described, indent=1))
    stored = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}[described.get("torch_dtype", "bfloat16")]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    tied = {"lm_head.weight"} if described.get("tie_word_embeddings") else set()
    shapes = {name: list(value.shape) for name, value in model.state_dict().items() if name not in tied}
    sparse_weights(folder / "model.safetensors", shapes, stored)
    tokenizer(folder)
    return folder


def sparse_weights(path, shapes, stored):
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shapes.items():
        size = SIZES[stored]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": stored, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def tokenizer(folder):
    """One token a word: `w0 w1 ...`, so that a row's length is its number of words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>"]
    words = {word: at for at, word in enumerate(special + [f"w{n}" for n in range(WORDS)])}
    built = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    built.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=built, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    fast.save_pretrained(folder)


def words(count, start=0):
    return " ".join(f"w{(start + n) % WORDS}" for n in range(count))


def dataset(folder, name, rows):
    folder = Path(folder) / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


class Meter:
    """The allocator's peak from the first forward pass in training on, and the phase it fell in."""

    def __init__(self):
        self.peaks, self.reserved, self.steps, self.started = {}, 0, 0, False

    def start(self):
        import torch
        from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

        def first(module, _inputs):
            if not self.started and module.training and torch.is_grad_enabled() and torch.cuda.is_initialized():
                self.started = True
                torch.cuda.reset_peak_memory_stats()
            if self.started:
                handle.remove()

        handle = torch.nn.modules.module.register_module_forward_pre_hook(first)
        backward = torch.autograd.backward

        def measured(*args, **kwargs):
            self.mark("forward")
            try:
                return backward(*args, **kwargs)
            finally:
                self.mark("backward")

        torch.autograd.backward = measured
        self.reset = torch.cuda.reset_peak_memory_stats

        def reset(*args, **kwargs):
            self.mark("between")  # a trainer that counts its own peaks takes none away from ours
            self.reset(*args, **kwargs)

        torch.cuda.reset_peak_memory_stats = reset
        register_optimizer_step_pre_hook(lambda *_: self.mark("between"))

        def stepped(*_):
            self.mark("optimizer")
            self.steps += 1

        register_optimizer_step_post_hook(stepped)
        return self

    def mark(self, phase):
        import torch

        if not self.started:
            return
        peak = torch.cuda.max_memory_allocated()
        self.peaks[phase] = max(self.peaks.get(phase, 0), peak)
        self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())
        self.reset()

    def row(self):
        import torch

        self.mark("after")
        phase = max(self.peaks, key=self.peaks.get) if self.peaks else None
        return {
            "allocated_bytes": self.peaks.get(phase, 0),
            "reserved_bytes": self.reserved,
            "phase": phase,
            "steps": self.steps,
            "peaks": self.peaks,
        }
