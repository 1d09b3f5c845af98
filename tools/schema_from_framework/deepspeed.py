"""Writes schemas/deepspeed.schema.json from an installed or unpacked DeepSpeed.

    python tools/schema_from_framework/deepspeed.py /tmp/DeepSpeed 0.19.8

The sub-models are strict (DeepSpeed refuses unknown keys there) and come from DeepSpeed; the keys
at the top, which it reads one by one and where it ignores the rest, are listed here.
"""

import importlib
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import pydantic_schema as tool  # noqa: E402

# Sections that are pydantic models: key at the top, module, class.
SECTIONS = [
    ("zero_optimization", "deepspeed.runtime.zero.config", "DeepSpeedZeroConfig"),
    ("bf16", "deepspeed.runtime.precision_config", "DeepSpeedBF16Config"),
    ("fp16", "deepspeed.runtime.precision_config", "DeepSpeedFP16Config"),
    ("compile", "deepspeed.compile.config", "CompileConfig"),
]

INTEGER, NUMBER, BOOL, TEXT = {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"type": "string"}
MAPPING = {"type": "object"}


def mapping(**properties):
    return {"type": "object", "properties": properties}


# runtime/constants.py and runtime/config.py; `auto` is Hugging Face's.
TOP = {
    "train_batch_size": INTEGER,
    "train_micro_batch_size_per_gpu": INTEGER,
    "gradient_accumulation_steps": INTEGER,
    "gradient_clipping": NUMBER,
    "gradient_predivide_factor": NUMBER,
    "gradient_allreduce_op": {"enum": ["mean", "sum"], "default": "mean"},
    "prescale_gradients": BOOL,
    "steps_per_print": NUMBER,
    "wall_clock_breakdown": BOOL,
    "memory_breakdown": BOOL,
    "dump_state": BOOL,
    "disable_allgather": BOOL,
    "dataloader_drop_last": BOOL,
    "zero_allow_untested_optimizer": BOOL,
    "zero_force_ds_cpu_optimizer": BOOL,
    "communication_data_type": TEXT,
    "seq_parallel_communication_data_type": TEXT,
    "disable_python_gc": BOOL,
    "managed_gradient_accumulation": BOOL,
    "optimizer": mapping(type=TEXT, params=MAPPING, legacy_fusion=BOOL),
    "scheduler": mapping(type=TEXT, params=MAPPING),
    "torch_autocast": mapping(
        enabled=BOOL, dtype=TEXT, lower_precision_safe_modules={"type": "array", "items": TEXT}
    ),
    "data_types": mapping(grad_accum_dtype={"enum": ["fp32", "fp16", "bf16"]}),
    "activation_checkpointing": mapping(
        partition_activations=BOOL,
        contiguous_memory_optimization=BOOL,
        cpu_checkpointing=BOOL,
        number_checkpoints=INTEGER,
        synchronize_checkpoint_boundary=BOOL,
        profile=BOOL,
    ),
    "tensor_parallel": mapping(autotp_size=INTEGER),
    "aio": MAPPING,
    "autotuning": MAPPING,
    "checkpoint": MAPPING,
    "comms_logger": MAPPING,
    "csv_monitor": MAPPING,
    "data_efficiency": MAPPING,
    "flops_profiler": MAPPING,
    "hybrid_engine": MAPPING,
    "expert_parallel": MAPPING,
    "pipeline": MAPPING,
    "tensorboard": MAPPING,
    "wandb": MAPPING,
}

