"""Bamba: Mamba-2 with a few layers of half-rotated attention, and dense feed-forwards.

Granite 4 and Falcon-H1 say their Mamba-2 layers in the same words; the pieces for that are here.
"""

from __future__ import annotations

import math
from typing import Any

from hybridsim.errors import bad_value
from hybridsim.families import shared
from hybridsim.families.base import MODEL, Family, Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.mixers.mamba2.settings import Mamba2Settings
from hybridsim.spec.schema import ModelSpec

PARTIAL = 0.5  # the rotated part of a head where the config is silent
THETA = 10000.0  # the base where the config is silent
CONTEXT = 262144  # the context where the config is silent
WEIGHTS = ("weight", "bias")


def mamba2_names(block: str) -> Names:
    """Return the names of a Mamba-2 mixer that stands at `block` in a layer."""
    return {
        **same(block, *(f"{part}.{kind}" for part in ("in_proj", "conv1d") for kind in WEIGHTS)),
        **same(block, "dt_bias", "A_log", "D"),
        "o_norm.weight": f"{block}.norm.weight",
        **{f"o_proj.{kind}": f"{block}.out_proj.{kind}" for kind in WEIGHTS},
    }


DENSE: Names = {
    **{
        f"gate_up_proj.{kind}": f"feed_forward.gate_proj.{kind} + feed_forward.up_proj.{kind}"
        for kind in WEIGHTS
    },
    **same("feed_forward", *(f"down_proj.{kind}" for kind in WEIGHTS)),
}
FINAL_NORM: Names = {**MODEL, "norm.weight": "model.final_layernorm.weight"}
LAYER: Names = {
    "mixer_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "pre_ff_layernorm.weight",
}


def expanded_width(config: ConfigReader) -> Figure:
    """Return the width of all Mamba-2 heads, `mamba_expand` times that of the model."""
    expand, width = config.integer("mamba_expand", 2), config.integer("hidden_size")
    return derived(expand.value * width.value, expand, width, how="mamba_expand * hidden_size")


def read_mamba2(config: ConfigReader, inner: Figure, **more: Any) -> Fields:
    """Return Mamba-2 layers whose heads are `inner` channels wide together."""
    heads = config.integer("mamba_n_heads")
    return {
        "kind": "mamba2",
        "num_heads": heads,
        "head_dim": _head_dim(config, inner, heads),
        "state_size": config.integer("mamba_d_state"),
        "num_groups": config.integer("mamba_n_groups", 1),
        "conv_size": config.integer("mamba_d_conv", 4),
        "conv_bias": config.flag("mamba_conv_bias", True),
        "bias": config.flag("mamba_proj_bias", False),
        **_read_limits(config),
        "chunk_size": config.integer("mamba_chunk_size", 256),
        **more,
    }


def _head_dim(config: ConfigReader, inner: Figure, heads: Figure) -> Figure:
    if config.raw("mamba_d_head", "auto") == "auto":
        return derived(inner.value // heads.value, inner, heads)
    found = config.integer("mamba_d_head")
    if found.value * heads.value != inner.value:
        raise bad_value(
            "config.mamba_d_head",
            found.value,
            f"times mamba_n_heads={heads.value} must be {inner.value} ({inner.source})",
        )
    return found


def _read_limits(config: ConfigReader) -> Fields:
    """Return the limits of the time step, none above where the config says infinity."""
    limits = config.items("time_step_limit", (0.0, math.inf))
    # transformers 5 writes infinity as a mapping, earlier ones as JSON's extension.
    low, high = (math.inf if one == {"__float__": "Infinity"} else one for one in limits.value)
    return {
        "dt_min": Figure(float(low), limits.source),
        "dt_max": Figure(None if high == math.inf else float(high), limits.source),
    }


def write_mamba2(settings: Mamba2Settings, width: int) -> Fields:
    """Return the fields that `read_mamba2` and `expanded_width` read."""
    return {
        "mamba_n_heads": settings.num_heads,
        "mamba_d_head": settings.head_dim,
        "mamba_d_state": settings.state_size,
        "mamba_n_groups": settings.num_groups,
        "mamba_d_conv": settings.conv_size,
        "mamba_conv_bias": settings.conv_bias,
        "mamba_proj_bias": settings.bias,
        "mamba_expand": settings.inner_dim // width,
        "mamba_chunk_size": settings.chunk_size,
        "time_step_limit": [
            settings.dt_min,
            math.inf if settings.dt_max is None else settings.dt_max,
        ],
    }


def _letters(config: ConfigReader) -> Figure:
    """Return a letter a layer from the numbers, from 0, of the layers that attend."""
    layers = config.integer("num_hidden_layers").value
    full = config.items("attn_layer_indices", ())
    return derived("".join("F" if i in full.value else "M" for i in range(layers)), full)


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.ignore("num_logits_to_keep", "z_loss_coefficient")
    letters = _letters(config)
    bias = config.flag("attention_bias", False)
    attention = shared.read_attention(config, bias=bias, output_bias=bias)
    rope = shared.read_rope(config, attention["head_dim"], theta=THETA, partial=PARTIAL)
    mamba = read_mamba2(config, expanded_width(config))
    parts = {"M": mamba | {"output_bias": mamba["bias"]}, "F": attention | {"rope": rope}}
    return {
        **shared.model_fields(config, context=config.integer("max_position_embeddings", CONTEXT)),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": "(D)*",
        "mixers": shared.used(letters, parts),
        "ffns": {"D": shared.read_dense(config, bias=config.flag("mlp_bias", False))},
    }


def _write(spec: ModelSpec) -> Fields:
    types = shared.layer_types(spec, lambda settings: settings.kind)
    attention, dense = shared.mixer_of(spec, "attention"), shared.ffn_of(spec, "dense")
    return {
        **shared.write_model(spec),
        **write_mamba2(shared.mixer_of(spec, "mamba2"), spec.hidden_size),
        "attn_layer_indices": [i for i, kind in enumerate(types) if kind == "attention"],
        "intermediate_size": dense.intermediate_size,
        "mlp_bias": dense.bias,
        **shared.write_attention(attention),
        "attention_bias": attention.bias,
        "rope_parameters": {
            "partial_rotary_factor": 1.0,
            **shared.write_rope(shared.require_rope(attention), attention.head_dim),
        },
    }


FAMILY = Family(
    model_type="bamba",
    architecture="BambaForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "mamba2": mamba2_names("mamba")},
    ffns={"dense": DENSE},
    model=FINAL_NORM,
    layer=LAYER,
)
