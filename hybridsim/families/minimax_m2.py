"""MiniMax-M2: grouped-query attention with norms over all heads, and experts."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("use_qk_norm", True)
    config.expect("qk_norm_type", "per_layer")
    config.expect("scoring_func", "sigmoid")
    config.expect("use_routing_bias", True)
    config.expect("shared_intermediate_size", 0)
    if config.has("attn_type_list"):
        layers = config.integer("num_hidden_layers").value
        shared.letters_of("attn_type_list", config.items("attn_type_list"), {1: "F"}, layers)
    config.ignore("attn_type_list")
    shared.ignore_multi_token_prediction(config)
    attention = shared.read_attention(config, qk_norm="full")
    moe = shared.read_moe(
        config,
        "num_local_experts",
        "intermediate_size",
        router="sigmoid",
        score_correction_bias=True,
    )
    return {
        **shared.model_fields(config),
        "layer_pattern": "(F)*",
        "ffn_pattern": "(E)*",
        "mixers": {"F": attention | {"rope": shared.read_rope(config, attention["head_dim"])}},
        "ffns": {"E": moe},
    }


def _write(spec: ModelSpec) -> Fields:
    attention = shared.mixer_of(spec, "attention")
    return {
        **shared.write_model(spec),
        **shared.write_attention(attention),
        **shared.write_moe(shared.ffn_of(spec, "moe"), "num_local_experts", "intermediate_size"),
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
    }


FAMILY = Family(
    model_type="minimax_m2",
    architecture="MiniMaxM2ForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION},
    ffns={
        "moe": shared.moe_names("block_sparse_moe", shared.MIXTRAL, bias="e_score_correction_bias")
    },
)
