"""Falcon-H1: attention and Mamba-2 side by side in every layer, with muP's factors throughout."""

from __future__ import annotations

from hybridsim.errors import bad_value
from hybridsim.families import shared
from hybridsim.families.bamba import (
    DENSE,
    FINAL_NORM,
    LAYER,
    expanded_width,
    mamba2_names,
    read_mamba2,
    write_mamba2,
)
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

SCALES = ("z_scale", "x_scale", "b_scale", "c_scale", "dt_scale")  # of ssm_multipliers


def _factors(config: ConfigReader, name: str, count: int) -> list[Figure]:
    """Return the factors of a list, each with its place in it."""
    factors = config.items(name, (1.0,) * count)
    if len(factors.value) != count:
        raise bad_value(f"config.{name}", factors.value, f"must have {count} entries")
    return [Figure(float(one), f"{name}[{i}]") for i, one in enumerate(factors.value)]


def _inner_width(config: ConfigReader) -> Figure:
    """Return the width of all Mamba-2 heads; a null one is a multiple of the model's."""
    expanded = expanded_width(config)
    if "mamba_d_ssm" in config.fields and not config.has("mamba_d_ssm"):
        config.ignore("mamba_d_ssm")
        return expanded
    return config.integer("mamba_d_ssm")


def _norm(config: ConfigReader) -> Figure:
    """Return where the mixer's norm stands."""
    has, first = config.flag("mamba_rms_norm", False), config.flag("mamba_norm_before_gate", True)
    if not has.value:
        return Figure("none", has.source)
    return derived("before_gate" if first.value else "after_gate", has, first)


def _read_mamba(config: ConfigReader) -> Fields:
    return read_mamba2(
        config,
        _inner_width(config),
        output_bias=config.flag("projectors_bias", False),
        norm=_norm(config),
        input_scale=config.number("ssm_in_multiplier", 1.0),
        output_scale=config.number("ssm_out_multiplier", 1.0),
        **dict(zip(SCALES, _factors(config, "ssm_multipliers", len(SCALES)), strict=True)),
    )


def _read_attention(config: ConfigReader) -> Fields:
    bias = config.flag("attention_bias", False)
    attention = shared.read_attention(
        config,
        bias=bias,
        output_bias=bias,
        key_scale=config.number("key_multiplier", 1.0),
        input_scale=config.number("attention_in_multiplier", 1.0),
        output_scale=config.number("attention_out_multiplier", 1.0),
    )
    return attention | {"rope": shared.read_rope(config, attention["head_dim"])}


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("mamba_use_mlp", True)
    config.expect("attn_layer_indices", None)
    config.ignore("num_logits_to_keep", "mlp_expansion_factor")
    gate, down = _factors(config, "mlp_multipliers", 2)
    return {
        **shared.model_fields(config),
        "layer_pattern": "(P)*",
        "ffn_pattern": "(D)*",
        "parallel": {"P": "MF"},
        "mixers": {"M": _read_mamba(config), "F": _read_attention(config)},
        "ffns": {
            "D": shared.read_dense(
                config, bias=config.flag("mlp_bias", False), gate_scale=gate, down_scale=down
            )
        },
        "embedding_scale": config.number("embedding_multiplier", 1.0),
        "logit_scale": config.number("lm_head_multiplier", 1.0),
    }


def _check_layers(spec: ModelSpec) -> None:
    """Raise SpecError unless every layer has both mixers, in the order of the family."""
    for index, letter in enumerate(spec.layer_letters):
        kinds = [spec.mixers[part].kind for part in spec.layer_mixers(letter)]
        if sorted(kinds) != ["attention", "mamba2"]:
            raise bad_value(
                "spec.layer_pattern",
                letter,
                f"layer {index + 1} must have mamba2 and attention side by side",
            )


def _write(spec: ModelSpec) -> Fields:
    _check_layers(spec)
    mamba, attention = shared.mixer_of(spec, "mamba2"), shared.mixer_of(spec, "attention")
    dense = shared.ffn_of(spec, "dense")
    return {
        **shared.write_model(spec),
        **write_mamba2(mamba, spec.hidden_size),
        "mamba_d_ssm": mamba.inner_dim,
        "mamba_rms_norm": mamba.norm != "none",
        "mamba_norm_before_gate": mamba.norm == "before_gate",
        "projectors_bias": mamba.output_bias,
        "ssm_in_multiplier": mamba.input_scale,
        "ssm_out_multiplier": mamba.output_scale,
        "ssm_multipliers": list(mamba.projection_scales),
        **shared.write_attention(attention),
        "attention_bias": attention.bias,
        "key_multiplier": attention.key_scale,
        "attention_in_multiplier": attention.input_scale,
        "attention_out_multiplier": attention.output_scale,
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
        "intermediate_size": dense.intermediate_size,
        "mlp_bias": dense.bias,
        "mlp_multipliers": [dense.gate_scale, dense.down_scale],
        "embedding_multiplier": spec.embedding_scale,
        "lm_head_multiplier": spec.logit_scale,
    }


FAMILY = Family(
    model_type="falcon_h1",
    architecture="FalconH1ForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "mamba2": mamba2_names("mamba")},
    ffns={"dense": DENSE},
    model=FINAL_NORM,
    layer=LAYER,
)
