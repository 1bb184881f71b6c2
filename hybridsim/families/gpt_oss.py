"""gpt-oss: windowed and full attention in turn, with sinks, and experts with biases.

Published checkpoints hold the experts in mxfp4 (`checkpoint/mxfp4.py`); what `save_pretrained`
writes of a model that was loaded without it holds them plain. Both read.
"""

from __future__ import annotations

from typing import Any

from hybridsim.components import OAI_ALPHA, OAI_LIMIT
from hybridsim.families import shared
from hybridsim.families.base import Arranged, Family, Names, same
from hybridsim.families.config import ConfigReader
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

THETA = 150000.0  # the class's default, which today's writer may leave out


def _gate_then_up(found: Any, settings: Any) -> Any:
    """Return all gates, then all ups, of a last axis where the two alternate."""
    return found.unflatten(-1, (-1, 2)).mT.flatten(-2)


def _as_it_is(found: Any, settings: Any) -> Any:
    return found


# Experts are stored stacked as ours are, [E, inputs, outputs].
MOE: Names = {
    **same("mlp", "router.weight", "router.bias", "experts.down_proj_bias"),
    "experts.gate_up_proj": Arranged("mlp.experts.gate_up_proj", _gate_then_up),
    "experts.gate_up_proj_bias": Arranged("mlp.experts.gate_up_proj_bias", _gate_then_up),
    "experts.down_proj": Arranged("mlp.experts.down_proj", _as_it_is),
}


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")  # of which the experts' is a variant
    config.expect("swiglu_alpha", OAI_ALPHA)
    config.expect("swiglu_limit", OAI_LIMIT)
    config.ignore("initial_context_length")  # the rotary scaling says it
    per_token = config.integer(config.first("num_experts_per_tok", "experts_per_token"))
    moe = shared.read_moe(
        config,
        "num_local_experts",
        "intermediate_size",
        num_experts_per_tok=per_token,
        router_bias=True,
        expert_bias=True,
        activation="swiglu_oai",
    )
    return {
        **shared.model_fields(config),
        **_read_layers(config),
        "ffn_pattern": "(E)*",
        "ffns": {"E": moe},
    }


def _read_layers(config: ConfigReader) -> Fields:
    bias = config.flag("attention_bias", True)
    attention = shared.read_attention(config, bias=bias, output_bias=bias, sinks=True)
    attention["rope"] = shared.read_rope(config, attention["head_dim"], theta=THETA)
    letters = shared.layer_letters(config, shared.WINDOWED, shared.every_nth_full(2))
    return {
        "layer_pattern": shared.pattern(letters),
        "mixers": shared.read_windowed(config, letters, attention, attention, 128),
    }


def _write(spec: ModelSpec) -> Fields:
    windowed, full = shared.windowed_and_full(spec)
    attention = full or windowed
    return {
        **shared.write_model(spec),
        **shared.write_attention(attention),
        **shared.write_windowed(spec, windowed),
        **shared.write_moe(shared.ffn_of(spec, "moe"), "num_local_experts", "intermediate_size"),
        "attention_bias": attention.bias,
        "rope_parameters": shared.write_rope(shared.require_rope(attention), attention.head_dim),
    }


FAMILY = Family(
    model_type="gpt_oss",
    architecture="GptOssForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": {**shared.ATTENTION, **same("self_attn", "sinks")}},
    ffns={"moe": MOE},
)
