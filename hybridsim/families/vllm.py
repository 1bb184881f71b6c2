"""A config.json in the words that vLLM reads, for the families that it serves.

Sources: vllm-project/vllm, model_executor/models/registry.py (0002bff) for the classes it has, and
transformers_utils/configs/kimi_linear.py (6b06599) for the one configuration whose words are not
those of transformers. A config alone is served with random weights, which is all that a benchmark
of times needs: `vllm serve FOLDER --load-format dummy --skip-tokenizer-init`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hybridsim.errors import SpecError
from hybridsim.families.convert import Exported, import_config, model_differences
from hybridsim.families.shared import ffn_of, has_mixer, mixer_of
from hybridsim.spec.schema import ModelSpec

Config = dict[str, Any]


def _same(spec: ModelSpec, config: Config) -> Config:
    return config


def _minimax(spec: ModelSpec, config: Config) -> Config:
    """Say that the residual starts at the norm's output, which transformers takes for granted."""
    return config | {"postnorm": True}


def _kimi_linear(spec: ModelSpec, config: Config) -> Config:
    """Return the words of the published config: layers counted from 1, its own names of experts."""
    moe = ffn_of(spec, "moe")
    taken = {key: value for key, value in config.items() if key not in _KIMI_REPLACED}
    return taken | {
        "model_max_length": spec.native_context,
        "head_dim": spec.hidden_size // config["num_attention_heads"],
        "first_k_dense_replace": _leading_dense(spec, config["mlp_layer_types"]),
        "moe_layer_freq": 1,
        "mla_use_nope": True,
        "num_experts": moe.num_experts,
        "num_experts_per_token": moe.num_experts_per_tok,
        "num_shared_experts": moe.num_shared_experts,
        "num_expert_group": moe.num_groups,
        "moe_renormalize": moe.norm_topk_prob,
        "moe_router_activation_func": moe.router,
        "use_grouped_topk": True,
        "linear_attn_config": _kimi_layers(spec, config["layer_types"]),
    }


_KIMI_REPLACED = {
    *("layer_types", "mlp_layer_types", "max_position_embeddings", "norm_topk_prob"),
    *("num_local_experts", "num_experts_per_tok", "n_group", "n_shared_experts"),
    *("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"),
}


def _kimi_layers(spec: ModelSpec, types: list[str]) -> Config:
    numbers = {
        key: [n for n, one in enumerate(types, start=1) if one == kind]
        for key, kind in (
            ("kda_layers", "linear_attention"),
            ("full_attn_layers", "full_attention"),
        )
    }
    if not has_mixer(spec, "kda"):
        return dict(numbers)
    kda = mixer_of(spec, "kda")
    sizes = {"head_dim": kda.head_dim, "num_heads": kda.num_heads}
    return {**numbers, **sizes, "short_conv_kernel_size": kda.conv_size}


def _leading_dense(spec: ModelSpec, types: list[str]) -> int:
    """Return how many layers are dense before the first with experts; none may follow."""
    first = types.index("sparse")
    if "dense" in types[first:]:
        raise SpecError(
            f"spec.ffn_pattern={spec.ffn_pattern}: vLLM takes dense layers before all experts only"
        )
    return first


# model_type that transformers reads -> from that config, the one that vLLM reads
SERVED: dict[str, Callable[[ModelSpec, Config], Config]] = {
    "bamba": _same,
    "deepseek_v3": _same,
    "deepseek_v32": _same,
    "falcon_h1": _same,
    "gemma3_text": _same,
    "gpt_oss": _same,
    "granitemoehybrid": _same,
    "jamba": _same,
    "kimi_linear": _kimi_linear,
    "llama": _same,
    "minimax": _minimax,
    "minimax_m2": _same,
    "nemotron_h": _same,
    "qwen3": _same,
    "qwen3_moe": _same,
    "qwen3_next": _same,
}


def vllm_config(spec: ModelSpec, exported: Exported) -> Config:
    """Return the config.json that vLLM reads as the spec's model; it is read again to be sure.

    Raises:
        SpecError: vLLM has no class for the family, or its words cannot express the spec.
    """
    name = exported.family.model_type
    if name not in SERVED:
        raise SpecError(
            f"spec={spec.name}: vLLM serves no {name} (known: {', '.join(sorted(SERVED))})"
        )
    config = SERVED[name](spec, dict(exported.config)) | {"dtype": "bfloat16"}
    config = {k: v for k, v in config.items() if v is not None or k == "q_lora_rank"}
    ours = import_config(json.loads(json.dumps(exported.config)), spec.name).spec
    back = import_config(json.loads(json.dumps(config)), spec.name).spec
    for key, (wanted, found) in model_differences(ours, back).items():
        raise SpecError(f"spec={spec.name}: in vLLM's words {key}={wanted} would read as {found}")
    return config
