"""Ling 3.0: Kimi Delta Attention with the last layer of every group latent attention, and experts.

Published configs say more than the reference implementation reads, and the checkpoints follow them:
the clamped activations of the last layers, and the query's bottleneck of Ling-3.0-tiny. Its saved
configs name fields differently; both read.
"""

from __future__ import annotations

from dataclasses import replace

from hybridsim.errors import SpecError, bad_value
from hybridsim.families import shared
from hybridsim.families.base import LAYER, Family, Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.spec.schema import ModelSpec

TYPES = {"linear_attention": "L", "full_attention": "F"}
KINDS = {"kda": "linear_attention", "mla": "full_attention"}
LIMITS = {
    "activation_limit": "expert_swiglu_limit_list",
    "shared_activation_limit": "share_expert_swiglu_limit_list",
}  # our setting -> its key
MOE_LETTERS = "EGHIJKMNOPQRSTUVWXYZ"  # one for each pair of limits

KDA: Names = {
    **same("attention", *(f"{part}_proj.weight" for part in "qkvbfg")),
    **same("attention", "dt_bias", "A_log", "o_norm.weight"),
    "conv1d.weight": " + ".join(f"attention.{part}_conv1d.weight" for part in "qkv"),
    # transformers 5.23 saves it under the name that latent attention has for it.
    "o_proj.weight": "attention.o_proj.weight | attention.dense.weight",
}
MLA: Names = {
    name: source.replace("self_attn.", "attention.")
    for name, source in {**shared.MLA, "g_proj.weight": "self_attn.g_proj.weight"}.items()
    if isinstance(source, str)
} | {"o_proj.weight": "attention.dense.weight"}


