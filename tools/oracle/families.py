"""Rows of tests/accuracy/families.jsonl: small models whose layers are of several builds, trained three steps.

    VENV/bin/python tools/oracle/families.py [FAMILY,FAMILY] > rows.jsonl

Each row holds a file in llmlint's own format and the peak of `torch.cuda.max_memory_allocated()` over the stub runtime.
"""

import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "derive"))
import tracing  # noqa: F401, restarts the process over the stub runtime
import families  # noqa: F401, installs what stands for flash-linear-attention
import models as M
import runner

L3 = ["linear_attention", "linear_attention", "linear_attention", "full_attention"]
S4 = ["sliding_attention", "full_attention"]
CONFIGS = {
    "qwen3_5": (
        "qwen3_5_text",
        dict(
            hidden_size=1024,
            intermediate_size=3584,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=256,
            vocab_size=50000,
            linear_num_key_heads=16,
            linear_num_value_heads=16,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            layer_types=L3 * 2,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "qwen3_5_moe": (
        "qwen3_5_moe_text",
        dict(
            hidden_size=1024,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=256,
            vocab_size=50000,
            linear_num_key_heads=8,
            linear_num_value_heads=16,
            linear_key_head_dim=128,
            linear_value_head_dim=128,
            layer_types=L3 * 2,
            moe_intermediate_size=512,
            shared_expert_intermediate_size=512,
            num_experts=16,
            num_experts_per_tok=4,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "gemma4": (
        "gemma4_text",
        dict(
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            head_dim=128,
            global_head_dim=256,
            num_global_key_value_heads=2,
            attention_k_eq_v=True,
            vocab_size=50000,
            hidden_size_per_layer_input=0,
            layer_types=["sliding_attention"] * 5 + ["full_attention"],
            sliding_window=4096,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "gemma4-ple": (
        "gemma4_text",
        dict(
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=10,
            num_attention_heads=8,
            num_key_value_heads=1,
            head_dim=128,
            global_head_dim=256,
            vocab_size=50000,
            vocab_size_per_layer_input=50000,
            hidden_size_per_layer_input=128,
            num_kv_shared_layers=4,
            use_double_wide_mlp=True,
            layer_types=(["sliding_attention"] * 4 + ["full_attention"]) * 2,
            sliding_window=4096,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "llama4": (
        "llama4_text",
        dict(
            hidden_size=1024,
            intermediate_size=2048,
            intermediate_size_mlp=4096,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            vocab_size=50000,
            num_local_experts=4,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
            layer_types=["full_attention"] * 6,
            pad_token_id=0,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "seed_oss": (
        "seed_oss",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=6,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=128,
            vocab_size=50000,
            attention_bias=True,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "glm4_moe": (
        "glm4_moe",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            moe_intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=128,
            n_routed_experts=16,
            n_shared_experts=1,
            num_experts_per_tok=4,
            first_k_dense_replace=1,
            n_group=1,
            topk_group=1,
            attention_bias=True,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "lfm2": (
        "lfm2",
        dict(
            hidden_size=1024,
            intermediate_size=4608,
            block_auto_adjust_ff_dim=False,
            num_hidden_layers=8,
            num_attention_heads=16,
            num_key_value_heads=8,
            vocab_size=50000,
            layer_types=["conv", "conv", "full_attention"] * 2 + ["conv", "full_attention"],
            conv_L_cache=3,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "olmo3": (
        "olmo3",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            vocab_size=50000,
            sliding_window=4096,
            layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 2,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "hunyuan": (
        "hunyuan_v1_dense",
        dict(
            hidden_size=1024,
            intermediate_size=3584,
            num_hidden_layers=8,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            vocab_size=50000,
            pad_token_id=0,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "apertus": (
        "apertus",
        dict(
            hidden_size=1024,
            intermediate_size=5376,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "exaone4": (
        "exaone4",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=8,
            num_attention_heads=16,
            num_key_value_heads=8,
            head_dim=64,
            vocab_size=50000,
            sliding_window=4096,
            layer_types=(["sliding_attention"] * 3 + ["full_attention"]) * 2,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "ernie4_5_moe": (
        "ernie4_5_moe",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            moe_intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            moe_num_experts=16,
            moe_k=4,
            moe_num_shared_experts=2,
            moe_layer_start_index=1,
            vocab_size=50000,
            pad_token_id=0,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "minimax_m2": (
        "minimax_m2",
        dict(
            hidden_size=1024,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=16,
            num_key_value_heads=4,
            head_dim=64,
            num_local_experts=16,
            num_experts_per_tok=4,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "afmoe": (
        "afmoe",
        dict(
            hidden_size=1024,
            intermediate_size=3072,
            moe_intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            num_experts=16,
            num_experts_per_tok=4,
            num_shared_experts=1,
            num_dense_layers=1,
            sliding_window=4096,
            layer_types=(["sliding_attention"] * 3 + ["full_attention"]) + ["sliding_attention"] * 2,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
}


def document(mt, fields, job, lora, ck):
    mixed = job["autocast"] != "none"
    wide = "fp32" if mixed else "bf16"
    training = {
        "method": "lora" if lora else "full",
        "weights": job["param_dtype"],
        "compute": "bf16",
        "autocast": mixed,
        "gradients": wide,
        "optimizer": "adamw",
        "optimizer_state": wide,
        "optimizer_implementation": "foreach",
        "micro_batch_size": 2,
        "sequence_length": 2048,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": None,
        "attention": "sdpa",
        "activation_checkpointing": ck,
        "loss": "full",
        "dropout": 0.0,
    }
    if lora:
        training["lora"] = {"rank": 16, "targets": ["q_proj", "v_proj"], "dtype": "fp32", "dropout": 0.0}
    model = {k: v for k, v in fields.items() if k != "pad_token_id"}
    return {"llmlint": 1, "model": dict(model, architecture=mt), "training": training, "parallelism": {"gpus": 1}}


def main():
    for name in sys.argv[1].split(",") if len(sys.argv) > 1 else CONFIGS:
        mt, fields = CONFIGS[name]
        M.R["_j"] = (mt, dict(fields))
        M.CLS["_j"] = "causal"
        for autocast, lora in (("none", 0), ("bf16", 0), ("bf16", 16)):
            for ck in ("none", "full"):
                job = dict(
                    model="_j",
                    micro_batch=2,
                    seq_len=2048,
                    param_dtype="bf16" if lora or autocast == "none" else "fp32",
                    autocast=autocast,
                    attn="sdpa",
                    steps=3,
                    optimizer="adamw",
                    ckpt=ck,
                    dropout=0.0,
                )
                if lora:
                    job.update(lora_r=16, lora_targets="q_proj+v_proj", lora_fp32=True)
                peak = runner.run(job)["peak"]
                print(
                    json.dumps(
                        {"family": name, "peak": peak, "document": document(mt, fields, job, lora, ck)},
                        separators=(",", ":"),
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
