"""LLaMA-Factory: `llamafactory-cli train FILE`."""

import json
import sys

from common import dataset, words

PACKAGES = ["llamafactory"]


def load():
    without_sound()
    import llamafactory
    import transformers
    from llamafactory.train import tuner  # noqa: F401

    transformers.Trainer.save_model = lambda *_, **__: None  # what is saved is zeros
    return f"llamafactory {llamafactory.__version__ if hasattr(llamafactory, '__version__') else version()}, transformers {transformers.__version__}"


def without_sound():
    """LLaMA-Factory imports torchaudio for models that hear; its wheel must match torch's CUDA, so none is installed."""
    import importlib.machinery
    import types

    module = types.ModuleType("torchaudio")
    module.__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    sys.modules["torchaudio"] = module


def version():
    from importlib.metadata import version as installed

    return installed("llamafactory")


def data(folder, length):
    rows = [{"instruction": words(16, n), "input": "", "output": words(length, n)} for n in range(32)]
    dataset(folder, "lf", rows)
    pairs = [{"instruction": words(16, n), "input": "", "chosen": words(length, n), "rejected": words(length, n + 7)} for n in range(32)]
    dataset(folder, "lf_dpo", pairs)
    kto = [dict(row, tag=n % 2 == 0) for n, row in enumerate(rows)]
    dataset(folder, "lf_kto", kto)
    dataset(folder, "lf_plain", [{"text": words(length, n)} for n in range(64)])
    with open(f"{folder}/dataset_info.json", "w") as file:
        json.dump({
            "full": {"file_name": "lf/train.jsonl"},
            "plain": {"file_name": "lf_plain/train.jsonl", "columns": {"prompt": "text"}},
            "kto": {"file_name": "lf_kto/train.jsonl", "columns": {"prompt": "instruction", "response": "output", "kto_tag": "tag"}},
            "pairs": {"file_name": "lf_dpo/train.jsonl", "ranking": True,
                      "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
        }, file)


def run(config):
    from llamafactory.train.tuner import run_exp

    sys.argv = ["llamafactory-cli", str(config)]
    run_exp()
