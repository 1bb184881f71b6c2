"""Gemma 3, text part: five windowed layers to a full one, norms before and after each sublayer.

Published configs leave out all but the width of what the class defaults to, so that those defaults
stand here too.
"""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, derived
from hybridsim.families.shared import Fields
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.spec.schema import ModelSpec

# ours -> key, the class's default
_MODEL = {
    "num_layers": ("num_hidden_layers", 26),
    "vocab_size": ("vocab_size", 262_208),
    "native_context": ("max_position_embeddings", 131_072),
}
_THETAS = {
    "full_attention": ("rope_theta", 1e6),
    "sliding_attention": ("rope_local_base_freq", 1e4),
}
_SCALINGS = {"default": "none", "linear": "linear"}
_ACTIVATIONS = {"gelu_pytorch_tanh": "gelu_tanh", "gelu": "gelu", "silu": "silu"}


def _read(config: ConfigReader) -> Fields:
    config.expect("attn_logit_softcapping", None)
    config.expect("final_logit_softcapping", None)
    config.expect("use_bidirectional_attention", False)
    config.ignore("cache_implementation")  # how the reference keeps keys, not which
    width = config.integer("hidden_size")
    activation = config.choice("hidden_activation", _ACTIVATIONS, "gelu_pytorch_tanh")
    return {
        "hidden_size": width,
        **{ours: config.integer(key, default) for ours, (key, default) in _MODEL.items()},
        **_read_layers(config),
        "ffn_pattern": "(D)*",
        "ffns": {"D": shared.read_dense(config, activation=activation)},
        "norm": {"eps": config.number("rms_norm_eps", 1e-6), "unit_offset": True},
        "embedding_scale": derived(width.value**0.5, width, how="sqrt(hidden_size)"),
        "round_embedding_scale": True,
        "tie_word_embeddings": config.flag("tie_word_embeddings", True),
    }


def _read_layers(config: ConfigReader) -> Fields:
    period = config.integer(config.first("sliding_window_pattern", "_sliding_window_pattern"), 6)
    letters = shared.layer_letters(config, shared.WINDOWED, shared.every_nth_full(period.value))
    attention = _read_attention(config)
    full, windowed = (attention | {"rope": rope} for rope in _read_ropes(config))
    mixers = shared.read_windowed(config, letters, windowed, full, 4096)
    return {
        "layer_pattern": shared.pattern(letters),
        "mixers": mixers,
        "norm_placement": dict.fromkeys(mixers, "sandwich"),
    }


def _read_attention(config: ConfigReader) -> Fields:
    bias = config.flag("attention_bias", False)
    scalar = config.number("query_pre_attn_scalar", 256)
    return {
        "kind": "attention",
        "num_heads": config.integer("num_attention_heads", 8),
        "num_kv_heads": config.integer("num_key_value_heads", 4),
        "head_dim": config.integer("head_dim", 256),
        "qk_norm": "head",
        "bias": bias,
        "output_bias": bias,
        "softmax_scale": derived(scalar.value**-0.5, scalar, how=f"{scalar.source}^-1/2"),
    }


def _read_ropes(config: ConfigReader) -> list[Fields]:
    """Return the rotary settings of full and of windowed layers.

    Today's configs have a section for each; in older ones `rope_scaling` is of the full layers.
    """
    today = config.section("rope_parameters")
    sections = {layers: today.section(layers) for layers in _THETAS}
    if config.has("rope_parameters"):
        config.expect("rope_scaling", None)
    else:
        sections["full_attention"] = config.section("rope_scaling")
    ropes = []
    for layers, (key, default) in _THETAS.items():
        given = sections[layers]
        outside = config.number(key, default)
        theta = given.number("rope_theta") if given.has("rope_theta") else outside
        rope: Fields = {"theta": theta}
        scaling = given.choice("rope_type", _SCALINGS, "default")
        if scaling.value != "none":
            rope |= {"scaling": scaling, "factor": given.number("factor")}
        ropes.append(rope)
    return ropes


def _write(spec: ModelSpec) -> Fields:
    windowed, full = shared.windowed_and_full(spec)
    attention, dense = full or windowed, shared.ffn_of(spec, "dense")
    activations = {ours: theirs for theirs, ours in _ACTIVATIONS.items()}
    fields = {
        **shared.write_model(spec),
        **shared.write_attention(attention),
        **shared.write_windowed(spec, windowed),
        "intermediate_size": dense.intermediate_size,
        "hidden_activation": activations.get(dense.activation),
        "attention_bias": attention.bias,
        "query_pre_attn_scalar": round(attention.scale**-2),
        "rope_parameters": {
            "full_attention": _write_rope(full or windowed),
            "sliding_attention": _write_rope(windowed or full),
        },
    }
    del fields["hidden_act"]
    return fields


def _write_rope(attention: AttentionSettings) -> Fields:
    return shared.write_rope(shared.require_rope(attention), attention.head_dim)


FAMILY = Family(
    model_type="gemma3_text",
    architecture="Gemma3ForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION},
    ffns={"dense": shared.DENSE},
    layer={
        "mixer_norm.weight": "input_layernorm.weight",
        "mixer_post_norm.weight": "post_attention_layernorm.weight",
        "ffn_norm.weight": "pre_feedforward_layernorm.weight",
        "ffn_post_norm.weight": "post_feedforward_layernorm.weight",
    },
    left_out=("vision_tower.", "multi_modal_projector."),
    aliases={"language_model.model.": "model.", "language_model.lm_head.": "lm_head."},
)
