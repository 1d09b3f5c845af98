"""LLaMA-Factory: `llamafactory-cli train FILE`."""

import json
import sys

from common import dataset, words

PACKAGES = ["llamafactory"]


def load():
    import llamafactory
    import transformers
    from llamafactory.train import tuner  # noqa: F401

    transformers.Trainer.save_model = lambda *_, **__: None  # what is saved is zeros
    return f"llamafactory {llamafactory.__version__ if hasattr(llamafactory, '__version__') else version()}, transformers {transformers.__version__}"


def version():
    from importlib.metadata import version as installed

    return installed("llamafactory")


def data(folder, length):
    rows = [{"instruction": words(16, n), "output": words(length, n)} for n in range(32)]
    dataset(folder, "lf", rows)
    pairs = [{"instruction": words(16, n), "chosen": words(length, n), "rejected": words(length, n + 7)} for n in range(32)]
    dataset(folder, "lf_dpo", pairs)
    with open(f"{folder}/dataset_info.json", "w") as file:
        json.dump({
            "full": {"file_name": "lf/train.jsonl"},
            "pairs": {"file_name": "lf_dpo/train.jsonl", "ranking": True,
                      "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
        }, file)


def run(config):
    from llamafactory.train.tuner import run_exp

    sys.argv = ["llamafactory-cli", str(config)]
    run_exp()
