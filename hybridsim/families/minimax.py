"""MiniMax-Text-01 and M1: lightning attention with every eighth layer full, and experts.

The remote code of M1 has other words for the layers and the residual factors; both read.
"""

from __future__ import annotations

from hybridsim.errors import SpecError, bad_value
from hybridsim.families import shared
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

TYPES = {"linear_attention": "L", "full_attention": "F"}
KINDS = {"lightning": "linear_attention", "attention": "full_attention"}
OUTPUT_EPS = 1e-6  # of the norm on a linear layer's heads, whatever `rms_norm_eps` says
SUBLAYERS = {
    "full_attn": "full_attention",
    "linear_attn": "linear_attention",
    "mlp": "mlp",
}  # its word today -> in the remote code

LIGHTNING: Names = {
    **same("self_attn", "qkv_proj.weight", "output_gate.weight"),
    "o_norm.weight": "self_attn.norm.weight",
    "o_proj.weight": "self_attn.out_proj.weight",
}


def _common_factor(config: ConfigReader, name: str) -> Figure:
    """Return alpha or beta, which the config gives for each kind of sublayer."""
    keys = [(f"layernorm_{old}_{name}", f"{part}_{name}_factor") for part, old in SUBLAYERS.items()]
    factors = [config.number(config.first(*pair)) for pair in keys]
    values = [factor.value for factor in factors]
    if len(set(values)) != 1:
        raise bad_value(f"config.*_{name}_factor", values, "must be one for all sublayers")
    return derived(values[0], *factors)


def _layers(config: ConfigReader) -> Figure:
    """Return a letter a layer: a list of types, or of 0 and 1."""
    if not config.has("attn_type_list"):
        return shared.layer_letters(config, TYPES)
    layers = config.integer("num_hidden_layers").value
    types = config.items("attn_type_list")
    return shared.letters_of("attn_type_list", types, {0: "L", 1: "F"}, layers)


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("sliding_window", None)
    config.expect("postnorm", True)
    config.expect("shared_intermediate_size", 0)
    config.ignore("shared_moe_mode")  # of shared experts, of which there are none
    letters = _layers(config)
    attention = shared.read_attention(config)
    linear = {
        "kind": "lightning",
        "num_heads": attention["num_heads"],
        "head_dim": attention["head_dim"],
        "chunk_size": config.integer("block_size", 256),
    }
    if config.number("rms_norm_eps").value != OUTPUT_EPS:
        linear["norm_eps"] = OUTPUT_EPS
    rope = shared.read_rope(config, attention["head_dim"])
    moe = shared.read_moe(config, "num_local_experts", "intermediate_size")
    return {
        **shared.model_fields(config),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": "(E)*",
        "mixers": {"L": linear, "F": attention | {"rope": rope}},
        "ffns": {"E": moe},
        "residual": {
            "source": "normed",
            "alpha": _common_factor(config, "alpha"),
            "beta": _common_factor(config, "beta"),
        },
    }


def _write(spec: ModelSpec) -> Fields:
    attention, linear = shared.mixer_of(spec, "attention"), shared.mixer_of(spec, "lightning")
    if (linear.num_heads, linear.head_dim) != (attention.num_heads, attention.head_dim):
        raise SpecError("spec.mixers: the family has one number and size of heads for both mixers")
    factors = {
        f"{part}_{name}_factor": getattr(spec.residual, name)
        for part in SUBLAYERS
        for name in ("alpha", "beta")
    }
    return {
        **shared.write_model(spec),
        **shared.write_attention(attention),
        **shared.write_moe(shared.ffn_of(spec, "moe"), "num_local_experts", "intermediate_size"),
        **factors,
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        "block_size": linear.chunk_size,
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
    }


FAMILY = Family(
    model_type="minimax",
    architecture="MiniMaxForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "lightning": LIGHTNING},
    ffns={"moe": shared.moe_names("block_sparse_moe", shared.MIXTRAL)},
    other_types=("minimax_m1",),
    derived=("slope_rate", "query_decay", "key_decay", "diagonal_decay"),
)
