"""Qwen3.5 with experts, text part: the layers of Qwen3.5 with the experts of Qwen3-Next."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader
from hybridsim.families.qwen3_5 import ALIASES, GATED_DELTANET, LEFT_OUT, read_common
from hybridsim.families.qwen3_next import (
    read_layers,
    read_shared_moe,
    write_layers,
    write_shared_moe,
)
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec


def _read(config: ConfigReader) -> Fields:
    read_common(config)
    # The reference always scales the chosen experts' weights to sum to 1.
    config.expect("norm_topk_prob", True)
    return {
        **shared.model_fields(config, unit_offset=True),
        **read_layers(config),
        "ffn_pattern": "(E)*",
        "ffns": {"E": read_shared_moe(config)},
    }


def _write(spec: ModelSpec) -> Fields:
    return {
        **shared.write_model(spec),
        **write_layers(spec),
        **write_shared_moe(spec),
    }


FAMILY = Family(
    model_type="qwen3_5_moe_text",
    architecture="Qwen3_5MoeForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "gated_deltanet": GATED_DELTANET},
    ffns={"moe": shared.moe_names("mlp", shared="shared_expert")},
    other_types=("qwen3_5_moe",),
    left_out=LEFT_OUT,
    aliases=ALIASES,
)
