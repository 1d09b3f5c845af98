"""TRL: `trl sft --config FILE` and `trl dpo --config FILE`, by the keys in the file."""

import sys
from pathlib import Path

from common import dataset, words

PACKAGES = ["trl", "datasets"]


def load():
    import trl.scripts.dpo
    import trl.scripts.sft
    import trl

    import transformers

    transformers.Trainer.save_model = lambda *_, **__: None  # what is saved is zeros
    return f"trl {trl.__version__}, transformers {transformers.__version__}"


def data(folder, length):
    dataset(folder, "sft", [{"text": words(length + 64, n)} for n in range(32)])
    # A pair's two sides are one full-length row each.
    dataset(folder, "dpo", [{"prompt": words(16, n), "chosen": " " + words(length, n), "rejected": " " + words(length, n + 7)} for n in range(32)])


def run(config):
    name = "dpo" if "dataset_name: data/dpo" in Path(config).read_text() else "sft"
    import trl.scripts.dpo
    import trl.scripts.sft

    script = getattr(trl.scripts, name)
    sys.argv = [name, "--config", str(config)]
    parser = script.make_parser()
    parsed = parser.parse_args_and_config(return_remaining_strings=False)
    script.main(*parsed)
