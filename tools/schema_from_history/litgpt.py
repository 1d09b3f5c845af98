"""LitGPT's schema over its releases: the arguments of each command's `setup`, and their classes.

    git clone --bare https://github.com/Lightning-AI/litgpt
    python tools/schema_from_history/litgpt.py litgpt.git
"""

import ast

from common import entry, fields, git, literal, nest, write

TAGS = ["v0.3.1", "v0.4.0", "v0.4.13", "v0.5.0", "v0.5.3", "v0.5.5", "v0.5.7", "v0.5.9", "HEAD"]
HEAD = "0.5.13"
COMMANDS = [f"litgpt/finetune/{name}.py" for name in ("full", "lora", "adapter", "adapter_v2")] + ["litgpt/pretrain.py"]
SECTIONS = {"TrainArgs": "train", "EvalArgs": "eval", "LogArgs": "log"}
NULLABLE = {"type": ["string", "null"]}
# What annotations do not say: classes from other modules, values that only the code checks.
TYPES = {
    ("precision",): {"enum": ["32-true", "16-true", "bf16-true", "16-mixed", "bf16-mixed", "32", None]},
    ("quantize",): {"enum": ["bnb.nf4", "bnb.nf4-dq", "bnb.fp4", "bnb.fp4-dq", "bnb.int8", "bnb.int8-training", None]},
    ("devices",): {"type": ["integer", "string"], "anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]},
    ("resume",): {"type": ["boolean", "string", "null"]},
    ("optimizer",): {"type": ["string", "object"], "default": "AdamW"},
    ("data",): {"type": ["string", "object", "null"]},
    ("logger_name",): {"enum": ["csv", "tensorboard", "wandb", "mlflow", "litlogger"]},
    ("model_name",): NULLABLE,
    ("out_dir",): NULLABLE,
    ("tokenizer_dir",): NULLABLE,
    ("checkpoint_dir",): NULLABLE,
    ("initial_checkpoint_dir",): NULLABLE,
    ("train", "global_batch_size"): {"type": "integer", "minimum": 1},
    ("train", "micro_batch_size"): {"type": "integer", "minimum": 1},
    ("train", "max_norm"): {"type": ["number", "null"]},
    **{("train", key): {"type": ["integer", "null"]} for key in ("max_seq_length", "epochs", "max_tokens", "max_steps", "lr_warmup_steps")},
    **{("train", key): {"type": "number"} for key in ("learning_rate", "weight_decay", "beta1", "beta2")},
}
RENAMED = {"learning_rate": "lr", "weight_decay": "weight_decay", "beta1": "betas", "beta2": "betas"}


def version(tag):
    return HEAD if tag == "HEAD" else tag[1:]


found = {}


def note(path, schema, tag):
    record = found.setdefault(path, {"tags": []})
    record["tags"].append(tag)
    record["schema"] = schema


for tag in TAGS:
    arguments = git("show", f"{tag}:litgpt/args.py")
    for name, section in SECTIONS.items():
        for key, (annotation, value) in fields(arguments, name).get(name, {}).items():
            note((section, key), entry(annotation, value), tag)
    for key, (annotation, value) in fields(git("show", f"{tag}:litgpt/config.py"), "Config")["Config"].items():
        note(("model_config", key), entry(annotation, value), tag)
    for path in COMMANDS:
        for node in ast.parse(git("show", f"{tag}:{path}") or "").body:
            if not (isinstance(node, ast.FunctionDef) and node.name == "setup"):
                continue
            names = node.args.args
            values = [None] * (len(names) - len(node.args.defaults)) + list(node.args.defaults)
            for argument, value in zip(names, values):
                written = ast.unparse(argument.annotation)
                if any(name in written for name in (*SECTIONS, "Config")):
                    continue
                schema = entry(argument.annotation, None)
                default = literal(value) if value is not None else None
                if default is not None and argument.arg not in ("out_dir", "seed", "logger_name", "devices"):
                    schema["default"] = default
                note((argument.arg,), schema, tag)

properties = {"config": NULLABLE}
for path, record in sorted(found.items()):
    schema = dict(TYPES.get(path, record["schema"]))
    if record["tags"][0] != TAGS[0]:
        schema["x-added-in"] = version(record["tags"][0])
    if record["tags"][-1] != TAGS[-1]:
        schema["x-removed-in"] = version(TAGS[TAGS.index(record["tags"][-1]) + 1])
        if path[0] == "train" and path[-1] in RENAMED:
            schema["x-renamed-to"] = f"optimizer.init_args.{RENAMED[path[-1]]}"
            schema["x-value-changes"] = True
    nest(properties, path, schema)
write("litgpt", "LitGPT pretraining and finetuning files, 0.3 to 0.5", {"additionalProperties": False, "properties": properties})
