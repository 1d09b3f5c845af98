"""LLM Foundry's schema over its releases: `TrainConfig`, and what older files read beside it.

    git clone --bare https://github.com/mosaicml/llm-foundry
    python tools/schema_from_history/llm_foundry.py llm-foundry.git

The inside of `model`, `optimizer` and `fsdp_config` belongs to registries and to Composer; the
few keys that decide memory stand in the file as it is and are kept.
"""

import json

from common import SCHEMAS, entry, fields, git, write

HEAD = "0.22"
OPEN = ("model", "optimizer", "fsdp_config", "tp_config")
TYPES = {
    "precision": {"enum": ["amp_bf16", "amp_fp16", "fp32", "amp_fp8"], "default": "amp_bf16"},
    "max_seq_len": {"type": "integer", "minimum": 1},
    "global_train_batch_size": {"type": "integer", "minimum": 1},
    "device_train_microbatch_size": {"anyOf": [{"const": "auto"}, {"type": "number", "exclusiveMinimum": 0}], "default": "auto"},
    "icl_tasks": {"type": ["array", "string"]},
    "eval_gauntlet": {"type": ["object", "string"]},
    "eval_loader": {"type": ["object", "array"]},
    "eval_interval": {"type": ["integer", "string"]},
    "load_ignore_keys": {"type": "array"},
}
VARIABLES = ("global_seed", "data_local", "data_remote", "tokenizer_name", "model_name")


def order(tag):
    return [int(part) if part.isdigit() else 0 for part in tag[1:].split(".")]


tags = sorted((tag for tag in git("tag").split() if tag.startswith("v")), key=order)
found, first = {}, None
for tag in [*tags, "HEAD"]:
    classes = fields(git("show", f"{tag}:llmfoundry/utils/config_utils.py") or "", "TrainConfig")
    if not classes:
        continue
    first = first or tag
    for key, (annotation, value) in classes["TrainConfig"].items():
        record = found.setdefault(key, {"tags": []})
        record["tags"].append(tag)
        record["schema"] = entry(annotation, value)

kept = json.loads((SCHEMAS / "llm-foundry.schema.json").read_text())["$defs"]["train"]["properties"]
since = first.lstrip("v")
properties = {}
for key, record in found.items():
    schema = dict(kept[key] if key in OPEN else TYPES.get(key, record["schema"]))
    if record["tags"][0] != first:
        schema["x-added-in"] = record["tags"][0].lstrip("v")
    if record["tags"][-1] != "HEAD":
        schema["x-removed-in"] = HEAD
    properties[key] = schema
for key in VARIABLES:
    moved = {"x-removed-in": since, "x-renamed-to": f"variables.{key}", "x-value-changes": True}
    properties.setdefault(key, {"type": ["integer", "string", "number"], **moved})
properties.setdefault("icl_max_seq_len", {"type": "integer", "x-removed-in": since, "x-renamed-to": "icl_seq_len"})
properties.setdefault("dataset", {"x-removed-in": since})
train = {"type": "object", "additionalProperties": False, "properties": dict(sorted(properties.items()))}
write(
    "llm-foundry",
    "LLM Foundry training files, 0.2 to 0.22",
    {
        "$defs": {"train": train},
        "if": {"required": ["parameters"], "properties": {"parameters": {"type": "object"}}},
        "then": {"properties": {"parameters": {"$ref": "#/$defs/train"}}},
        "else": {"$ref": "#/$defs/train"},
    },
)
