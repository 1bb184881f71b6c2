"""Nemotron-H and Nemotron 3: every layer is one sublayer, Mamba-2, attention, an MLP or experts.

Attention does not encode positions, whatever rotary fields a config has. The reference clamps time
steps at `time_step_min` and does not read `time_step_limit`.
"""

from __future__ import annotations

from hybridsim.errors import bad_value
from hybridsim.families import shared
from hybridsim.families.bamba import mamba2_names
from hybridsim.families.base import Family, Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.families.shared import Fields
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.mixers.mamba2.settings import Mamba2Settings
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import ModelSpec

SYMBOLS = {"M": "M", "*": "F", "-": "D", "E": "E"}  # of hybrid_override_pattern
TYPES = {
    "linear_attention": "M",
    "full_attention": "F",
    "mlp": "D",
    "moe": "E",
    "mamba": "M",
    "attention": "F",
}
KINDS = {
    "mamba2": "linear_attention",
    "attention": "full_attention",
    "dense": "mlp",
    "moe": "moe",
}
EPS = "layer_norm_epsilon"

ATTENTION: Names = same("mixer", *(f"{part}_proj.weight" for part in "qkvo"))
DENSE: Names = same("mixer", "up_proj.weight", "down_proj.weight")
EXPERT = "mixer.experts.{expert}"
MOE: Names = {
    "router.weight": "mixer.gate.weight",
    "score_correction_bias": "mixer.gate.e_score_correction_bias",
    "experts.up_proj": f"{EXPERT}.up_proj.weight",
    "experts.down_proj": f"{EXPERT}.down_proj.weight",
    "latent_in_proj.weight": "mixer.fc1_latent_proj.weight",
    "latent_out_proj.weight": "mixer.fc2_latent_proj.weight",
    "shared_expert.up_proj.weight": "mixer.shared_experts.up_proj.weight",
    "shared_expert.down_proj.weight": "mixer.shared_experts.down_proj.weight",
}


def _letters(config: ConfigReader) -> Figure:
    """Return a letter a layer, from a list of types or the vendor's pattern of symbols."""
    key = config.first("layers_block_type", "layer_types")
    if config.has(key):
        config.ignore("hybrid_override_pattern")
        types, meanings = config.items(key), TYPES
    else:
        pattern = config.text("hybrid_override_pattern")
        types, meanings = Figure(list(pattern.value), pattern.source), SYMBOLS
    layers = config.integer("num_hidden_layers", len(types.value))
    return shared.letters_of(types.source, types, meanings, layers.value)


def _read_mamba(config: ConfigReader) -> Fields:
    config.expect("mamba_proj_bias", False)
    bias = config.flag("use_bias", False)
    return {
        "kind": "mamba2",
        "num_heads": config.integer("mamba_num_heads"),
        "head_dim": config.integer("mamba_head_dim"),
        "state_size": config.integer("ssm_state_size"),
        "num_groups": config.integer("n_groups"),
        "conv_size": config.integer("conv_kernel"),
        "conv_bias": config.flag("use_conv_bias", True),
        "bias": bias,
        "output_bias": bias,
        "activation": config.choice("mamba_hidden_act", {"silu": "silu"}, "silu"),
        "dt_min": config.number("time_step_min", 0.001),
        "chunk_size": config.integer("chunk_size", 128),
    }


def _read_attention(config: ConfigReader) -> Fields:
    config.expect("attention_bias", False)
    config.expect("sliding_window", None)
    config.ignore("rope_theta", "partial_rotary_factor", "rope_scaling", "rope_parameters")
    head_dim = config.integer(config.first("head_dim", "attention_head_dim"), 128)
    return {
        "kind": "attention",
        "num_heads": config.integer("num_attention_heads"),
        "num_kv_heads": config.integer("num_key_value_heads"),
        "head_dim": head_dim,
    }


def _plain(config: ConfigReader) -> Fields:
    """Return what is the same in all feed-forwards: no gate, one activation."""
    activation = config.choice("mlp_hidden_act", {"relu2": "relu2", "silu": "silu"}, "relu2")
    return {"gated": False, "activation": activation}


def _read_moe(config: ConfigReader) -> Fields:
    latent = {}
    if config.has("moe_latent_size"):
        latent["latent_size"] = config.integer("moe_latent_size")
    return shared.read_moe(
        config,
        "n_routed_experts",
        "moe_intermediate_size",
        num_shared_experts=1,
        shared_intermediate_size=config.integer("moe_shared_expert_intermediate_size"),
        router="sigmoid",
        score_correction_bias=True,
        num_groups=config.integer("n_group", 1),
        topk_groups=config.integer("topk_group", 1),
        norm_topk_prob=config.flag("norm_topk_prob", True),
        routed_scaling_factor=config.number("routed_scaling_factor", 1.0),
        **latent,
        **_plain(config),
    )


