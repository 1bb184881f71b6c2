"""Granite 4: Mamba-2 with a few layers of attention, with or without experts, and muP's factors."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.bamba import expanded_width, mamba2_names, read_mamba2, write_mamba2
from hybridsim.families.base import Family, Names
from hybridsim.families.config import ConfigReader, derived
from hybridsim.families.shared import Fields
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.spec.schema import ModelSpec

# Published configs have the older names of the types.
TYPES = {"linear_attention": "M", "full_attention": "F", "mamba": "M", "attention": "F"}
KINDS = {"mamba2": "linear_attention", "attention": "full_attention"}
ROTATED = {None: False, "nope": False, "rope": True}  # by position_embedding_type

SHARED: Names = {
    "gate_up_proj.weight": "shared_mlp.input_linear.weight",
    "down_proj.weight": "shared_mlp.output_linear.weight",
}
MOE: Names = {
    "router.weight": "block_sparse_moe.router.layer.weight",
    "experts.gate_up_proj": "block_sparse_moe.input_linear.weight",
    "experts.down_proj": "block_sparse_moe.output_linear.weight",
    **{f"shared_expert.{name}": source for name, source in SHARED.items()},
}


def _read_attention(config: ConfigReader) -> Fields:
    bias = config.flag("attention_bias", False)
    attention = shared.read_attention(config, bias=bias, output_bias=bias)
    scale = config.number("attention_multiplier", 1.0)
    if scale.value != attention["head_dim"].value ** -0.5:
        attention["softmax_scale"] = scale
    if config.choice("position_embedding_type", ROTATED, None).value:
        return attention | {"rope": shared.read_rope(config, attention["head_dim"], theta=10000.0)}
    config.ignore("rope_parameters", "rope_scaling", "rope_theta")
    return attention


def _read_ffn(config: ConfigReader) -> tuple[str, Fields]:
    """Return the feed-forward of every layer: experts beside a shared one, or that one alone."""
    shared_width = config.integer("shared_intermediate_size")
    if config.integer(shared.LOCAL_EXPERTS).value == 0:
        config.ignore("intermediate_size", "num_experts_per_tok")
        return "D", {"kind": "dense", "intermediate_size": shared_width}
    moe = shared.read_moe(
        config,
        shared.LOCAL_EXPERTS,
        "intermediate_size",
        num_shared_experts=1,
        shared_intermediate_size=shared_width,
    )
    return "E", moe


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("normalization_function", "rmsnorm")
    config.ignore("init_method")
    letters = shared.layer_letters(config, TYPES)
    mamba = read_mamba2(config, expanded_width(config))
    parts = {"M": mamba | {"output_bias": mamba["bias"]}, "F": _read_attention(config)}
    letter, ffn = _read_ffn(config)
    logits = config.number("logits_scaling", 1.0)
    return {
        **shared.model_fields(config),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": f"({letter})*",
        "mixers": shared.used(letters, parts),
        "ffns": {letter: ffn},
        "residual": {"beta": config.number("residual_multiplier", 1.0)},
        "embedding_scale": config.number("embedding_multiplier", 1.0),
        "logit_scale": derived(1 / logits.value, logits, how="1 / logits_scaling"),
    }


def _divisor(factor: float) -> float:
    """Return what a factor divides by; a whole number where that is the same."""
    whole = round(1 / factor)
    return whole if whole and 1 / whole == factor else 1 / factor


def _write_attention(attention: AttentionSettings) -> Fields:
    fields = {
        **shared.write_attention(attention),
        "attention_bias": attention.bias,
        "attention_multiplier": attention.scale,
        "position_embedding_type": "nope",
    }
    if attention.rope is None:
        return fields
    rope = shared.write_rope(attention.rope, attention.head_dim)
    return {**fields, "position_embedding_type": "rope", "rope_parameters": rope}


def _write_ffn(spec: ModelSpec) -> Fields:
    if not shared.has_ffn(spec, "moe"):
        dense = shared.ffn_of(spec, "dense")
        return {shared.LOCAL_EXPERTS: 0, "shared_intermediate_size": dense.intermediate_size}
    moe = shared.ffn_of(spec, "moe")
    return {
        **shared.write_moe(moe, shared.LOCAL_EXPERTS, "intermediate_size"),
        "shared_intermediate_size": moe.shared_width,
    }


def _write(spec: ModelSpec) -> Fields:
    return {
        **shared.write_model(spec),
        **write_mamba2(shared.mixer_of(spec, "mamba2"), spec.hidden_size),
        **_write_attention(shared.mixer_of(spec, "attention")),
        **_write_ffn(spec),
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        "residual_multiplier": spec.residual.beta,
        "embedding_multiplier": spec.embedding_scale,
        "logits_scaling": _divisor(spec.logit_scale),
    }


FAMILY = Family(
    model_type="granitemoehybrid",
    architecture="GraniteMoeHybridForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "mamba2": mamba2_names("mamba")},
    ffns={"dense": SHARED, "moe": MOE},
)