# Keys that are refused since the release named (runtime/config.py, `_REMOVED_TOP_LEVEL_CONFIG_KEYS`).
REMOVED = {
    "nebula": (MAPPING, "0.19.7", None),
    "compression_training": (MAPPING, "0.19.7", None),
    "quantize_training": (MAPPING, "0.19.7", None),
    "sparse_attention": ({}, "0.19.7", None),
    "amp": (mapping(enabled=BOOL), "0.19.8", "use `fp16`, `bf16` or `torch_autocast`"),
    "sparse_gradients": (BOOL, "0.19.8", "drop it; embeddings made with `sparse=True` need no key"),
    "eigenvalue": (MAPPING, "0.19.8", None),
    "elasticity": (MAPPING, "0.19.8", "set the batch sizes directly"),
    "graph_harvesting": (BOOL, "0.19.8", None),
    "curriculum_learning": (MAPPING, "0.19.8", "use `data_efficiency.data_sampling.curriculum_learning`"),
    "progressive_layer_drop": (MAPPING, "0.19.8", None),
}


class Replaced(tool.StandIns):
    def __init__(self, root):
        super().__init__("deepspeed")
        self.root = root
        self.names = {"deepspeed", "deepspeed.utils", "deepspeed.runtime", "deepspeed.runtime.zero",
                      "deepspeed.compile", "deepspeed.runtime.zenflow", "deepspeed.runtime.fp16"}

    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            return tool.importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def exec_module(self, module):
        module.__path__ = [os.path.join(self.root, module.__name__.replace(".", "/"))]


class Empty(tool.StandIns):
    """Modules that probe the machine when they are loaded, and that no config class needs."""

    def find_spec(self, name, path=None, target=None):
        return super().find_spec(name, path, target) if name in self.replaced else None


def with_auto(schema):
    """Hugging Face fills `auto` in, and DeepSpeed drops what is left of it."""
    if "$ref" in schema or schema.get("type") == "object":
        return schema
    facts = {k: schema.pop(k) for k in list(schema) if k == "default" or k.startswith("x-") or k == "deprecated"}
    if not schema:
        return facts
    if "enum" in schema:
        return {"enum": schema["enum"] + ["auto"]} | facts
    return {"anyOf": [{"enum": ["auto"]}, schema]} | facts


def strict(model, marks):
    for name, entry in list(model["properties"].items()):
        new = entry.pop("new_param", None)
        for extra in ("new_param_fn", "set_new_param", "deprecated_msg"):
            entry.pop(extra, None)
        if entry.get("deprecated") and new:
            entry["x-instead"] = f"use `{new}`"
        model["properties"][name] = with_auto(entry)
    model["additionalProperties"] = False
    model.pop("required", None)


def main():
    root, version = sys.argv[1], sys.argv[2]
    import pydantic  # noqa: F401  before the stand-ins

    sys.path.insert(0, root)
    sys.meta_path.insert(0, Replaced(root))
    sys.meta_path.insert(0, Empty("deepspeed", {"deepspeed.runtime.utils"}))
    sys.meta_path.append(tool.StandIns("deepspeed"))
    schema = {"type": "object", "properties": {}, "$defs": {}}
    for key, module, name in SECTIONS:
        part = tool.strip(tool.json_schema(getattr(importlib.import_module(module), name)), {})
        schema["$defs"].update(part.pop("$defs", {}))
        schema["$defs"][name] = part
        schema["properties"][key] = {"$ref": f"#/$defs/{name}"}
    for name, model in schema["$defs"].items():
        if "properties" in model:
            strict(model, {})
    schema["properties"]["bfloat16"] = {"$ref": "#/$defs/DeepSpeedBF16Config", "x-alias-of": "bf16"}
    for key, entry in TOP.items():
        schema["properties"][key] = with_auto(json.loads(json.dumps(entry)))
    for key, (entry, release, instead) in REMOVED.items():
        marks = {"x-removed-in": release} | ({"x-instead": instead} if instead else {})
        schema["properties"][key] = with_auto(entry | marks)
    schema["properties"] = {k: schema["properties"][k] for k in sorted(schema["properties"])}
    with open(os.path.join(HERE, "deepspeed.marks.json"), encoding="utf-8") as file:
        tool.merge_marks(schema, json.load(file))
    out = os.path.join(HERE, "../../schemas/deepspeed.schema.json")
    tool.write(tool.close_references(schema), f"DeepSpeed config (JSON), keys of {version}", out)


main()
