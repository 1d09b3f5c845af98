"""A script over transformers' Trainer, as people write them: `HfArgumentParser` reads the file."""

from dataclasses import dataclass

from common import words

PACKAGES = ["transformers"]


@dataclass
class Script:
    model_name_or_path: str
    dataset_name: str
    block_size: int = 1024
    torch_dtype: str = "float32"


def load():
    import transformers

    transformers.Trainer.save_model = lambda *_, **__: None  # what is saved is zeros
    return f"transformers {transformers.__version__}"


def data(folder, length):
    pass  # made in `run`


def run(config):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, HfArgumentParser, Trainer, TrainingArguments

    script, arguments = HfArgumentParser((Script, TrainingArguments)).parse_yaml_file(str(config))
    tokenizer = AutoTokenizer.from_pretrained(script.model_name_or_path)
    rows = []
    for n in range(32):
        ids = tokenizer(words(script.block_size, n))["input_ids"][: script.block_size]
        rows.append({"input_ids": torch.tensor(ids), "labels": torch.tensor(ids)})
    model = AutoModelForCausalLM.from_pretrained(script.model_name_or_path, dtype=getattr(torch, script.torch_dtype))
    Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows).train()
