"""GPT-NeoX's schema over its releases: the fields of every argument class, under both spellings.

    git clone --bare https://github.com/EleutherAI/gpt-neox
    python tools/schema_from_history/gpt_neox.py gpt-neox.git
"""

import ast
import re

from common import entry, git, write

TAGS = ["v1.0", "v2.0", "HEAD"]
COUNT = {"type": "integer", "minimum": 1}
OBJECT = {"type": "object"}
TYPES = {
    **{key: OBJECT for key in ("fp16", "bf16", "amp", "zero_optimization", "optimizer", "scheduler", "autotuning", "soft_prompt_tuning", "sparsity_config")},
    **{key: COUNT for key in ("num_layers", "hidden_size", "num_attention_heads", "seq_length")},
    "precision": {"enum": ["fp16", "fp32", "bfloat16"]},
    "optimizer_type": {"type": "string"},
    # Autotuning files give lists of what to try.
    "zero_stage": {"type": ["integer", "array", "string"]},
    "train_micro_batch_size_per_gpu": {"type": ["integer", "array", "string"]},
    "attention_config": {"type": "array"},
}
RENAMED = {"gas": "gradient_accumulation_steps", "save_iters": "extra_save_iters", "batch_size": "train_micro_batch_size_per_gpu"}
# Keys that no argument class of these releases has, and that files still hold.
OLD = {
    "save_interval": {"type": "integer", "x-removed-in": "1.0", "x-renamed-to": "checkpoint_factor"},
    "flash_attention": {"type": "boolean", "x-removed-in": "2.0", "x-instead": '`attention_config: [[["flash"], N]]`'},
    "mlp_type": {
        "enum": ["regular", "llama"],
        "x-removed-in": "2.1",
        "x-instead": "a gated `activation` such as swiglu, with `intermediate_size` three times the width",
    },
    # From v2.0 to 2025-05 (d11df961), between two of the releases that are read.
    **{
        key: {"type": kind, "x-removed-in": "2.1"}
        for key, kind in {
            "moe_type": "string",
            "moe_token_dropping": "boolean",
            "moe_expert_parallel_size": "integer",
            "moe_loss_coeff": "number",
            "moe_train_capacity_factor": "number",
            "moe_eval_capacity_factor": "number",
            "moe_min_capacity": "integer",
            "moe_use_residual": "boolean",
            "moe_glu": "boolean",
            "enable_expert_tensor_parallelism": "boolean",
            "create_moe_param_group": "boolean",
            "use_tutel": "boolean",
        }.items()
    },
    "expert_interval": {"type": "integer", "x-removed-in": "2.1", "x-renamed-to": "moe_expert_interval"},
    "num_experts": {"type": "integer", "x-removed-in": "2.1", "x-renamed-to": "moe_num_experts"},
    "label_data_paths": {"type": "array", "x-removed-in": "2.1", "x-renamed-to": "train_label_data_paths"},
    "slurm_comment": {"type": "string", "x-removed-in": "2.0", "x-renamed-to": "comment"},
    "autotuning_config": OBJECT,
    "autotuning_run": {"type": "string"},
}


def classes(source):
    """All classes; where a release does not parse (v1.0 has a broken string), its field lines."""
    try:
        return [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    except SyntaxError:
        lines = []
        for line in source.splitlines():
            if re.match(r"    \w+: [A-Za-z\[\], .\"']+ = .*$", line):
                try:
                    ast.parse(line.strip())
                    lines.append(line)
                except SyntaxError:
                    continue
        return ast.parse("class Fields:\n" + "\n".join(lines)).body


found = {}
for tag in TAGS:
    for module in ("neox_args", "deepspeed_args"):
        for node in classes(git("show", f"{tag}:megatron/neox_arguments/{module}.py")):
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                    record = found.setdefault(line.target.id, {"tags": []})
                    record["tags"].append(tag)
                    record["schema"] = entry(line.annotation, line.value)

properties = {}
for key, record in found.items():
    schema = dict(TYPES.get(key, record["schema"]))
    if key in ("pipe_parallel_size", "model_parallel_size"):
        schema["minimum"] = int(key == "model_parallel_size")
    if "v1.0" not in record["tags"] and "v2.0" in record["tags"]:
        schema["x-added-in"] = "2.0"
    if "HEAD" not in record["tags"]:
        schema["x-removed-in"] = "2.1"
        if key in RENAMED:
            schema["x-renamed-to"] = RENAMED[key]
    properties[key] = schema
properties = {**OLD, **properties}
for key in list(properties):
    if "_" in key:
        properties[key.replace("_", "-")] = {"$ref": f"#/properties/{key}", "x-alias-of": key}
write("gpt-neox", "GPT-NeoX files, 1.0 to 2.0", {"additionalProperties": False, "properties": dict(sorted(properties.items()))})
