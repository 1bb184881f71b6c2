"""DeepSeek-V3, R1 and Kimi K2: latent attention and grouped sigmoid routing."""

from __future__ import annotations

from hybridsim.families import shared
from hybridsim.families.base import Family
from hybridsim.families.config import ConfigReader, Figure
from hybridsim.families.shared import Fields
from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings
from hybridsim.spec.schema import ModelSpec


def read_common(config: ConfigReader) -> None:
    """Use the fields that say one thing in every model of the family."""
    config.expect("hidden_act", "silu")
    config.expect("attention_bias", False)
    config.expect("moe_layer_freq", 1)
    config.expect("scoring_func", "sigmoid")
    config.expect("topk_method", "noaux_tc")
    # Splits of the same products, training losses, other parts' sizes.
    config.ignore("pretraining_tp", "ep_size", "aux_loss_alpha", "seq_aux")
    shared.ignore_multi_token_prediction(config)


def read_ffns(config: ConfigReader) -> Fields:
    """Return dense layers first, then experts."""
    layers = config.integer("num_hidden_layers").value
    config.ignore("first_k_dense_replace")
    if config.has("mlp_layer_types"):
        letters = shared.letters_of(
            "mlp_layer_types",
            config.items("mlp_layer_types"),
            {"dense": "D", "sparse": "E"},
            layers,
        )
    else:
        config.ignore("mlp_layer_types")
        dense = config.integer("first_k_dense_replace")
        letters = Figure(
            "D" * min(dense.value, layers) + "E" * max(layers - dense.value, 0), dense.source
        )
    parts = {"D": shared.read_dense(config), "E": read_moe(config)}
    return {"ffn_pattern": shared.pattern(letters), "ffns": shared.used(letters, parts)}


def read_moe(config: ConfigReader) -> Fields:
    """Return the routed and shared experts."""
    return shared.read_moe(
        config,
        "n_routed_experts",
        "moe_intermediate_size",
        num_shared_experts=config.integer("n_shared_experts"),
        router="sigmoid",
        score_correction_bias=True,
        num_groups=config.integer("n_group", 1),
        topk_groups=config.integer("topk_group", 1),
        norm_topk_prob=config.flag("norm_topk_prob"),
        routed_scaling_factor=config.number("routed_scaling_factor"),
    )


def write_ffns(spec: ModelSpec) -> Fields:
    """Return the fields that `read_ffns` reads."""
    moe = shared.ffn_of(spec, "moe")
    types = shared.ffn_types(spec, {"dense": "dense", "moe": "sparse"})
    return {
        **shared.write_moe(moe, "n_routed_experts", "moe_intermediate_size"),
        "first_k_dense_replace": shared.leading(types, "dense", "spec.ffn_pattern"),
        "intermediate_size": shared.dense_width(spec, moe.intermediate_size),
        "n_shared_experts": moe.num_shared_experts,
        "n_group": moe.num_groups,
        "topk_group": moe.topk_groups,
        "norm_topk_prob": moe.norm_topk_prob,
        "routed_scaling_factor": moe.routed_scaling_factor,
    }


def write_mla(latent: MultiHeadLatentAttentionSettings) -> Fields:
    """Return the fields of latent attention, rotated."""
    rope = shared.require_rope(latent)
    return {
        **shared.write_mla(latent),
        "rope_parameters": shared.write_rope(rope, latent.qk_rope_head_dim),
        "rope_interleave": rope.interleaved,
    }


def _read(config: ConfigReader) -> Fields:
    read_common(config)
    latent = shared.read_mla(config)
    rope = shared.read_rope(
        config, latent["qk_rope_head_dim"], interleaved=config.flag("rope_interleave", True)
    )
    return {
        **shared.model_fields(config),
        **read_ffns(config),
        "layer_pattern": "(F)*",
        "mixers": {"F": latent | {"rope": rope}},
    }


def _write(spec: ModelSpec) -> Fields:
    return {
        **shared.write_model(spec),
        **write_mla(shared.mixer_of(spec, "mla")),
        **write_ffns(spec),
    }


FAMILY = Family(
    model_type="deepseek_v3",
    architecture="DeepseekV3ForCausalLM",
    read=_read,
    write=_write,
    mixers={"mla": shared.MLA},
    ffns={"dense": shared.DENSE, "moe": shared.moe_names("mlp", shared="shared_experts")},
    other_types=("kimi_k2",),
    left_out=("model.layers.{num_layers}.",),
)
