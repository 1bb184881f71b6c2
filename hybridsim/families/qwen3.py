"""Qwen3, dense: grouped-query attention with norms on queries and keys."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec


def read_attention(config: ConfigReader) -> Fields:
    """Return the attention of Qwen3, dense or with experts."""
    config.expect("attention_bias", False)
    config.expect("use_sliding_window", False)
    config.ignore("sliding_window", "max_window_layers")  # without the switch, nothing
    attention = shared.read_attention(config, qk_norm="head")
    return attention | {"rope": shared.read_rope(config, attention["head_dim"])}


def write_attention(spec: ModelSpec) -> Fields:
    """Return the fields that `read_attention` reads."""
    attention = shared.mixer_of(spec, "attention")
    return {
        **shared.write_attention(attention),
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
    }


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    letters = shared.layer_letters(config, {"full_attention": "F"}, lambda _: "full_attention")
    return {
        **shared.model_fields(config),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": "(D)*",
        "mixers": {"F": read_attention(config)},
        "ffns": {"D": shared.read_dense(config)},
    }


def _write(spec: ModelSpec) -> Fields:
    return {
        **shared.write_model(spec),
        **write_attention(spec),
        "intermediate_size": shared.ffn_of(spec, "dense").intermediate_size,
    }


FAMILY = Family(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION},
    ffns={"dense": shared.DENSE},
)
