"""Rows of tests/data/small-models.jsonl: small models with random dimensions, built on the meta device.

    VENV/bin/python tools/oracle/small_models.py FAMILY... >> tests/data/small-models.jsonl

Each row holds the config, sums over the module's `named_parameters()`, and what PEFT makes trainable.
"""

import json
import random
import sys
import warnings

warnings.filterwarnings("ignore")

import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.initialization import no_init_weights

transformers.logging.set_verbosity_error()
pick = random.choice


def common():
    heads = pick([2, 4, 6])
    return dict(
        hidden_size=heads * pick([16, 24]),
        num_attention_heads=heads,
        num_key_value_heads=pick([1, 2, heads]),
        intermediate_size=pick([40, 56, 88]),
        num_hidden_layers=pick([2, 3, 4]),
        vocab_size=pick([97, 131]),
        tie_word_embeddings=pick([True, False]),
    )


def headed():
    return dict(common(), head_dim=pick([8, 20]))


def latent():
    config = common()
    config.update(num_key_value_heads=config["num_attention_heads"], q_lora_rank=pick([12, 20]))
    config.update(kv_lora_rank=pick([10, 14]), qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=10)
    return config


def moe(config, experts="num_experts", **more):
    return dict(config, **{experts: 5}, num_experts_per_tok=2, moe_intermediate_size=pick([24, 36]), **more)


def types(config, *kinds):
    return dict(config, layer_types=[pick(kinds) for _ in range(config["num_hidden_layers"] - 1)] + [kinds[-1]])


def mamba(config, **more):
    return dict(config, mamba_n_groups=pick([1, 2]), mamba_d_state=pick([8, 12]), mamba_d_conv=4, **more)


def falcon_h1():
    heads, width = pick([2, 4]), pick([12, 20])
    config = mamba(headed(), mamba_d_ssm=heads * width, mamba_n_heads=heads, mamba_d_head=width)
    return dict(config, mamba_rms_norm=pick([True, False]), projectors_bias=False)


def granite():
    config = common()
    config = mamba(types(config, "mamba", "attention"), mamba_n_heads=4, mamba_expand=2, mamba_d_head="auto")
    config.update(num_local_experts=pick([0, 5]), num_experts_per_tok=2, shared_intermediate_size=44)
    return dict(config, position_embedding_type="rope")


def jamba():
    config = mamba(dict(common(), num_hidden_layers=4), mamba_expand=2, num_experts=5, num_experts_per_tok=2)
    config.pop("mamba_n_groups")
    return dict(config, attn_layer_period=pick([2, 4]), attn_layer_offset=1)


def nemotron_h():
    config = headed()
    config.pop("num_hidden_layers")
    config.update(layers_block_type=["mamba", "attention", "moe", "mlp", "mamba"], n_routed_experts=5)
    config.update(moe_intermediate_size=28, moe_shared_expert_intermediate_size=36, n_shared_experts=pick([1, 2]))
    return dict(config, mamba_num_heads=4, mamba_head_dim=12, ssm_state_size=8, n_groups=2, num_experts_per_tok=2)


def gemma4():
    config = types(headed(), "sliding_attention", "full_attention")
    config.update(sliding_window=16, global_head_dim=pick([12, 28]), hidden_size_per_layer_input=0)
    kind = pick(["plain", "per-layer", "experts", "one"])
    if kind == "per-layer":
        config.update(hidden_size_per_layer_input=12, vocab_size_per_layer_input=83, use_double_wide_mlp=pick([True, False]))
        config.update(num_hidden_layers=4, num_kv_shared_layers=2)
        config["layer_types"] = ["sliding_attention", "full_attention"] * 2
    if kind == "experts":
        config.update(enable_moe_block=True, num_experts=5, top_k_experts=2, moe_intermediate_size=28)
    if kind == "one":
        config.update(attention_k_eq_v=True, num_global_key_value_heads=1)
    return config


def gemma3n():
    config = dict(headed(), num_hidden_layers=4, num_kv_shared_layers=2, sliding_window=16, laurel_rank=6)
    config.update(hidden_size_per_layer_input=12, vocab_size_per_layer_input=83)
    return dict(config, activation_sparsity_pattern=[0.0] * 4, layer_types=["sliding_attention", "full_attention"] * 2)


