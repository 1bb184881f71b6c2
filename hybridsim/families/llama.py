"""Llama 3: grouped-query attention and dense feed-forwards."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, Figure
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("mlp_bias", False)
    config.expect("attention_bias", False)
    config.ignore("pretraining_tp")  # splits the same products
    attention = shared.read_attention(config)
    return {
        **shared.model_fields(config),
        "layer_pattern": "(F)*",
        "ffn_pattern": "(D)*",
        "mixers": {"F": attention | {"rope": _rope(config, attention["head_dim"])}},
        "ffns": {"D": shared.read_dense(config)},
    }


def _rope(config: ConfigReader, head_dim: Figure) -> Fields:
    # The class's default, of which the earliest checkpoints leave the field out.
    return shared.read_rope(config, head_dim, theta=10000.0)


def _write(spec: ModelSpec) -> Fields:
    attention = shared.mixer_of(spec, "attention")
    return {
        **shared.write_model(spec),
        **shared.write_attention(attention),
        "intermediate_size": shared.ffn_of(spec, "dense").intermediate_size,
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
    }


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION},
    ffns={"dense": shared.DENSE},
)
