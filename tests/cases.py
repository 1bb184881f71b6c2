"""Small settings of every mixer, and a spec that uses what the shipped ones do not."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any

from hybridsim.components import RopeSettings
from hybridsim.ffn import FfnSettings, ffn_settings_class
from hybridsim.mixers import MixerSettings, settings_class

ROPE = RopeSettings(rotary_dim=8)
LATENT: dict[str, Any] = {
    "num_heads": 3,
    "kv_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
YARN = RopeSettings(
    interleaved=True,
    scaling="yarn",
    factor=4.0,
    original_context=32,
    mscale=1.0,
    mscale_all_dim=1.0,
)


def _case(kind: str, **fields: Any) -> MixerSettings:
    return settings_class(kind)(**fields)


MIXER_CASES: dict[str, dict[str, MixerSettings]] = {
    "attention": {
        "gqa": _case("attention", num_heads=6, num_kv_heads=2, head_dim=16, rope=ROPE),
        "mha_bias": _case("attention", num_heads=2, num_kv_heads=2, head_dim=16, bias=True),
        "gate_norm": _case(
            "attention",
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            qk_norm="head",
            output_gate=True,
            rope=ROPE,
        ),
        "full_norm": _case("attention", num_heads=4, num_kv_heads=2, head_dim=16, qk_norm="full"),
        "window": _case(
            "attention", num_heads=4, num_kv_heads=2, head_dim=16, window=10, rope=ROPE
        ),
        "sinks": _case(
            "attention",
            num_heads=6,
            num_kv_heads=2,
            head_dim=16,
            bias=True,
            output_bias=True,
            sinks=True,
            rope=RopeSettings(scaling="yarn", factor=4.0, original_context=32, truncate=False),
        ),
        "sinks_window": _case(
            "attention", num_heads=2, num_kv_heads=1, head_dim=16, sinks=True, window=10
        ),
        "scales": _case(
            "attention",
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            softmax_scale=0.3,
            key_scale=0.7,
            input_scale=1.5,
            output_scale=0.4,
            rope=RopeSettings(scaling="linear", factor=8.0),
        ),
    },
    "mla": {
        "direct": _case("mla", **LATENT),
        "bottleneck_yarn": _case("mla", **LATENT, q_lora_rank=20, rope=YARN),
        "head_gate": _case("mla", **LATENT, rope=ROPE, head_gate=True, norm_eps=1e-5),
    },
    "sparse_mla": {
        "fp8": _case(
            "sparse_mla",
            **LATENT,
            q_lora_rank=20,
            rope=YARN,
            index_num_heads=4,
            index_head_dim=16,
            index_topk=16,
        ),
        "unrounded_keys": _case(
            "sparse_mla",
            **LATENT,
            q_lora_rank=20,
            index_num_heads=2,
            index_head_dim=16,
            index_topk=7,
            index_key_dtype=None,
        ),
        "interleaved": _case(
            "sparse_mla",
            **LATENT,
            q_lora_rank=20,
            rope=YARN,
            head_gate=True,
            index_num_heads=3,
            index_head_dim=12,
            index_topk=9,
            index_key_dtype=None,
            index_rope_interleaved=True,
        ),
    },
    "block_sparse": {
        "blocks": _case(
            "block_sparse",
            num_heads=4,
            num_kv_heads=2,
            head_dim=16,
            qk_norm="head",
            rope=ROPE,
            index_num_heads=2,
            index_head_dim=16,
            block_size=8,
            topk_blocks=3,
        ),
        "two_local": _case(
            "block_sparse",
            num_heads=2,
            num_kv_heads=1,
            head_dim=16,
            index_num_heads=1,
            index_head_dim=16,
            block_size=5,
            topk_blocks=4,
            local_blocks=2,
        ),
    },
    "linear_attention": {
        "elu1": _case("linear_attention", num_heads=2, head_k_dim=16, head_v_dim=8, chunk_size=16),
        "performer": _case(
            "linear_attention",
            num_heads=3,
            head_k_dim=8,
            head_v_dim=16,
            feature_map="performer",
            num_features=20,
            feature_seed=3,
        ),
        "relu_both": _case(
            "linear_attention",
            num_heads=2,
            head_k_dim=8,
            head_v_dim=8,
            feature_map="relu",
            output_norm=True,
        ),
        "identity_norm": _case(
            "linear_attention",
            num_heads=2,
            head_k_dim=8,
            head_v_dim=16,
            feature_map="identity",
            normalize=False,
            output_norm=True,
        ),
    },
    "gla": {
        "plain": _case("gla", num_heads=2, head_k_dim=8, head_v_dim=16, gate_rank=4),
        "conv_no_gate": _case(
            "gla",
            num_heads=3,
            head_k_dim=16,
            head_v_dim=8,
            conv_size=3,
            output_gate=False,
            gate_logit_normalizer=2.0,
            chunk_size=32,
        ),
    },
    "deltanet": {
        "plain": _case("deltanet", num_heads=2, head_k_dim=16, head_v_dim=8, chunk_size=16),
        "gate_no_conv": _case(
            "deltanet",
            num_heads=3,
            head_k_dim=8,
            head_v_dim=8,
            conv_size=None,
            qk_activation="elu1",
            qk_norm="sum",
            output_gate=True,
        ),
        "negative": _case(
            "deltanet",
            num_heads=2,
            head_k_dim=8,
            head_v_dim=16,
            conv_size=3,
            qk_activation="identity",
            negative_eigenvalues=True,
        ),
        "relu": _case("deltanet", num_heads=2, head_k_dim=8, head_v_dim=8, qk_activation="relu"),
    },
    "gated_deltanet": {
        "grouped": _case(
            "gated_deltanet", num_heads=2, num_v_heads=4, head_k_dim=16, head_v_dim=8, chunk_size=16
        ),
        "equal_heads": _case(
            "gated_deltanet", num_heads=2, num_v_heads=2, head_k_dim=8, head_v_dim=16
        ),
        "negative": _case(
            "gated_deltanet",
            num_heads=2,
            num_v_heads=6,
            head_k_dim=8,
            head_v_dim=16,
            negative_eigenvalues=True,
            norm_eps=1e-5,
        ),
    },
    "kda": {
        "chunk32": _case("kda", num_heads=2, head_dim=16, gate_rank=8, chunk_size=32),
        "chunk64": _case("kda", num_heads=3, head_dim=8, gate_rank=8),
        "bounded": _case(
            "kda", num_heads=2, head_dim=16, gate_rank=None, conv_size=3, gate_lower_bound=-5.0
        ),
        "negative": _case("kda", num_heads=2, head_dim=8, gate_rank=4, negative_eigenvalues=True),
    },
    "lightning": {
        "chunk16": _case("lightning", num_heads=4, head_dim=16, chunk_size=16),
        "chunk256": _case("lightning", num_heads=2, head_dim=8),
        "ring": _case(
            "lightning",
            num_heads=4,
            head_dim=16,
            activation="none",
            qk_norm="head",
            rope=ROPE,
            scale_queries=True,
            num_norm_groups=2,
            slope_schedule="bailing",
            chunk_size=16,
        ),
        "gelu_rope": _case(
            "lightning",
            num_heads=3,
            head_dim=8,
            activation="gelu",
            rope=RopeSettings(interleaved=True),
            num_norm_groups=6,
            chunk_size=16,
        ),
    },
    "mamba1": {
        "jamba": _case(
            "mamba1", inner_dim=24, dt_rank=6, state_size=8, inner_norms=True, chunk_size=16
        ),
        "biases": _case("mamba1", inner_dim=10, dt_rank=3, conv_size=3, proj_bias=True),
        "no_bias": _case("mamba1", inner_dim=16, dt_rank=4, state_size=5, conv_bias=False),
    },
    "mamba2": {
        "grouped": _case(
            "mamba2", num_heads=4, head_dim=8, state_size=16, num_groups=2, chunk_size=16
        ),
        "norm_first_biases_limits": _case(
            "mamba2",
            num_heads=3,
            head_dim=16,
            state_size=8,
            conv_size=3,
            conv_bias=False,
            bias=True,
            output_bias=True,
            activation="gelu",
            norm="before_gate",
            norm_groups=2,
            dt_min=0.02,
            dt_max=0.5,
        ),
        "scaled_without_norm": _case(
            "mamba2",
            num_heads=2,
            head_dim=8,
            state_size=24,
            norm="none",
            input_scale=1.5,
            output_scale=0.5,
            z_scale=0.75,
            x_scale=1.25,
            b_scale=0.9,
            c_scale=1.1,
            dt_scale=0.8,
        ),
        "whole_width_norm": _case(
            "mamba2", num_heads=4, head_dim=8, state_size=8, num_groups=4, norm_groups=1
        ),
    },
}

# Cases of the mixers of installed packages, as MODULE:NAME; see docs/adding_a_mixer.md.
if of_packages := os.environ.get("HYBRIDSIM_MIXER_CASES"):
    _module, _, _name = of_packages.partition(":")
    MIXER_CASES |= getattr(import_module(_module), _name)

ALL_CASES = [
    (f"{kind}-{name}", settings)
    for kind, cases in MIXER_CASES.items()
    for name, settings in cases.items()
]


def _ffn_case(kind: str, **fields: Any) -> FfnSettings:
    return ffn_settings_class(kind)(**fields)


FFN_CASES: dict[str, dict[str, FfnSettings]] = {
    "dense": {
        "gated": _ffn_case("dense", intermediate_size=24, activation="gelu_tanh"),
        "plain": _ffn_case("dense", intermediate_size=24, activation="relu2", gated=False),
        "bias_scales": _ffn_case(
            "dense", intermediate_size=24, bias=True, gate_scale=0.6, down_scale=1.7
        ),
        "plain_bias": _ffn_case(
            "dense", intermediate_size=24, activation="gelu", gated=False, bias=True
        ),
        "limit": _ffn_case("dense", intermediate_size=24, activation_limit=1.5),
    },
    "moe": {
        "biases": _ffn_case(
            "moe",
            num_experts=5,
            num_experts_per_tok=2,
            intermediate_size=12,
            activation="swiglu_oai",
            router_bias=True,
            expert_bias=True,
        ),
        "shared": _ffn_case(
            "moe",
            num_experts=6,
            num_experts_per_tok=3,
            intermediate_size=12,
            num_shared_experts=2,
            shared_expert_gate=True,
            router="sigmoid",
            score_correction_bias=True,
            norm_topk_prob=False,
            routed_scaling_factor=2.5,
        ),
        "plain_latent": _ffn_case(
            "moe",
            num_experts=6,
            num_experts_per_tok=3,
            intermediate_size=12,
            num_shared_experts=1,
            shared_intermediate_size=20,
            activation="relu2",
            expert_bias=True,
            gated=False,
            latent_size=10,
        ),
        "limits": _ffn_case(
            "moe",
            num_experts=6,
            num_experts_per_tok=3,
            intermediate_size=12,
            num_shared_experts=1,
            activation_limit=1.0,
            shared_activation_limit=2.0,
        ),
    },
}

ALL_FFN_CASES = [
    (f"{kind}-{name}", settings)
    for kind, cases in FFN_CASES.items()
    for name, settings in cases.items()
]

# Attention beside a recurrent mixer in one layer, a window with sinks, an MLP as its own layer
# without a gate, biases everywhere, tied embeddings, and layers without a feed-forward.
UNUSUAL_SPEC: dict[str, Any] = {
    "name": "unusual",
    "hidden_size": 48,
    "num_layers": 6,
    "vocab_size": 96,
    "native_context": 512,
    "layer_pattern": "P M S M P F",
    "ffn_pattern": "D . E . D .",
    "mixers": {
        "F": {
            "kind": "attention",
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 16,
            "bias": True,
            "output_bias": True,
            "softmax_scale": 0.3,
            "key_scale": 0.7,
        },
        "S": {
            "kind": "attention",
            "num_heads": 4,
            "num_kv_heads": 1,
            "head_dim": 16,
            "window": 9,
            "sinks": True,
        },
        "L": {
            "kind": "gated_deltanet",
            "num_heads": 2,
            "num_v_heads": 4,
            "head_k_dim": 8,
            "head_v_dim": 8,
        },
    },
    "parallel": {"P": "FL"},
    "ffns": {
        "D": {"kind": "dense", "intermediate_size": 64, "bias": True, "gate_scale": 0.5},
        "M": {"kind": "dense", "intermediate_size": 80, "activation": "relu2", "gated": False},
        "E": {
            "kind": "moe",
            "num_experts": 6,
            "num_experts_per_tok": 2,
            "intermediate_size": 24,
            "num_shared_experts": 2,
            "shared_intermediate_size": 16,
            "shared_expert_gate": True,
            "router_bias": True,
            "expert_bias": True,
        },
    },
    "tie_word_embeddings": True,
}

# Layers that attend to the tokens an earlier layer's indexer chose, across one without an indexer.
_SPARSE: dict[str, Any] = {
    **LATENT,
    "kind": "sparse_mla",
    "q_lora_rank": 20,
    "rope": {"interleaved": True},
    "index_num_heads": 4,
    "index_head_dim": 16,
    "index_topk": 12,
}
SHARED_INDEXER_SPEC: dict[str, Any] = {
    "name": "shared_indexer",
    "hidden_size": 48,
    "num_layers": 6,
    "vocab_size": 96,
    "native_context": 512,
    "layer_pattern": "X S F S X S",
    "ffn_pattern": "(D)*",
    "mixers": {
        "X": _SPARSE,
        "S": {**_SPARSE, "indexer_type": "shared"},
        "F": {"kind": "attention", "num_heads": 4, "num_kv_heads": 2, "head_dim": 16},
    },
    "ffns": {"D": {"kind": "dense", "intermediate_size": 64}},
}
UNSHIPPED: dict[str, dict[str, Any]] = {
    spec["name"]: spec for spec in (UNUSUAL_SPEC, SHARED_INDEXER_SPEC)
}