def _letters(config: ConfigReader) -> Figure:
    """Return a letter a layer: a list of types, or groups whose last layer is full."""
    if config.has("layer_types"):
        config.ignore("layer_group_size")
        return shared.layer_letters(config, TYPES)
    group, layers = config.integer("layer_group_size"), config.integer("num_hidden_layers")
    if layers.value % group.value:
        # The vendor's code has full layers there, the reference linear ones.
        raise bad_value(
            "config.num_hidden_layers",
            layers.value,
            f"must be a multiple of layer_group_size={group.value}; or give layer_types",
        )
    config.ignore("layer_types")
    return Figure(("L" * (group.value - 1) + "F") * (layers.value // group.value), group.source)


def _read_kda(config: ConfigReader) -> Fields:
    config.expect("no_kda_lora", True)
    config.expect("use_kda_lora", False)
    config.expect("kda_conv_bias", False)
    # What the reference saves calls the rotated channels `head_dim`.
    head_dim = "linear_head_dim" if config.has("linear_head_dim") else "head_dim"
    heads = "linear_num_heads" if config.has("linear_num_heads") else "num_attention_heads"
    kda: Fields = {
        "kind": "kda",
        "num_heads": config.integer(heads),
        "head_dim": config.integer(head_dim),
        "gate_rank": None,
        "conv_size": config.integer(
            config.first("linear_conv_kernel_dim", "short_conv_kernel_size")
        ),
    }
    config.ignore("linear_head_dim", "linear_num_heads", "kda_lower_bound")
    if config.flag("kda_safe_gate", True).value:
        kda["gate_lower_bound"] = config.number("kda_lower_bound", -5.0)
    return kda


def _read_mla(config: ConfigReader) -> Fields:
    config.expect("gated_attention_proj_granularity_type", "head_wise")
    config.expect("use_mla_nope", False)
    config.expect("rope_interleave", True)
    latent = shared.read_mla(config, head_gate=True)
    rope = shared.read_rope(config, latent["qk_rope_head_dim"], interleaved=True)
    # `rotary_dim` and `partial_rotary_factor` speak of a whole head, of which these channels are
    # the rotated part.
    rope.pop("rotary_dim", None)
    return latent | {"rope": rope}


def _limits(config: ConfigReader, key: str, layers: int) -> Figure:
    """Return a limit a layer, None where there is none."""
    limits = config.items(key, [0] * layers)
    if len(limits.value) != layers:
        raise bad_value(
            f"config.{key}", f"{len(limits.value)} entries", f"num_hidden_layers is {layers}"
        )
    return Figure([float(limit) if limit else None for limit in limits.value], limits.source)


def _ffn_types(config: ConfigReader) -> Figure:
    layers = config.integer("num_hidden_layers").value
    if config.has("mlp_layer_types"):
        config.ignore("first_k_dense_replace")
        return config.items("mlp_layer_types")
    dense = config.integer("first_k_dense_replace")
    config.ignore("mlp_layer_types")
    return Figure(["dense"] * dense.value + ["sparse"] * (layers - dense.value), dense.source)


def _read_moe(config: ConfigReader) -> Fields:
    config.expect("score_function", "sigmoid")
    config.expect("scoring_func", "sigmoid")
    config.expect("topk_method", "noaux_tc")
    config.expect("moe_router_enable_expert_bias", True)
    config.expect("scale_router_input", False)
    config.ignore("router_dtype")
    experts = config.first("num_experts", shared.LOCAL_EXPERTS)
    inner = config.integer("moe_intermediate_size")
    return {
        "kind": "moe",
        "num_experts": config.integer(experts),
        "num_experts_per_tok": config.integer(
            config.first("num_experts_per_token", "num_experts_per_tok")
        ),
        "intermediate_size": inner,
        "num_shared_experts": config.integer(
            config.first("num_shared_experts", "n_shared_experts")
        ),
        "shared_intermediate_size": config.integer(
            "moe_shared_expert_intermediate_size", inner.value
        ),
        "router": "sigmoid",
        "score_correction_bias": True,
        "num_groups": config.integer(config.first("num_expert_group", "n_group")),
        "topk_groups": config.integer("topk_group"),
        "norm_topk_prob": config.flag(config.first("moe_renormalize", "norm_topk_prob")),
        "routed_scaling_factor": config.number("routed_scaling_factor"),
    }


def _read_ffns(config: ConfigReader) -> Fields:
    """Return a letter for the dense layers and one for each pair of limits of the others."""
    layers = config.integer("num_hidden_layers").value
    types = _ffn_types(config)
    kinds = shared.letters_of("mlp_layer_types", types, {"dense": "D", "sparse": "E"}, layers)
    limits = {setting: _limits(config, key, layers) for setting, key in LIMITS.items()}
    pairs = [tuple(limit.value[i] for limit in limits.values()) for i in range(layers)]
    by_layer = list(zip(kinds.value, pairs, strict=True))
    letter_of = dict(
        zip(
            dict.fromkeys(pair for kind, pair in by_layer if kind == "E"), MOE_LETTERS, strict=False
        )
    )
    letters = "".join(letter_of[pair] if kind == "E" else kind for kind, pair in by_layer)
    parts, moe = {"D": shared.read_dense(config)}, _read_moe(config)
    for pair, letter in letter_of.items():
        found = zip(limits.items(), pair, strict=True)
        parts[letter] = moe | {
            setting: Figure(one, limit.source) for (setting, limit), one in found if one is not None
        }
    sources = [types, *(limit for limit in limits.values() if any(limit.value))]
    pattern = shared.pattern(derived(letters, *sources))
    return {"ffn_pattern": pattern, "ffns": {x: parts[x] for x in parts if x in letters}}


def _read(config: ConfigReader) -> Fields:
    config.expect("hidden_act", "silu")
    for name in ("attention_bias", "use_bias", "use_qkv_bias"):
        config.expect(name, False)
    for name in ("use_nGPT", "up_proj_norm", "value_norm"):
        config.expect(name, False)
    # Of layers that this generation does not have, of training, or always so.
    config.ignore("group_norm_size", "linear_silu", "max_window_layers", "use_qk_norm")
    config.ignore("num_kv_heads_for_linear_attn", "seq_aux", "pretraining_tp")
    config.ignore("mtp_loss_scaling_factor", "mtp_use_kda")
    shared.ignore_multi_token_prediction(config)
    letters = _letters(config)
    context = config.integer(config.first("model_max_length", "max_position_embeddings"))
    mixers = {"L": _read_kda(config), "F": _read_mla(config)}
    return {
        **shared.model_fields(config, context=context),
        **_read_ffns(config),
        "layer_pattern": shared.pattern(letters),
        "mixers": shared.used(letters, mixers),
    }


def _write_kda(kda: KimiDeltaAttentionSettings) -> Fields:
    return {
        "head_dim": kda.head_dim,
        "short_conv_kernel_size": kda.conv_size,
        "kda_safe_gate": kda.gate_lower_bound is not None,
        "kda_lower_bound": kda.gate_lower_bound or -5.0,
    }


def _write_mla(spec: ModelSpec) -> Fields:
    latent = shared.mixer_of(spec, "mla")
    if latent.q_lora_rank is not None:
        raise bad_value(
            "spec.mla.q_lora_rank",
            latent.q_lora_rank,
            "the reference projects queries directly, whatever a config says",
        )
    return {
        **shared.write_mla(latent),
        "rope_parameters": shared.write_rope(shared.require_rope(latent), latent.qk_rope_head_dim),
    }


def _write_moe(spec: ModelSpec) -> Fields:
    """Return the one mixture of experts that all sparse layers have, but for its limits."""
    free = {
        letter: replace(settings, activation_limit=None, shared_activation_limit=None)
        if isinstance(settings, MoESettings)
        else settings
        for letter, settings in spec.ffns.items()
    }
    moe: MoESettings = shared.ffn_of(replace(spec, ffns=free), "moe")
    if moe.shared_width % moe.intermediate_size:
        raise SpecError(
            f"spec: the family's shared experts are as wide as its routed ones,"
            f" {moe.intermediate_size}, not {moe.shared_width} together"
        )
    return {
        **shared.write_moe(moe, "num_experts", "moe_intermediate_size"),
        "intermediate_size": shared.dense_width(spec, moe.intermediate_size),
        "num_shared_experts": moe.shared_width // moe.intermediate_size,
        "n_group": moe.num_groups,
        "topk_group": moe.topk_groups,
        "norm_topk_prob": moe.norm_topk_prob,
        "routed_scaling_factor": moe.routed_scaling_factor,
    }


def _write_limits(spec: ModelSpec) -> Fields:
    """Return the limits of the experts' activations, where there are any."""
    used = [spec.ffns[letter] for letter in spec.ffn_letters]
    lists = {
        key: [getattr(ffn, setting, None) or 0 for ffn in used] for setting, key in LIMITS.items()
    }
    return lists if any(any(limits) for limits in lists.values()) else {}


def _write(spec: ModelSpec) -> Fields:
    types = shared.ffn_types(spec, {"dense": "dense", "moe": "sparse"})
    return {
        **shared.write_model(spec),
        **_write_mla(spec),
        **_write_kda(shared.mixer_of(spec, "kda")),
        **_write_moe(spec),
        **_write_limits(spec),
        "layer_types": shared.layer_types(spec, lambda settings: KINDS.get(settings.kind)),
        "first_k_dense_replace": shared.leading(types, "dense", "spec.ffn_pattern"),
    }


FAMILY = Family(
    model_type="bailing_hybrid",
    architecture="BailingHybridForCausalLM",
    read=_read,
    write=_write,
    mixers={"kda": KDA, "mla": MLA},
    ffns={
        "dense": shared.DENSE,
        "moe": shared.moe_names("mlp", shared="shared_experts", bias="gate.expert_bias"),
    },
    model={
        "embed.weight": "model.word_embeddings.weight",
        "norm.weight": "model.norm.weight",
        "head.weight": "lm_head.weight",
    },
    layer=LAYER,
    left_out=("model.layers.{num_layers}.", "model.mtp."),
)