MOE_FIELDS = (
    "n_routed_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "moe_shared_expert_intermediate_size",
    "moe_latent_size",
    "n_shared_experts",
    "n_group",
    "topk_group",
    "norm_topk_prob",
    "routed_scaling_factor",
)


def _read_ffns(config: ConfigReader, letters: Figure) -> dict[str, Fields]:
    config.expect("mlp_bias", False)
    config.ignore("intermediate_size", *MOE_FIELDS)  # those that no layer uses
    ffns = {}
    if "D" in letters.value:
        ffns["D"] = shared.read_dense(config, **_plain(config))
    if "E" in letters.value:
        config.expect("n_shared_experts", 1)
        ffns["E"] = _read_moe(config)
    return ffns


def _read(config: ConfigReader) -> Fields:
    _ignore(config)
    letters = _letters(config)
    mixers = {"M": _read_mamba(config), "F": _read_attention(config)}
    return {
        **shared.model_fields(config, eps=EPS, layers=derived(len(letters.value), letters)),
        "layer_pattern": shared.pattern(letters),
        "ffn_pattern": f"({NOTHING})*",
        "mixers": shared.used(letters, mixers),
        "ffns": _read_ffns(config, letters),
    }


def _ignore(config: ConfigReader) -> None:
    """Use the fields that the reference does not read, or only where it initialises weights."""
    config.ignore("hidden_act", "norm_eps", "rms_norm_eps", "expand", "time_step_limit")
    config.ignore("time_step_max", "time_step_floor", "time_step_rank", "rescale_prenorm_residual")
    config.ignore("residual_in_fp32", "mamba_ssm_cache_dtype", "use_mamba_kernels")
    config.ignore("moe_shared_expert_overlap", "num_logits_to_keep")
    config.ignore("mtp_layers_block_type", "mtp_hybrid_override_pattern")
    if config.raw("num_nextn_predict_layers", 0):
        config.notes.append("multi-token prediction layers are no part of the model")


def _types(spec: ModelSpec) -> list[str]:
    """Return a type a layer; SpecError where a layer is not one sublayer of a known kind."""
    kinds = {letter: settings.kind for letter, settings in spec.mixers.items()}
    kinds |= {letter: settings.kind for letter, settings in spec.ffns.items()}
    types = []
    for index, (letter, ffn) in enumerate(zip(spec.layer_letters, spec.ffn_letters, strict=True)):
        found = KINDS.get(kinds.get(letter, ""))
        if found is None or ffn != NOTHING:
            raise bad_value(
                "spec.layer_pattern", letter, f"layer {index + 1} must be one sublayer of its own"
            )
        types.append(found)
    return types


def _write_mamba(settings: Mamba2Settings) -> Fields:
    return {
        "mamba_num_heads": settings.num_heads,
        "mamba_head_dim": settings.head_dim,
        "ssm_state_size": settings.state_size,
        "n_groups": settings.num_groups,
        "conv_kernel": settings.conv_size,
        "use_conv_bias": settings.conv_bias,
        "use_bias": settings.bias,
        "time_step_min": settings.dt_min,
        "chunk_size": settings.chunk_size,
    }


def _write_moe(settings: MoESettings) -> Fields:
    return {
        **shared.write_moe(settings, "n_routed_experts", "moe_intermediate_size"),
        "moe_shared_expert_intermediate_size": settings.shared_width,
        "moe_latent_size": settings.latent_size,
        "n_group": settings.num_groups,
        "topk_group": settings.topk_groups,
        "norm_topk_prob": settings.norm_topk_prob,
        "routed_scaling_factor": settings.routed_scaling_factor,
    }


def _write(spec: ModelSpec) -> Fields:
    fields = {
        **shared.write_model(spec, eps=EPS),
        "layers_block_type": _types(spec),
        **_write_mamba(shared.mixer_of(spec, "mamba2")),
        **shared.write_attention(shared.mixer_of(spec, "attention")),
    }
    if shared.has_ffn(spec, "dense"):
        dense = shared.ffn_of(spec, "dense")
        fields |= {
            "intermediate_size": dense.intermediate_size,
            "mlp_hidden_act": dense.activation,
        }
    if shared.has_ffn(spec, "moe"):
        moe = shared.ffn_of(spec, "moe")
        fields |= {**_write_moe(moe), "mlp_hidden_act": moe.activation}
    return fields


FAMILY = Family(
    model_type="nemotron_h",
    architecture="NemotronHForCausalLM",
    read=_read,
    write=_write,
    mixers={"attention": ATTENTION, "mamba2": mamba2_names("mixer")},
    ffns={"dense": DENSE, "moe": MOE},
    model={
        "embed.weight": "backbone.embeddings.weight",
        "norm.weight": "backbone.norm_f.weight",
        "head.weight": "lm_head.weight",
    },
    layer={"mixer_norm.weight": "norm.weight", "ffn_norm.weight": "norm.weight"},
    layers="backbone.layers.",
    left_out=("mtp.",),
)
