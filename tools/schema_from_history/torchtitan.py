"""torchtitan's TOML schema over the whole history of its config classes.

    git clone --bare https://github.com/pytorch/torchtitan
    python tools/schema_from_history/torchtitan.py torchtitan.git

Until 2025-04 the keys were argparse options, then dataclasses; since 2026-02-23 there is no TOML.
"""

import ast

from common import entry, fields, git, literal, nest, write

LAST = "238fa9953"
MAIN = ["torchtitan/config/job_config.py", "torchtitan/config_manager.py", "torchtrain/config_manager.py"]
EXTENSIONS = [
    f"torchtitan/{place}/job_config.py"
    for place in (
        "models/flux",
        "experiments/flux",
        "experiments/simple_fsdp",
        "experiments/vlm",
        "experiments/transformers_modeling_backend",
        "experiments/compiler_toolkit",
        "components/ft/config",
        "experiments/autoparallel",
        "experiments/llama4",
    )
]
RELEASES = [("2025-06-17", "0.1.0"), ("2025-10-17", "0.2.0"), ("2025-12-26", "0.2.1"), ("2026-02-20", "0.2.2"), ("9999", "0.2.3")]


def release(date):
    return next(name for until, name in RELEASES if date <= until)


RENAMED = {"training.batch_size":"training.local_batch_size","training.data_parallel_degree":"parallelism.data_parallel_shard_degree",
"training.data_parallel_shard_degree":"parallelism.data_parallel_shard_degree","training.data_parallel_replicate_degree":"parallelism.data_parallel_replicate_degree",
"training.tensor_parallel_degree":"parallelism.tensor_parallel_degree","training.pipeline_parallel_degree":"parallelism.pipeline_parallel_degree",
"training.disable_loss_parallel":"parallelism.disable_loss_parallel","training.fsdp_reshard_after_forward":"parallelism.fsdp_reshard_after_forward",
"training.compile":"compile.enable","training.warmup_steps":"lr_scheduler.warmup_steps","training.deterministic":"debug.deterministic","training.seed":"debug.seed",
"training.debug_moe_force_load_balance":"debug.moe_force_load_balance","training.classifer_free_guidance_prob":"training.classifier_free_guidance_prob",
"checkpoint.enable_checkpoint":"checkpoint.enable","checkpoint.initial_load_model_weights_only":"checkpoint.initial_load_model_only","checkpoint.last_save_in_safetensors_format":"checkpoint.last_save_in_hf",
"checkpoint.last_save_model_weights_only":"checkpoint.last_save_model_only","checkpoint.model_weights_only":"checkpoint.last_save_model_only",
"memory_estimation.enabled":"memory_estimation.enable","validation.enabled":"validation.enable","metrics.rank_0_only":"metrics.save_for_all_ranks",
"metrics.enable_color_printing":"metrics.disable_color_printing","job.print_args":"job.print_config","job.save_config_folder":"job.save_config_file",
"lr_scheduler.lr_min":"lr_scheduler.min_lr_factor","optimizer.fused":"optimizer.implementation","model.tokenizer_path":"model.hf_assets_path",
"experimental.custom_args_module":"job.custom_config_module","experimental.custom_model_path":"experimental.custom_import"}
for k in ["context_parallel_degree","context_parallel_rotate_method","enable_async_tensor_parallel","enable_compiled_autograd","pipeline_parallel_degree","pipeline_parallel_schedule","pipeline_parallel_schedule_csv","pipeline_parallel_split_points"]:
    RENAMED["experimental."+k]="parallelism."+k
for k in ["experimental","parallelism"]: RENAMED[k+".pipeline_parallel_microbatches"]="parallelism.pipeline_parallel_microbatch_size"
RENAMED["parallelism.pipeline_parallel_split_points"]="parallelism.module_fqns_per_model_part"
for k in ["emulate","enable_fsdp_float8_all_gather","filter_fqns","precompute_float8_dynamic_scale_for_fsdp","recipe_name"]:
    RENAMED["float8."+k]="quantize.linear.float8."+k; RENAMED["quantize.dense.float8."+k]="quantize.linear.float8."+k
