"""Qwen3.5, dense, text part: Gated DeltaNet with every fourth layer gated attention.

Published configs nest the text part in `text_config`; its position encoding has three sections, in
which a text token has the same position. The vision tower and multi-token prediction are left out.
"""

from __future__ import annotations

from typing import Any

from hybridsim.families import shared
from hybridsim.families.base import Arranged, Family, Names, same
from hybridsim.families.config import ConfigReader
from hybridsim.families.qwen3_next import read_layers, write_layers
from hybridsim.families.shared import Fields
from hybridsim.mixers.gated_deltanet.settings import GatedDeltaNetSettings
from hybridsim.spec.schema import ModelSpec


def _by_key_head(rows: Any, heads: int, *widths: int) -> Any:
    """Return the rows of several projections, one after the other, in the order of our mixer.

    For each key head, its rows of every projection.

    Args:
        rows: [sum of widths, inputs].
        heads: key heads, which divide every width.
        widths: rows of each projection.
    """
    starts = [sum(widths[:i]) for i in range(len(widths))]
    order: list[int] = []
    for head in range(heads):
        for start, width in zip(starts, widths, strict=True):
            each = width // heads
            order += range(start + head * each, start + (head + 1) * each)
    return rows[order]


def qkvz_by_key_head(found: Any, s: GatedDeltaNetSettings) -> Any:
    """Return `in_proj_qkvz` from all queries, then keys, values and output gates."""
    return _by_key_head(found, s.num_heads, s.key_dim, s.key_dim, s.value_dim, s.value_dim)


def ba_by_key_head(found: Any, s: GatedDeltaNetSettings) -> Any:
    """Return `in_proj_ba` from all write strengths, then decays."""
    return _by_key_head(found, s.num_heads, s.num_v_heads, s.num_v_heads)


GATED_DELTANET: Names = {
    "in_proj_qkvz.weight": Arranged(
        "linear_attn.in_proj_qkv.weight + linear_attn.in_proj_z.weight", qkvz_by_key_head
    ),
    "in_proj_ba.weight": Arranged(
        "linear_attn.in_proj_b.weight + linear_attn.in_proj_a.weight", ba_by_key_head
    ),
    **same("linear_attn", "conv1d.weight", "dt_bias", "A_log"),
    "o_norm.weight": "linear_attn.norm.weight",
    "o_proj.weight": "linear_attn.out_proj.weight",
}
# Published checkpoints hold the text part inside a larger model.
ALIASES = {"model.language_model.": "model."}
LEFT_OUT = ("mtp.", "model.visual.")


def read_common(config: ConfigReader) -> None:
    """Use the fields that say one thing in every model of Qwen3.5."""
    config.expect("hidden_act", "silu")
    config.expect("attn_output_gate", True)
    config.expect("mlp_only_layers", [])
    config.ignore("mamba_ssm_dtype")  # of the state, where it is kept
    config.ignore("mtp_use_dedicated_embeddings")
    shared.ignore_multi_token_prediction(config)


def _read(config: ConfigReader) -> Fields:
    read_common(config)
    return {
        **shared.model_fields(config, unit_offset=True),
        **read_layers(config),
        "ffn_pattern": "(D)*",
        "ffns": {"D": shared.read_dense(config)},
    }


def _write(spec: ModelSpec) -> Fields:
    return {
        **shared.write_model(spec),
        **write_layers(spec),
        "intermediate_size": shared.ffn_of(spec, "dense").intermediate_size,
    }


FAMILY = Family(
    model_type="qwen3_5_text",
    architecture="Qwen3_5ForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "gated_deltanet": GATED_DELTANET},
    ffns={"dense": shared.DENSE},
    other_types=("qwen3_5",),
    left_out=LEFT_OUT,
    aliases=ALIASES,
)
