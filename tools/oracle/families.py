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
import mamba_like
import models as M
import runner

mamba_like.SM[0] = 132  # an H100's; deriving takes more

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
    "falcon_h1": (
        "falcon_h1",
        dict(
            hidden_size=1024,
            intermediate_size=2048,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=32784,
            mamba_d_ssm=1536,
            mamba_n_heads=24,
            mamba_d_head=64,
            mamba_n_groups=1,
            mamba_d_state=128,
            mamba_chunk_size=128,
            mamba_rms_norm=False,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
    ),
    "jamba": (
        "jamba",
        dict(
            hidden_size=1024,
            intermediate_size=2560,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=2,
            vocab_size=50000,
            num_experts=8,
            num_experts_per_tok=2,
            expert_layer_period=2,
            expert_layer_offset=1,
            attn_layer_period=8,
            attn_layer_offset=4,
            mamba_expand=2,
            mamba_d_state=16,
            mamba_d_conv=4,
            mamba_dt_rank=64,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
    ),
    "nemotron_h": (
        "nemotron_h",
        dict(
            hidden_size=1024,
            intermediate_size=1024,
            layer_types=[
                "linear_attention",
                "moe",
                "linear_attention",
                "moe",
                "linear_attention",
                "full_attention",
                "moe",
                "linear_attention",
            ],
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            mamba_num_heads=32,
            mamba_head_dim=64,
            n_groups=8,
            ssm_state_size=128,
            chunk_size=128,
            moe_intermediate_size=512,
            moe_shared_expert_intermediate_size=1024,
            n_routed_experts=16,
            num_experts_per_tok=4,
            n_group=1,
            topk_group=1,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
    ),
    "nemotron_h-dense": (
        "nemotron_h",
        dict(
            hidden_size=1024,
            intermediate_size=5120,
            layer_types=[
                "linear_attention",
                "mlp",
                "linear_attention",
                "mlp",
                "linear_attention",
                "full_attention",
                "mlp",
                "linear_attention",
            ],
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            mamba_num_heads=32,
            mamba_head_dim=64,
            n_groups=8,
            ssm_state_size=128,
            chunk_size=128,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
    ),
    "granite4": (
        "granitemoehybrid",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            shared_intermediate_size=4096,
            num_local_experts=0,
            num_experts_per_tok=0,
            num_hidden_layers=8,
            layer_types=["mamba"] * 5 + ["attention"] + ["mamba"] * 2,
            num_attention_heads=16,
            num_key_value_heads=4,
            mamba_expand=2,
            mamba_n_heads=32,
            mamba_d_head=64,
            mamba_n_groups=1,
            mamba_d_state=128,
            mamba_chunk_size=256,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            position_embedding_type="nope",
            pad_token_id=0,
        ),
    ),
    "granite4-moe": (
        "granitemoehybrid",
        dict(
            hidden_size=1024,
            intermediate_size=512,
            shared_intermediate_size=1024,
            num_local_experts=16,
            num_experts_per_tok=4,
            num_hidden_layers=8,
            layer_types=["mamba"] * 5 + ["attention"] + ["mamba"] * 2,
            num_attention_heads=8,
            num_key_value_heads=2,
            mamba_expand=2,
            mamba_n_heads=32,
            mamba_d_head=64,
            mamba_n_groups=1,
            mamba_d_state=128,
            mamba_chunk_size=256,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            position_embedding_type="nope",
            pad_token_id=0,
        ),
    ),
    "kimi_linear": (
        "kimi_linear",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            moe_intermediate_size=512,
            num_hidden_layers=8,
            num_attention_heads=8,
            num_key_value_heads=8,
            kv_lora_rank=256,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            linear_num_heads=8,
            linear_head_dim=128,
            num_local_experts=16,
            num_experts_per_tok=4,
            n_shared_experts=1,
            layer_types=L3 * 2,
            mlp_layer_types=["dense"] + ["sparse"] * 7,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
            pad_token_id=0,
        ),
    ),
    "gemma3n": (
        "gemma3n_text",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=15,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            vocab_size=50000,
            vocab_size_per_layer_input=50000,
            hidden_size_per_layer_input=128,
            num_kv_shared_layers=5,
            laurel_rank=32,
            layer_types=(["sliding_attention"] * 4 + ["full_attention"]) * 3,
            sliding_window=4096,
            activation_sparsity_pattern=[0.95] * 5 + [0.0] * 10,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            pad_token_id=0,
        ),
    ),
    "dbrx": (
        "dbrx",
        dict(
            d_model=1024,
            n_heads=8,
            n_layers=6,
            max_seq_len=8192,
            vocab_size=50000,
            attn_config=dict(kv_n_heads=2, clip_qkv=8, rope_theta=10000.0),
            ffn_config=dict(ffn_hidden_size=512, moe_num_experts=16, moe_top_k=4, hidden_size=1024),
        ),
    ),
    "hunyuan_moe": (
        "hunyuan_v1_moe",
        dict(
            hidden_size=1024,
            intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=128,
            num_experts=16,
            moe_topk=4,
            num_shared_expert=1,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            pad_token_id=0,
        ),
    ),
    "lfm2_moe": (
        "lfm2_moe",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            moe_intermediate_size=512,
            num_experts=16,
            num_experts_per_tok=4,
            num_dense_layers=2,
            num_hidden_layers=8,
            num_attention_heads=16,
            num_key_value_heads=4,
            layer_types=["conv", "conv", "full_attention"] * 2 + ["conv", "full_attention"],
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
        ),
    ),
    "mpt": (
        "mpt",
        dict(d_model=1024, n_heads=16, expansion_ratio=4, vocab_size=50000, max_seq_len=8192, no_bias=True, n_layers=6),
    ),
    "deepseek_v3": (
        "deepseek_v3",
        dict(
            hidden_size=1024,
            intermediate_size=4096,
            moe_intermediate_size=512,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=8,
            n_routed_experts=16,
            n_shared_experts=1,
            num_experts_per_tok=4,
            first_k_dense_replace=1,
            kv_lora_rank=256,
            q_lora_rank=384,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            n_group=1,
            topk_group=1,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=False,
        ),
    ),
    "minicpm3": (
        "minicpm3",
        dict(
            hidden_size=1024,
            intermediate_size=3072,
            num_hidden_layers=8,
            num_attention_heads=16,
            num_key_value_heads=16,
            kv_lora_rank=256,
            q_lora_rank=384,
            qk_nope_head_dim=64,
            qk_rope_head_dim=32,
            v_head_dim=64,
            vocab_size=50000,
            max_position_embeddings=8192,
            tie_word_embeddings=True,
            pad_token_id=0,
        ),
    ),
}

