"""OLMo Hybrid: Gated DeltaNet with every fourth layer full attention, whose norms come after.

A full layer normalises what its attention and feed-forward put out, a linear layer what they take
in. The released checkpoint does not rotate: its `rope_theta` is null. A config that says nothing
rotates in the reference, with its default base.
"""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import LAYER, Arranged, Family, Names, same
from hybridsim.families.config import ConfigReader
from hybridsim.families.qwen3_5 import ba_by_key_head, qkvz_by_key_head
from hybridsim.families.qwen3_next import (
    KINDS,
    TYPES,
    read_gated_deltanet,
    write_gated_deltanet,
)
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import POST, ModelSpec

DEFAULT_THETA = 10000.0
OUTPUT_EPS = 1e-5  # of the norm on a linear layer's heads, whatever `rms_norm_eps` says


def _joined(*parts: str) -> str:
    return " + ".join(f"linear_attn.{part}.weight" for part in parts)


GATED_DELTANET: Names = {
    "in_proj_qkvz.weight": Arranged(
        _joined("q_proj", "k_proj", "v_proj", "g_proj"), qkvz_by_key_head
    ),
    "in_proj_ba.weight": Arranged(_joined("b_proj", "a_proj"), ba_by_key_head),
    # The reference saves the three cut into equal parts, which makes no difference put together.
    "conv1d.weight": _joined("q_conv1d", "k_conv1d", "v_conv1d"),
    **same("linear_attn", "dt_bias", "A_log", "o_norm.weight", "o_proj.weight"),
}


def _type(layer: int) -> str:
    return "full_attention" if layer % 4 == 3 else "linear_attention"


def _rotates(config: ConfigReader) -> bool:
    """Whether the full layers rotate: not where a base is given and null."""
    given = config.fields.get("rope_parameters") or config.fields
    return given.get("rope_theta", DEFAULT_THETA) is not None


def _read_attention(config: ConfigReader) -> Fields:
    config.expect("attention_bias", False)
    attention = shared.read_attention(config, qk_norm="full")
    if not _rotates(config):
        config.ignore("rope_theta", "rope_parameters", "rope_scaling")
        return attention
    rope = shared.read_rope(config, attention["head_dim"], theta=DEFAULT_THETA)
    return attention | {"rope": rope}


def _read_linear(config: ConfigReader) -> Fields:
    linear = read_gated_deltanet(config) | {
        "negative_eigenvalues": config.flag("linear_allow_neg_eigval", True)
    }
    if config.number("rms_norm_eps").value != OUTPUT_EPS:
        linear["norm_eps"] = OUTPUT_EPS
    # How weights are drawn before training.
    config.ignore("linear_a_log_min", "linear_a_log_max")
    config.ignore("linear_dt_min", "linear_dt_max", "linear_dt_init_floor")
    return linear


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    letters = shared.layer_letters(config, TYPES, _type)
    return {
        **shared.model_fields(config),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": "(D)*",
        "mixers": {"L": _read_linear(config), "F": _read_attention(config)},
        "ffns": {"D": shared.read_dense(config)},
        "norm_placement": {"F": POST},
    }


def _write(spec: ModelSpec) -> Fields:
    attention = shared.mixer_of(spec, "attention")
    rope: Fields = {"rope_type": "default", "rope_theta": None}
    if attention.rope is not None:
        rope = shared.write_rope(attention.rope, attention.head_dim)
    return {
        **shared.write_model(spec),
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        **write_gated_deltanet(spec),
        "linear_allow_neg_eigval": shared.mixer_of(spec, "gated_deltanet").negative_eigenvalues,
        **shared.write_attention(attention),
        "rope_parameters": rope,
        "intermediate_size": shared.ffn_of(spec, "dense").intermediate_size,
    }


FAMILY = Family(
    model_type="olmo_hybrid",
    architecture="OlmoHybridForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "gated_deltanet": GATED_DELTANET},
    ffns={"dense": shared.DENSE},
    layer={
        **LAYER,
        "mixer_post_norm.weight": "post_attention_layernorm.weight",
        "ffn_post_norm.weight": "post_feedforward_layernorm.weight",
    },
    # The vendor's words for the norms of linear layers, which the reference saves in all layers.
    aliases={
        "attention_layer_norm.": "input_layernorm.",
        "feedforward_layer_norm.": "post_attention_layernorm.",
    },
)