def kimi():
    config = latent()
    config.update(q_lora_rank=None, num_local_experts=5, num_experts_per_tok=2, moe_intermediate_size=24)
    config.update(linear_head_dim=12, linear_num_heads=3, pad_token_id=0, num_hidden_layers=3)
    return dict(config, layer_types=["linear_attention", "linear_attention", "full_attention"])


def lfm2():
    return types(common(), "conv", "full_attention") | {"block_auto_adjust_ff_dim": pick([True, False]), "block_multiple_of": 8}


FAMILIES = {
    "seed_oss": lambda: dict(headed(), attention_out_bias=pick([True, False])),
    "ernie4_5": lambda: dict(headed(), use_bias=pick([True, False])),
    "ernie4_5_moe": lambda: dict(headed(), moe_num_experts=5, moe_k=2, moe_intermediate_size=24, moe_layer_start_index=1),
    "hunyuan_v1_dense": lambda: dict(headed(), pad_token_id=0),
    "hunyuan_v1_moe": lambda: dict(headed(), num_experts=5, moe_topk=2, pad_token_id=0),
    "arcee": headed,
    "apertus": common,
    "nemotron": headed,
    "nemotron_h": nemotron_h,
    "exaone4": lambda: types(headed(), "sliding_attention", "full_attention"),
    "glm4_moe_lite": lambda: moe(latent(), "n_routed_experts", pad_token_id=0),
    "minicpm3": lambda: dict(latent(), pad_token_id=0),
    "minimax_m2": lambda: dict(headed(), num_local_experts=5, num_experts_per_tok=2),
    "afmoe": lambda: types(moe(headed(), num_shared_experts=pick([1, 2]), num_dense_layers=1), "full_attention"),
    "granitemoe": lambda: dict(common(), num_local_experts=5, num_experts_per_tok=2),
    "granitemoehybrid": granite,
    "lfm2": lfm2,
    "lfm2_moe": lambda: types(moe(common(), num_dense_layers=1), "conv", "full_attention"),
    "falcon_h1": falcon_h1,
    "jamba": jamba,
    "kimi_linear": kimi,
    "gemma3n_text": gemma3n,
    "gemma4_text": gemma4,
}


def build(config):
    config = dict(config)
    own = AutoConfig.for_model(config.pop("model_type"), **config)
    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(own)
    model.tie_weights()
    return model


def sums(model):
    named = [(n, p) for n, p in model.named_parameters()]
    layers = {}
    for name, p in named:
        parts = name.split(".layers.")
        if len(parts) == 2:
            layers.setdefault(parts[1].split(".")[0], []).append(p)
    inner = [p for ps in layers.values() for p in ps]
    size = lambda ps: sum(p.numel() for p in ps)
    everything = [p for _, p in named]
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    factored = lambda p: p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.dim() > 1 else p.numel()
    per_layer = [p for n, p in named if "embed_tokens_per_layer" in n]
    return dict(
        P=size(everything),
        P_layers=size(inner),
        P_layer=max(size(ps) for ps in layers.values()),
        P_layer_mm=size(p for p in inner if p.dim() == 2),
        P_emb=embedding.numel() + size(per_layer),
        P_head=0 if head is embedding else head.numel(),
        n_tensors=len(everything),
        biggest=max(p.numel() for p in everything),
        P_1d=size(p for p in everything if p.dim() == 1),
        P_small=size(p for p in everything if p.numel() < 4096),
        adafactor=sum(factored(p) for p in everything),
        P_quantizable=size(
            m.weight for m in model.modules() if type(m) is torch.nn.Linear and m is not model.get_output_embeddings()
        ),
    )


def adapted(config, rank, targets):
    model = build(config)
    lora = LoraConfig(r=rank, target_modules=targets, task_type=None)
    model = get_peft_model(model, lora)
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def main():
    random.seed(23)
    for family in sys.argv[1:] or FAMILIES:
        for _ in range(4):
            config = dict(model_type=family, **FAMILIES[family]())
            row = dict(model_type=family, config=config, **sums(build(config)), lora=[])
            for rank, targets in ((3, ["q_proj", "v_proj"]), (5, ["o_proj", "down_proj", "gate_proj"])):
                trial = dict(r=rank, targets=targets, dora=False, save=[])
                try:
                    row["lora"].append(dict(trial, trainable=adapted(config, rank, targets)))
                except ValueError:
                    pass
            print(json.dumps(row, separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main()
