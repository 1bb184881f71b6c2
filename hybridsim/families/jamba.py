"""Jamba: Mamba-1 with every n-th layer attention, and every n-th feed-forward experts."""

from __future__ import annotations

from collections.abc import Sequence

from hybridsim.errors import bad_value
from hybridsim.families import shared
from hybridsim.families.base import LAYER, MODEL, Family, Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

KINDS = {"mamba1": "mamba", "attention": "attention"}
FFN_KINDS = {"dense": "dense", "moe": "experts"}

MAMBA: Names = {
    **same("mamba", "in_proj.weight", "in_proj.bias", "conv1d.weight", "conv1d.bias"),
    **same("mamba", "x_proj.weight", "dt_proj.weight", "A_log", "D"),
    "dt_bias": "mamba.dt_proj.bias",
    "o_proj.weight": "mamba.out_proj.weight",
    "o_proj.bias": "mamba.out_proj.bias",
    **{f"{part}_norm.weight": f"mamba.{part}_layernorm.weight" for part in ("dt", "b", "c")},
}
DENSE: Names = {
    "gate_up_proj.weight": "feed_forward.gate_proj.weight + feed_forward.up_proj.weight",
    "down_proj.weight": "feed_forward.down_proj.weight",
}
MOE: Names = {
    **shared.moe_names("feed_forward"),
    "router.weight": "feed_forward.router.weight",
}


def _every_nth(config: ConfigReader, part: str, here: str, else_: str) -> Figure:
    """Return a letter a layer: `here` at an offset in each period, counted from 0."""
    period = config.integer(f"{part}_layer_period")
    offset = config.integer(f"{part}_layer_offset")
    if not 0 <= offset.value < period.value:
        raise bad_value(
            f"config.{offset.source}", offset.value, f"must be below {period.source}={period.value}"
        )
    layers = range(config.integer("num_hidden_layers").value)
    letters = (here if i % period.value == offset.value else else_ for i in layers)
    return derived("".join(letters), period, offset)


def _read_mamba(config: ConfigReader) -> Fields:
    width, expand = config.integer("hidden_size"), config.integer("mamba_expand")
    if config.raw("mamba_dt_rank", "auto") == "auto":
        dt_rank = derived(-(-width.value // 16), width, how="hidden_size / 16 rounded up")
    else:
        dt_rank = config.integer("mamba_dt_rank")
    return {
        "kind": "mamba1",
        "inner_dim": derived(expand.value * width.value, expand, width),
        "dt_rank": dt_rank,
        "state_size": config.integer("mamba_d_state"),
        "conv_size": config.integer("mamba_d_conv"),
        "conv_bias": config.flag("mamba_conv_bias", True),
        "proj_bias": config.flag("mamba_proj_bias", False),
        "inner_norms": True,
    }


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("sliding_window", None)
    config.ignore("use_mamba_kernels", "use_mambapy", "use_associative_scan")
    config.ignore("num_logits_to_keep")
    letters = _every_nth(config, "attn", "F", "L")
    ffns = _every_nth(config, "expert", "E", "D")
    moe = shared.read_moe(config, "num_experts", "intermediate_size", norm_topk_prob=False)
    if moe["num_experts"].value == 1:
        ffns = derived("D" * len(ffns.value), moe["num_experts"])
    mixers = {"L": _read_mamba(config), "F": shared.read_attention(config)}
    parts = {"D": shared.read_dense(config), "E": moe}
    return {
        **shared.model_fields(config),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": shared.pattern(ffns),
        "mixers": shared.used(letters, mixers),
        "ffns": shared.used(ffns, parts),
    }


def _write_every_nth(part: str, types: Sequence[str], kind: str, key: str) -> Fields:
    """Return period and offset of a kind of layer; SpecError where it has none."""
    places = [i for i, one in enumerate(types) if one == kind]
    offset = places[0] if places else len(types)
    period = places[1] - offset if len(places) > 1 else len(types) + 1
    if places != [i for i in range(len(types)) if i % period == offset]:
        raise bad_value(f"spec.{key}", kind, "must stand in every n-th layer, from the first n on")
    return {f"{part}_layer_period": period, f"{part}_layer_offset": offset}


def _write_mamba(spec: ModelSpec) -> Fields:
    mamba = shared.mixer_of(spec, "mamba1")
    if mamba.inner_dim % spec.hidden_size:
        raise bad_value("mamba1.inner_dim", mamba.inner_dim, "must be a multiple of hidden_size")
    return {
        "mamba_expand": mamba.inner_dim // spec.hidden_size,
        "mamba_dt_rank": mamba.dt_rank,
        "mamba_d_state": mamba.state_size,
        "mamba_d_conv": mamba.conv_size,
        "mamba_conv_bias": mamba.conv_bias,
        "mamba_proj_bias": mamba.proj_bias,
    }


def _write(spec: ModelSpec) -> Fields:
    types = shared.layer_types(spec, lambda settings: KINDS.get(settings.kind))
    ffns = shared.ffn_types(spec, FFN_KINDS)
    if shared.has_ffn(spec, "moe"):
        moe = shared.write_moe(shared.ffn_of(spec, "moe"), "num_experts", "intermediate_size")
    else:
        width = shared.ffn_of(spec, "dense").intermediate_size
        moe = {"num_experts": 1, "num_experts_per_tok": 1, "intermediate_size": width}
    return {
        **shared.write_model(spec),
        **_write_every_nth("attn", types, "attention", "layer_pattern"),
        **_write_every_nth("expert", ffns, "experts", "ffn_pattern"),
        **shared.write_attention(shared.mixer_of(spec, "attention")),
        **_write_mamba(spec),
        **moe,
    }


FAMILY = Family(
    model_type="jamba",
    architecture="JambaForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": shared.ATTENTION, "mamba1": MAMBA},
    ffns={"dense": DENSE, "moe": MOE},
    model={**MODEL, "norm.weight": "model.final_layernorm.weight"},
    layer={**LAYER, "ffn_norm.weight": "pre_ff_layernorm.weight"},
)
