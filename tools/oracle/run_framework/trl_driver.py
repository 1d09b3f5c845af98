"""TRL: `trl sft --config FILE` and `trl dpo --config FILE`, by the keys in the file."""

import importlib
import sys
from pathlib import Path

from common import dataset, words

PACKAGES = ["trl", "datasets"]
MARKS = {"reward": "center_rewards_coefficient:", "kto": "desirable_weight:", "dpo": "dataset_name: data/dpo"}


def load():
    import trl.scripts.dpo
    import trl.scripts.sft
    import trl

    import transformers

    transformers.Trainer.save_model = lambda *_, **__: None  # what is saved is zeros
    every_position()
    return f"trl {trl.__version__}, transformers {transformers.__version__}"


def every_position():
    """The fused head counts its labels on the device, where the stub has zeros: it would score no position at all.

    Off Triton it scores every position, which is what rows without a masked label come to. Its two kernels write in place.
    """
    try:
        import trl.kernels.chunked_logprob as head
        import trl.trainer.utils as utils
    except ImportError:
        return  # before 1.16

    class Nothing:
        def __getitem__(self, _grid):
            return lambda *_, **__: None

    utils._use_triton = lambda _device: False
    head._forward_kernel = head._backward_kernel = Nothing()


def data(folder, length):
    dataset(folder, "sft", [{"text": words(length + 64, n)} for n in range(32)])
    # A pair's two sides are one full-length row each.
    dataset(folder, "dpo", [{"prompt": words(16, n), "chosen": " " + words(length, n), "rejected": " " + words(length, n + 7)} for n in range(32)])


    sides = [("chosen", True, 0), ("rejected", False, 7)]
    rows = [{"prompt": words(16, n), "completion": " " + words(length, n + more), "label": label}
            for n in range(16) for _, label, more in sides]
    dataset(folder, "kto", rows)


def run(config):
    text = Path(config).read_text()
    name = next((name for name, mark in MARKS.items() if mark in text), "sft")
    script = importlib.import_module(f"trl.scripts.{name}")
    sys.argv = [name, "--config", str(config)]
    parser = script.make_parser()
    parsed = parser.parse_args_and_config(return_remaining_strings=False)
    script.main(*parsed)
