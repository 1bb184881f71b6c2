"""Qwen3-Next: Gated DeltaNet with every fourth layer gated attention, and experts."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader
from hybridsim.families.qwen3_moe import read_ffn_letters, write_ffn_letters
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

TYPES = {"linear_attention": "L", "full_attention": "F"}
KINDS = {"gated_deltanet": "linear_attention", "attention": "full_attention"}
PARTIAL = 0.25  # the rotated part of a head where the config is silent

GATED_DELTANET: Names = {
    **same("linear_attn", "in_proj_qkvz.weight", "in_proj_ba.weight", "conv1d.weight"),
    **same("linear_attn", "dt_bias", "A_log"),
    "o_norm.weight": "linear_attn.norm.weight",
    "o_proj.weight": "linear_attn.out_proj.weight",
}


def read_gated_deltanet(config: ConfigReader) -> Fields:
    """Return the linear layers of Qwen3-Next and Qwen3.5."""
    return {
        "kind": "gated_deltanet",
        "num_heads": config.integer("linear_num_key_heads"),
        "num_v_heads": config.integer("linear_num_value_heads"),
        "head_k_dim": config.integer("linear_key_head_dim"),
        "head_v_dim": config.integer("linear_value_head_dim"),
        "conv_size": config.integer("linear_conv_kernel_dim"),
    }


def write_gated_deltanet(spec: ModelSpec) -> Fields:
    """Return the fields that `read_gated_deltanet` reads."""
    linear = shared.mixer_of(spec, "gated_deltanet")
    return {
        "linear_num_key_heads": linear.num_heads,
        "linear_num_value_heads": linear.num_v_heads,
        "linear_key_head_dim": linear.head_k_dim,
        "linear_value_head_dim": linear.head_v_dim,
        "linear_conv_kernel_dim": linear.conv_size,
    }


def read_gated_attention(config: ConfigReader) -> Fields:
    """Return the full layers of Qwen3-Next and Qwen3.5."""
    config.expect("attention_bias", False)
    config.expect("use_sliding_window", False)
    config.ignore("sliding_window", "max_window_layers")  # without the switch, nothing
    attention = shared.read_attention(config, qk_norm="head", output_gate=True)
    rope = shared.read_rope(config, attention["head_dim"], partial=PARTIAL)
    return attention | {"rope": rope}


def read_layers(config: ConfigReader) -> Fields:
    """Return the pattern and the mixers of Qwen3-Next and Qwen3.5."""
    # Every fourth layer is full; earlier configs say so, or say nothing.
    interval = config.integer("full_attention_interval", 4).value
    letters = shared.layer_letters(
        config, TYPES, lambda i: "linear_attention" if (i + 1) % interval else "full_attention"
    )
    return {
        "layer_pattern": shared.pattern(letters),
        "mixers": {"L": read_gated_deltanet(config), "F": read_gated_attention(config)},
    }


def write_layers(spec: ModelSpec) -> Fields:
    """Return the fields that `read_layers` reads."""
    attention = shared.mixer_of(spec, "attention")
    return {
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        **write_gated_deltanet(spec),
        **shared.write_attention(attention),
        "rope_parameters": {
            "partial_rotary_factor": 1.0,
            **shared.write_rope(shared.require_rope(attention), attention.head_dim),
        },
    }


def read_shared_moe(config: ConfigReader) -> Fields:
    """Return the experts of Qwen3-Next and Qwen3.5, one of them shared and gated."""
    return shared.read_moe(
        config,
        "num_experts",
        "moe_intermediate_size",
        num_shared_experts=1,
        shared_intermediate_size=config.integer("shared_expert_intermediate_size"),
        shared_expert_gate=True,
        norm_topk_prob=config.flag("norm_topk_prob", True),
    )


def write_shared_moe(spec: ModelSpec) -> Fields:
    """Return the fields that `read_shared_moe` reads."""
    moe = shared.ffn_of(spec, "moe")
    return {
        **shared.write_moe(moe, "num_experts", "moe_intermediate_size"),
        "shared_expert_intermediate_size": moe.shared_width,
        "norm_topk_prob": moe.norm_topk_prob,
    }


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    ffns = read_ffn_letters(config)
    moe, dense = read_shared_moe(config), shared.read_dense(config)
    return {
        **shared.model_fields(config, unit_offset=True),
        **read_layers(config),
        "ffn_pattern": shared.pattern(ffns),
        "ffns": shared.used(ffns, {"D": dense, "E": moe}),
    }


def _write(spec: ModelSpec) -> Fields:
    moe = write_shared_moe(spec)
    return {
        **shared.write_model(spec),
        **write_layers(spec),
        **write_ffn_letters(spec),
        **moe,
        "intermediate_size": shared.dense_width(spec, moe["moe_intermediate_size"]),
    }


FAMILY = Family(
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "gated_deltanet": GATED_DELTANET},
    ffns={"dense": shared.DENSE, "moe": shared.moe_names("mlp", shared="shared_expert")},
    left_out=("mtp.",),
)
