"""Qwen3 with experts."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, Figure
from hybridsim.families.qwen3 import read_attention, write_attention
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec


def read_ffn_letters(config: ConfigReader) -> Figure:
    """Return D or E a layer: experts in every `decoder_sparse_step`-th, but not where excluded."""
    step = config.integer("decoder_sparse_step", 1)
    excluded = config.items("mlp_only_layers", [])
    layers = config.integer("num_hidden_layers").value
    letters = "".join(
        "D" if i in excluded.value or (i + 1) % step.value else "E" for i in range(layers)
    )
    return Figure(letters, "decoder_sparse_step, mlp_only_layers")


def write_ffn_letters(spec: ModelSpec) -> Fields:
    """Return the fields that `read_ffn_letters` reads."""
    types = shared.ffn_types(spec, {"dense": "dense", "moe": "moe"})
    return {
        "decoder_sparse_step": 1,
        "mlp_only_layers": [i for i, one in enumerate(types) if one == "dense"],
    }


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("shared_expert_intermediate_size", 0)
    ffns = read_ffn_letters(config)
    moe = shared.read_moe(
        config,
        "num_experts",
        "moe_intermediate_size",
        norm_topk_prob=config.flag("norm_topk_prob", False),
    )
    dense = shared.read_dense(config)
    return {
        **shared.model_fields(config),
        "layer_pattern": "(F)*",
        "ffn_pattern": shared.pattern(ffns),
        "mixers": {"F": read_attention(config)},
        "ffns": shared.used(ffns, {"D": dense, "E": moe}),
    }


def _write(spec: ModelSpec) -> Fields:
    moe = shared.ffn_of(spec, "moe")
    return {
        **shared.write_model(spec),
        **write_attention(spec),
        **write_ffn_letters(spec),
        **shared.write_moe(moe, "num_experts", "moe_intermediate_size"),
        "norm_topk_prob": moe.norm_topk_prob,
        "intermediate_size": shared.dense_width(spec, moe.intermediate_size),
    }


FAMILY = Family(
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION},
    ffns={"dense": shared.DENSE, "moe": shared.moe_names("mlp")},
)