RENAMED["float8.moe_fqns_prototype"]="quantize.grouped_mm.float8.fqns"; RENAMED["quantize.moe.float8.fqns"]="quantize.grouped_mm.float8.fqns"; RENAMED["quantize.moe.mx.fqns"]="quantize.grouped_mm.mx.fqns"
for k in ["filter_fqns","mxfp8_dim1_cast_kernel_choice","recipe_name"]:
    RENAMED["mx."+k]="quantize.linear.mx."+k; RENAMED["quantize.dense.mx."+k]="quantize.linear.mx."+k
RENAMED["mx.moe_fqns_prototype"]="quantize.grouped_mm.mx.fqns"
for k in ["classifier_free_guidance_scale","denoising_steps","enable_classifier_free_guidance","eval_freq","save_img_folder"]: RENAMED["eval."+k]="validation."+k
RENAMED["eval.enable_classifer_free_guidance"]="validation.enable_classifier_free_guidance"
RENAMED["training.enable_loss_parallel"]="parallelism.disable_loss_parallel"
VALUE_CHANGES = {"metrics.enable_color_printing","metrics.rank_0_only","optimizer.fused","experimental.pipeline_parallel_microbatches","parallelism.pipeline_parallel_microbatches","training.enable_loss_parallel","parallelism.pipeline_parallel_split_points","experimental.pipeline_parallel_split_points","checkpoint.model_weights_only","lr_scheduler.lr_min","model.tokenizer_path","experimental.custom_model_path","checkpoint.last_save_in_safetensors_format"}
DESCRIPTIONS = {"training.local_batch_size":"Sequences a rank takes per optimizer micro-step.","training.global_batch_size":"Sequences a step over all ranks; -1: no accumulation.",
"training.seq_len":"Tokens a sequence.","training.dtype":"Storage of weights, gradients and optimizer states.","training.mixed_precision_param":"Compute precision under FSDP or autocast.",
"training.enable_cpu_offload":"Sharded weights, gradients and states live in host memory.","model.flavor":"Row of the model's size table.","model.name":"Model family.",
"activation_checkpoint.mode":"Which activations are recomputed.","activation_checkpoint.selective_ac_option":"A number n: every n-th layer in full; op: by operation.",
"parallelism.data_parallel_shard_degree":"FSDP ranks; -1: whatever is left.","parallelism.data_parallel_replicate_degree":"Replicas of the sharded model.",
"parallelism.fsdp_reshard_after_forward":"Whether gathered weights are freed after a layer's forward.","parallelism.pipeline_parallel_microbatch_size":"Sequences of one pipeline micro-batch.",
"optimizer.early_step_in_backward":"Step each tensor inside backward and free its gradient at once."}


def flatten(classes, root, prefix=()):
    keys = {}
    for name, (annotation, value) in classes.get(root, {}).items():
        inner = getattr(annotation, "id", None)
        if inner in classes:
            keys.update(flatten(classes, inner, (*prefix, name)))
        else:
            keys[(*prefix, name)] = entry(annotation, value)
    return keys


def options(source):
    """Keys of `add_argument("--section.key", …)` calls."""
    keys = {}
    kinds = {"str": "string", "int": "integer", "float": "number"}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument" and node.args):
            continue
        name = literal(node.args[0])
        if not isinstance(name, str) or "." not in name:
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        if literal(given.get("action")) in ("store_true", "store_false"):
            schema = {"type": "boolean", "default": bool(literal(given.get("default")))}
        elif "choices" in given:
            schema = {"enum": literal(given["choices"])}
        else:
            kind = ast.unparse(given["type"]) if "type" in given else "str"
            listed = {"type": ["array", "string"]}
            schema = listed if kind == "string_list" else {"type": kinds.get(kind, "number" if "float" in kind else "string")}
        default = literal(given.get("default"))
        if default is not None:
            schema["default"] = default
        keys[tuple(name[2:].split("."))] = schema
    return keys


