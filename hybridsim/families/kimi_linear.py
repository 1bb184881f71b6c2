"""Kimi Linear: Kimi Delta Attention with every fourth layer latent attention, and experts.

Published configs name fields differently from those that the reference implementation writes; both
read. The class's defaults are not the checkpoint (21 + 6 layers instead of 20 + 7), so that layers
must be given.
"""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader, Figure
from hybridsim.families.shared import Fields
from hybridsim.spec.schema import ModelSpec

TYPES = {"linear_attention": "L", "full_attention": "F"}
KINDS = {"kda": "linear_attention", "mla": "full_attention"}

KDA: Names = {
    **same("self_attn", *(f"{part}_proj.weight" for part in "qkvbo")),
    **same("self_attn", "f_a_proj.weight", "f_b_proj.weight", "g_a_proj.weight", "g_b_proj.weight"),
    **same("self_attn", "dt_bias", "A_log", "o_norm.weight"),
    "conv1d.weight": " + ".join(f"self_attn.{part}_conv1d.weight" for part in "qkv"),
}


def _layers(config: ConfigReader, linear: ConfigReader) -> Figure:
    """Return a letter a layer: a list of types, or two lists of numbers counted from 1."""
    if config.has("layer_types"):
        return shared.layer_letters(config, TYPES)
    config.ignore("layer_types")
    full, kda = linear.items("full_attn_layers"), linear.items("kda_layers")
    count = config.integer("num_hidden_layers").value
    letters = {**dict.fromkeys(full.value, "F"), **dict.fromkeys(kda.value, "L")}
    types = [letters.get(number, "none") for number in range(1, count + 1)]
    source = Figure(types, f"{full.source}, {kda.source}")
    return shared.letters_of("linear_attn_config", source, {"F": "F", "L": "L"}, count)


def _read_kda(config: ConfigReader, linear: ConfigReader) -> Fields:
    nested = linear.has("num_heads")
    if nested:
        config.ignore("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim")
    head_dim = linear.integer("head_dim") if nested else config.integer("linear_head_dim")
    return {
        "kind": "kda",
        "num_heads": linear.integer("num_heads") if nested else config.integer("linear_num_heads"),
        "head_dim": head_dim,
        "gate_rank": head_dim,
        "conv_size": linear.integer("short_conv_kernel_size")
        if nested
        else config.integer("linear_conv_kernel_dim"),
    }


def _read_ffns(config: ConfigReader) -> Fields:
    layers = config.integer("num_hidden_layers").value
    if config.has("mlp_layer_types"):
        config.ignore("first_k_dense_replace")
        types = config.items("mlp_layer_types")
    else:
        dense = config.integer("first_k_dense_replace")
        names = ["dense"] * dense.value + ["sparse"] * (layers - dense.value)
        types = Figure(names, dense.source)
    letters = shared.letters_of("mlp_layer_types", types, {"dense": "D", "sparse": "E"}, layers)
    config.expect("moe_layer_freq", 1)
    config.expect("moe_router_activation_func", "sigmoid")
    config.expect("topk_method", "noaux_tc")
    config.ignore("use_grouped_topk")  # of one group
    per_token = config.integer(config.first("num_experts_per_token", "num_experts_per_tok"))
    moe = {
        "kind": "moe",
        "num_experts": config.integer(config.first("num_experts", "num_local_experts")),
        "num_experts_per_tok": per_token,
        "intermediate_size": config.integer("moe_intermediate_size"),
        "num_shared_experts": config.integer(
            config.first("num_shared_experts", "n_shared_experts")
        ),
        "router": "sigmoid",
        "score_correction_bias": True,
        "num_groups": config.integer(config.first("num_expert_group", "n_group"), 1),
        "topk_groups": config.integer("topk_group", 1),
        "norm_topk_prob": config.flag(config.first("moe_renormalize", "norm_topk_prob")),
        "routed_scaling_factor": config.number("routed_scaling_factor"),
    }
    parts = {"D": shared.read_dense(config), "E": moe}
    return {"ffn_pattern": shared.pattern(letters), "ffns": shared.used(letters, parts)}


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    config.expect("attention_bias", False)
    config.expect("mla_use_nope", True)
    # The shared channels are not rotated, whatever base the config names.
    config.ignore("rope_theta", "rope_scaling", "rope_parameters", "pretraining_tp")
    shared.ignore_multi_token_prediction(config)
    linear = config.section("linear_attn_config")
    letters = _layers(config, linear)
    mixers = {"L": _read_kda(config, linear)} if "L" in letters.value else {}
    for name in ("linear_head_dim", "linear_num_heads", "linear_conv_kernel_dim"):
        config.ignore(name)  # of layers that there are none of
    context = config.integer(config.first("model_max_length", "max_position_embeddings"))
    return {
        **shared.model_fields(config, context=context),
        **_read_ffns(config),
        "layer_pattern": shared.pattern(letters),
        "mixers": {**mixers, "F": shared.read_mla(config)},
    }


def _write_kda(spec: ModelSpec) -> Fields:
    kda = shared.mixer_of(spec, "kda")
    return {
        "linear_head_dim": kda.head_dim,
        "linear_num_heads": kda.num_heads,
        "linear_conv_kernel_dim": kda.conv_size,
    }


def _write(spec: ModelSpec) -> Fields:
    moe = shared.ffn_of(spec, "moe")
    return {
        **shared.write_model(spec),
        **shared.write_mla(shared.mixer_of(spec, "mla")),
        **(_write_kda(spec) if shared.has_mixer(spec, "kda") else {}),
        **shared.write_moe(moe, "num_local_experts", "moe_intermediate_size"),
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        "mlp_layer_types": shared.ffn_types(spec, {"dense": "dense", "moe": "sparse"}),
        "intermediate_size": shared.dense_width(spec, moe.intermediate_size),
        "n_shared_experts": moe.num_shared_experts,
        "n_group": moe.num_groups,
        "topk_group": moe.topk_groups,
        "norm_topk_prob": moe.norm_topk_prob,
        "routed_scaling_factor": moe.routed_scaling_factor,
    }


FAMILY = Family(
    model_type="kimi_linear",
    architecture="KimiLinearForCausalLM",
    read=_read,
    write=_write,
    mixers={"kda": KDA, "mla": shared.MLA},
    ffns={
        "dense": shared.DENSE,
        "moe": shared.moe_names("block_sparse_moe", shared.MIXTRAL, shared="shared_experts"),
    },
    # transformers 5.23 saves the dense layers under the experts' name.
    aliases={f"block_sparse_moe.{part}.": f"mlp.{part}." for part in shared.PLAIN},
)