# What their adapters are on, where it is not q_proj and v_proj.
ADAPTED = {
    "falcon_h1": "q_proj+k_proj+v_proj+o_proj+in_proj+gate_proj+up_proj+down_proj",
    "jamba": "q_proj+k_proj+v_proj+o_proj+in_proj+x_proj+out_proj",
    "nemotron_h": "q_proj+k_proj+v_proj+o_proj+in_proj",
    "nemotron_h-dense": "q_proj+k_proj+v_proj+o_proj+in_proj+up_proj+down_proj",
    "granite4": "q_proj+k_proj+v_proj+o_proj+in_proj+input_linear+output_linear",
    "granite4-moe": "q_proj+k_proj+v_proj+o_proj+in_proj",
    "kimi_linear": "q_proj+k_proj+v_proj+o_proj",
    "gemma3n": "q_proj+k_proj+v_proj+o_proj+gate_proj+up_proj+down_proj",
    "dbrx": "Wqkv+out_proj",
    "hunyuan_moe": "q_proj+k_proj+v_proj+o_proj",
    "lfm2_moe": "q_proj+k_proj+v_proj+in_proj",
    "mpt": "Wqkv+out_proj+up_proj+down_proj",
    "deepseek_v3": "q_b_proj+kv_b_proj+o_proj",
    "minicpm3": "q_b_proj+kv_b_proj+o_proj",
    "arcee": "q_proj+k_proj+v_proj+o_proj+up_proj+down_proj",
}
# Families without a fused attention.
EAGER = {"mpt"}


def document(mt, fields, job, targets, ck):
    mixed = job["autocast"] != "none"
    wide = "fp32" if mixed else "bf16"
    training = {
        "method": "lora" if targets else "full",
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
        "attention": job["attn"],
        "activation_checkpointing": ck,
        "loss": "full",
        "dropout": 0.0,
    }
    if targets:
        training["lora"] = {"rank": 16, "targets": targets.split("+"), "dtype": "fp32", "dropout": 0.0}
    if job.get("quant", "none") != "none":
        training["quantization"] = {"nf4": "nf4-double"}.get(job["quant"], job["quant"])
    model = {k: v for k, v in fields.items() if k != "pad_token_id"}
    return {"llmlint": 1, "model": dict(model, architecture=mt), "training": training, "parallelism": {"gpus": 1}}


def flat_inputs():
    """transformers 5.23 gives latent attention's kv_b_proj four dimensions, which LLM.int8 refuses; earlier ones three."""
    import bitsandbytes as bnb

    c = bnb.nn.Linear8bitLt
    forward = c.forward
    c.forward = lambda m, x: forward(m, x.flatten(0, -3)).unflatten(0, x.shape[:-2]) if x.dim() > 3 else forward(m, x)


def main():
    flat_inputs()
    for name in sys.argv[1].split(",") if len(sys.argv) > 1 else CONFIGS:
        mt, fields = CONFIGS[name]
        M.R["_j"] = (mt, dict(fields))
        M.CLS["_j"] = "causal"
        adapted = [("bf16", 16, q) for q in (("none", "nf4", "int8") if name in ADAPTED else ("none",))]
        for autocast, lora, quant in (("none", 0, "none"), ("bf16", 0, "none"), *adapted):
            targets = ADAPTED.get(name, "q_proj+v_proj") if lora else ""
            for ck in ("none", "full"):
                job = dict(
                    model="_j",
                    micro_batch=2,
                    seq_len=2048,
                    param_dtype="bf16" if lora or autocast == "none" else "fp32",
                    autocast=autocast,
                    attn="eager" if name in EAGER else "sdpa",
                    steps=3,
                    optimizer="adamw",
                    ckpt=ck,
                    dropout=0.0,
                )
                if lora:
                    job.update(lora_r=16, lora_targets=targets, lora_fp32=True, quant=quant)
                try:
                    peak = runner.run(job)["peak"]
                except Exception as why:
                    print(name, targets, quant, repr(why)[:200], file=sys.stderr, flush=True)
                    continue
                print(
                    json.dumps(
                        {"family": name, "peak": peak, "document": document(mt, fields, job, targets, ck)},
                        separators=(",", ":"),
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