def keys_at(commit):
    keys = {}
    for path in MAIN:
        source = git("show", f"{commit}:{path}")
        if source:
            classes = fields(source)
            keys.update(flatten(classes, "JobConfig") if classes.get("JobConfig") else options(source))
    for path in EXTENSIONS:
        source = git("show", f"{commit}:{path}")
        if source:
            classes = fields(source)
            for key, schema in flatten(classes, "JobConfig").items():
                keys.setdefault(key, schema)
            for key, schema in flatten(classes, "FaultTolerance", ("fault_tolerance",)).items():
                keys.setdefault(key, schema)
    return keys


def history():
    """`key -> first date, date of removal, its schemas over time`."""
    found, alive = {}, set()
    log = git("log", "--reverse", "--format=%h %ad", "--date=short", LAST, "--", *MAIN, *EXTENSIONS)
    for commit, date in (line.split() for line in log.splitlines()):
        keys = keys_at(commit) if date >= "2024-05-01" else {}
        if len(keys) < 30:
            continue
        for key, schema in keys.items():
            record = found.setdefault(key, {"first": date, "schemas": []})
            record.pop("removed", None)
            if not record["schemas"] or record["schemas"][-1] != schema:
                record["schemas"].append(schema)
        for key in alive - set(keys):
            found[key]["removed"] = date
        alive = set(keys)
    return found


# What no class says: looser types that old files need, and spellings that only the code knows.
TYPES = {
    "model.norm_type": {"enum": ["layernorm", "np_layernorm", "rmsnorm", "fused_rmsnorm", "compiled_rmsnorm"], "default": "rmsnorm"},
    "training.fp8_linear": {"type": ["string", "boolean"], "default": False},
    "training.enable_cpu_offload": {"type": "boolean", "default": False},
    "activation_checkpoint.selective_ac_option": {"type": ["string", "integer"], "default": "2"},
    "experimental.pipeline_parallel_microbatches": {"type": "integer"},
    "parallelism.pipeline_parallel_microbatches": {"type": "integer"},
    "experimental.pipeline_parallel_schedule": {"type": "string", "default": "1F1B"},
    "model.converters": {"type": ["array", "string"], "items": {"type": "string"}, "default": []},
}
SHARDS = ("data_parallel_shard_degree", "data_parallel_degree")

properties = {}
for key, record in sorted(history().items()):
    name = ".".join(key)
    schema = dict(TYPES.get(name) or record["schemas"][-1])
    if "enum" in schema and name not in TYPES:
        older = {word for past in record["schemas"] for word in past.get("enum", [])}
        schema["enum"] = schema["enum"] + sorted(older - set(schema["enum"]))
    if key[-1] in SHARDS:
        schema["anyOf"] = [{"const": -1}, {"minimum": 1}]
    elif name.endswith("_degree") or name in ("training.seq_len", "training.local_batch_size", "training.batch_size"):
        schema["minimum"] = 1
    if name in DESCRIPTIONS:
        schema = {"description": DESCRIPTIONS[name], **schema}
    if record["first"] > "2024-05-31":
        schema["x-added-in"] = release(record["first"])
    if "removed" in record:
        schema["deprecated"] = True
        schema["x-removed-in"] = release(record["removed"])
    elif name in RENAMED:
        schema["deprecated"] = True
    if name in RENAMED:
        schema["x-renamed-to"] = RENAMED[name]
    if name in VALUE_CHANGES:
        schema["x-value-changes"] = True
    nest(properties, key, schema)
write(
    "torchtitan",
    "torchtitan job file (TOML, 2024-05 to 0.2.2)",
    {"additionalProperties": False, "properties": properties},
)
