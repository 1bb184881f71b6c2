"""What families have in common: pieces that read and write configs, and names of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hybridsim.components import RopeSettings
from hybridsim.errors import SpecError, bad_value
from hybridsim.families.base import Names, same
from hybridsim.families.config import ConfigReader, Figure, derived
from hybridsim.ffn import FfnSettings
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.mixers import MixerSettings
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings
from hybridsim.spec.pattern import NOTHING, compress_pattern
from hybridsim.spec.schema import ModelSpec

Fields = dict[str, Any]

# ---- patterns -------------------------------------------------------------------------------


def layer_letters(config: ConfigReader, meanings: Mapping[str, str], default: Any = None) -> Figure:
    """Return one letter a layer from `layer_types`.

    Args:
        config: with `num_hidden_layers` and, unless there is a default, `layer_types`.
        meanings: a layer type's letter.
        default: from a layer's number, counted from 0, its type where the field is absent.

    Raises:
        SpecError: a type has no letter, or there are not as many as layers.
    """
    layers = config.integer("num_hidden_layers").value
    if default is not None and not config.has("layer_types"):
        config.ignore("layer_types")
        return Figure("".join(meanings[default(i)] for i in range(layers)), "layer_types absent")
    types = config.items("layer_types")
    return letters_of("layer_types", types, meanings, layers)


def letters_of(key: str, types: Figure, meanings: Mapping[Any, str], layers: int) -> Figure:
    """Return one letter a layer from a list of types."""
    if len(types.value) != layers:
        raise bad_value(
            f"config.{key}", f"{len(types.value)} entries", f"num_hidden_layers is {layers}"
        )
    for one in types.value:
        if one not in meanings:
            known = ", ".join(map(str, meanings))
            raise bad_value(f"config.{key}", one, f"only {known} can be read")
    return Figure("".join(meanings[one] for one in types.value), types.source)


def pattern(letters: Figure) -> Figure:
    """Return the shortest pattern of one letter a layer."""
    return Figure(compress_pattern(letters.value), letters.source)


def used(letters: Figure, parts: Mapping[str, Fields]) -> dict[str, Fields]:
    """Return the mixers or feed-forwards whose letters occur."""
    return {letter: part for letter, part in parts.items() if letter in letters.value}


# Families with windowed and full layers have one attention of each.
WINDOWED = {"sliding_attention": "S", "full_attention": "F"}


def every_nth_full(period: int) -> Callable[[int], str]:
    """Return a layer's type from its number: every `period`-th is full, the others windowed."""
    return lambda layer: "full_attention" if (layer + 1) % period == 0 else "sliding_attention"


def read_windowed(
    config: ConfigReader, letters: Figure, windowed: Fields, full: Fields, window: int
) -> dict[str, Fields]:
    """Return the mixers that occur: S, with `sliding_window`, and F.

    Args:
        config: the fields.
        letters: a letter a layer, from WINDOWED.
        windowed: the windowed layers' attention but for its window.
        full: the full layers' attention.
        window: the window where the config is silent.
    """
    keys = config.integer("sliding_window", window)
    return used(letters, {"S": windowed | {"window": keys}, "F": full})


def model_fields(
    config: ConfigReader,
    *,
    eps: str = "rms_norm_eps",
    tied: bool = False,
    context: Figure | None = None,
    layers: Figure | None = None,
    **norm: Any,
) -> Fields:
    """Return width, layers, vocabulary, context, norm and tying, named as nearly all families do.

    Args:
        config: the fields.
        eps: the key of the norms' epsilon.
        tied: whether the head is tied where the config is silent.
        context: the native context where it is not `max_position_embeddings`.
        layers: how many layers there are where it is not `num_hidden_layers`.
        norm: further settings of the norms.
    """
    return {
        "hidden_size": config.integer("hidden_size"),
        "num_layers": layers or config.integer("num_hidden_layers"),
        "vocab_size": config.integer("vocab_size"),
        "native_context": context or config.integer("max_position_embeddings"),
        "norm": {"eps": config.number(eps), **norm},
        "tie_word_embeddings": config.flag("tie_word_embeddings", tied),
    }


_MULTI_TOKEN_PREDICTION = (
    "mtp_num_hidden_layers",
    "mtp_transformer_layers",
    "num_mtp_layers",
    "num_mtp_modules",
    "num_nextn_predict_layers",
    "use_mtp",
)


def ignore_multi_token_prediction(config: ConfigReader) -> None:
    """Use the fields of layers that only draft further tokens; say so where there are any."""
    given = any(config.fields.get(name) for name in _MULTI_TOKEN_PREDICTION)
    note = "multi-token prediction layers are no part of the model"
    config.ignore(*_MULTI_TOKEN_PREDICTION, note=note if given else "")


def write_model(spec: ModelSpec, *, eps: str = "rms_norm_eps") -> Fields:
    """Return the fields that `model_fields` reads."""
    return {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_layers,
        "vocab_size": spec.vocab_size,
        "max_position_embeddings": spec.native_context,
        eps: spec.norm.eps,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "hidden_act": "silu",
        # A spec has no tokenizer, and the class's own may lie outside the vocabulary.
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id")),
    }


# ---- the parts of a spec that a family has one of --------------------------------------------


def mixer_of(spec: ModelSpec, kind: str) -> Any:
    """Return the one mixer of a kind that the spec's layers use.

    Raises:
        SpecError: they use none, or several that differ.
    """
    parts = {m for letter in spec.layer_letters for m in spec.layer_mixers(letter)}
    return _only(kind, "mixer", (spec.mixers[m] for m in sorted(parts)))


def ffn_of(spec: ModelSpec, kind: str) -> Any:
    """Return the one feed-forward of a kind that the spec's layers use; SpecError as above."""
    return _only(kind, "feed-forward", (s for s in _used_ffns(spec)))


def has_ffn(spec: ModelSpec, kind: str) -> bool:
    """Whether the spec's layers use a feed-forward of a kind."""
    return any(settings.kind == kind for settings in _used_ffns(spec))


def has_mixer(spec: ModelSpec, kind: str) -> bool:
    """Whether the spec's layers use a mixer of a kind."""
    parts = {m for letter in spec.layer_letters for m in spec.layer_mixers(letter)}
    return any(spec.mixers[m].kind == kind for m in parts)


def _used_ffns(spec: ModelSpec) -> list[FfnSettings]:
    letters = set(spec.layer_letters + spec.ffn_letters)
    return [settings for letter, settings in spec.ffns.items() if letter in letters]


def _only(kind: str, noun: str, parts: Iterable[MixerSettings | FfnSettings]) -> Any:
    found = {settings for settings in parts if settings.kind == kind}
    if len(found) != 1:
        raise SpecError(
            f"spec: the family has one {noun} of kind {kind}, the spec uses {len(found)} of them"
        )
    return found.pop()


def layer_types(spec: ModelSpec, name: Callable[[MixerSettings], str | None]) -> list[str]:
    """Return a type a layer from its one mixer.

    Raises:
        SpecError: a layer has no mixer or several, or `name` has none for its mixer.
    """
    types = []
    for index, letter in enumerate(spec.layer_letters):
        parts = spec.layer_mixers(letter)
        found = name(spec.mixers[parts]) if len(parts) == 1 else None
        if found is None:
            raise bad_value("spec.layer_pattern", letter, f"layer {index + 1} has no type for it")
        types.append(found)
    return types


def ffn_types(spec: ModelSpec, names: Mapping[str, str]) -> list[str]:
    """Return a type a layer from the kind of its feed-forward; SpecError where there is none."""
    types = []
    for index, letter in enumerate(spec.ffn_letters):
        if letter == NOTHING or spec.ffns[letter].kind not in names:
            raise bad_value("spec.ffn_pattern", letter, f"layer {index + 1} has no type for it")
        types.append(names[spec.ffns[letter].kind])
    return types


def windowed_and_full(spec: ModelSpec) -> tuple[Any, Any]:
    """Return the spec's one attention with a window and its one without; None where none is used.

    Raises:
        SpecError: there is neither, or one of them is not one.
    """
    groups: dict[bool, set[MixerSettings]] = {True: set(), False: set()}
    for letter in spec.layer_letters:
        for settings in (spec.mixers[part] for part in spec.layer_mixers(letter)):
            groups[getattr(settings, "window", None) is not None].add(settings)
    windowed, full = groups[True], groups[False]
    return (
        _only("attention", "windowed mixer", windowed) if windowed else None,
        _only("attention", "mixer without a window", full) if full or not windowed else None,
    )


def write_windowed(spec: ModelSpec, windowed: AttentionSettings | None) -> Fields:
    """Return the layers and the window that `read_windowed` reads."""

    def layer_type(settings: MixerSettings) -> str:
        return "full_attention" if settings.is_full_attention else "sliding_attention"

    return {
        "layer_types": layer_types(spec, layer_type),
        "sliding_window": None if windowed is None else windowed.window,
    }


def leading(types: Sequence[str], first: str, key: str) -> int:
    """Return how many layers of type `first` stand in front; SpecError if one stands later."""
    count = next((i for i, one in enumerate(types) if one != first), len(types))
    if first in types[count:]:
        raise bad_value(key, first, "can only stand before all others")
    return count


# ---- rotary encoding -------------------------------------------------------------------------

_SCALINGS = {
    "default": "none",
    **{name: name for name in ("none", "linear", "llama3", "yarn")},
}


def read_rope(
    config: ConfigReader,
    head_dim: Figure,
    *,
    theta: float | None = None,
    partial: float = 1.0,
    interleaved: Any = False,
) -> Fields:
    """Return rotary settings, from today's `rope_parameters` or the older single fields.

    Args:
        config: the fields.
        head_dim: channels of the head that is rotated.
        theta: base where the config is silent; None makes it an error.
        partial: the rotated part of a head where the config is silent.
        interleaved: whether pairs are neighbours.
    """
    given = config.section("rope_parameters" if config.has("rope_parameters") else "rope_scaling")
    config.ignore("rope_parameters", "rope_scaling")
    base = given if given.has("rope_theta") else config
    rope: Fields = {
        "theta": base.number("rope_theta", theta) if theta else base.number("rope_theta"),
        "interleaved": interleaved,
    }
    config.ignore("rope_theta")
    # A text token has the same position in all sections of a multimodal encoding.
    given.ignore("type", "mrope_section", "mrope_interleaved")
    if rotary := _rotary_dim(config, given, head_dim, partial):
        rope["rotary_dim"] = rotary
    kind = "rope_type" if given.has("rope_type") else "type"
    scaling = given.choice(kind, _SCALINGS, "default")
    if scaling.value != "none":
        rope |= {"scaling": scaling, **_read_scaling(config, given, scaling.value)}
    return rope


def _rotary_dim(
    config: ConfigReader, given: ConfigReader, head_dim: Figure, partial: float
) -> Figure | None:
    """Return how many channels are rotated, None for all."""
    if config.has("rotary_dim"):
        for place in (config, given):
            place.ignore("partial_rotary_factor")  # says the same
        rotary = config.integer("rotary_dim")
    else:
        place = given if given.has("partial_rotary_factor") else config
        factor = place.number("partial_rotary_factor", partial)
        config.ignore("partial_rotary_factor")
        rotary = derived(int(head_dim.value * factor.value), head_dim, factor)
    return None if rotary.value == head_dim.value else rotary


def _read_scaling(config: ConfigReader, given: ConfigReader, scaling: str) -> Fields:
    original = "original_max_position_embeddings"
    fields: Fields = {"factor": given.number("factor")}
    if scaling == "linear":
        return fields
    if scaling == "llama3":
        names = ("low_freq_factor", "high_freq_factor")
        fields |= {name: given.number(name) for name in names}
    if scaling == "yarn":
        defaults = RopeSettings()
        for name in ("beta_fast", "beta_slow", "mscale", "mscale_all_dim"):
            if given.has(name):
                fields[name] = given.number(name, getattr(defaults, name))
            given.ignore(name)
        given.expect("attention_factor", None)
        fields["truncate"] = given.flag("truncate", True)
    fields["original_context"] = given.integer(original)
    return fields


def write_rope(rope: RopeSettings, head_dim: int) -> Fields:
    """Return the `rope_parameters` that `read_rope` reads."""
    fields: Fields = {"rope_type": "default", "rope_theta": rope.theta}
    if rope.rotary_dim is not None and rope.rotary_dim != head_dim:
        fields["partial_rotary_factor"] = rope.rotary_dim / head_dim
    if rope.scaling == "none":
        return fields
    fields |= {"rope_type": rope.scaling, "factor": rope.factor}
    if rope.scaling == "linear":
        return fields
    fields["original_max_position_embeddings"] = rope.original_context
    if rope.scaling == "llama3":
        names: tuple[str, ...] = ("low_freq_factor", "high_freq_factor")
    else:
        names = ("beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
    return fields | {name: getattr(rope, name) for name in names}


def require_rope(settings: Any) -> RopeSettings:
    """Return a mixer's rotary settings; SpecError where it has none."""
    if settings.rope is None:
        raise bad_value(f"{settings.kind}.rope", None, "the family always rotates")
    rope: RopeSettings = settings.rope
    return rope


# ---- attention -------------------------------------------------------------------------------


def head_dim_of(config: ConfigReader) -> Figure:
    """Return `head_dim`, the model's width over its heads where the config is silent."""
    if config.has("head_dim"):
        return config.integer("head_dim")
    config.ignore("head_dim")
    width, heads = config.integer("hidden_size"), config.integer("num_attention_heads")
    return derived(
        width.value // heads.value, width, heads, how="hidden_size / num_attention_heads"
    )


def read_attention(config: ConfigReader, **more: Any) -> Fields:
    """Return grouped-query attention; `more` are further settings, which win."""
    heads = config.integer("num_attention_heads")
    return {
        "kind": "attention",
        "num_heads": heads,
        "num_kv_heads": config.integer("num_key_value_heads", heads.value),
        "head_dim": head_dim_of(config),
        **more,
    }


def write_attention(settings: AttentionSettings) -> Fields:
    """Return the fields that `read_attention` reads."""
    return {
        "num_attention_heads": settings.num_heads,
        "num_key_value_heads": settings.num_kv_heads,
        "head_dim": settings.head_dim,
    }


_MLA = ("kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
# The reference normalises the bottlenecks with this epsilon, whatever `rms_norm_eps` says.
_LATENT_EPS = 1e-6


def read_mla(config: ConfigReader, **more: Any) -> Fields:
    """Return multi-head latent attention."""
    config.ignore("num_key_value_heads", "head_dim", "qk_head_dim")  # no part of it
    rank = {"q_lora_rank": config.integer("q_lora_rank")} if config.has("q_lora_rank") else {}
    config.ignore("q_lora_rank")
    other_eps = config.number("rms_norm_eps").value != _LATENT_EPS
    return {
        "kind": "mla",
        "num_heads": config.integer("num_attention_heads"),
        **rank,
        **{name: config.integer(name) for name in _MLA},
        **({"norm_eps": _LATENT_EPS} if other_eps else {}),
        **more,
    }


def write_mla(settings: MultiHeadLatentAttentionSettings) -> Fields:
    """Return the fields that `read_mla` reads."""
    return {
        "num_attention_heads": settings.num_heads,
        "num_key_value_heads": settings.num_heads,
        "q_lora_rank": settings.q_lora_rank,
        **{name: getattr(settings, name) for name in _MLA},
    }


# ---- feed-forwards ---------------------------------------------------------------------------


def read_dense(config: ConfigReader, key: str = "intermediate_size", **more: Any) -> Fields:
    """Return a gated dense feed-forward."""
    return {"kind": "dense", "intermediate_size": config.integer(key), **more}


# Today's writer calls the number of experts this in every family; published configs differ.
LOCAL_EXPERTS = "num_local_experts"


def read_moe(config: ConfigReader, experts: str, inner: str, **more: Any) -> Fields:
    """Return a mixture of experts; `experts` and `inner` are the keys of their number and width."""
    return {
        "kind": "moe",
        "num_experts": config.integer(config.first(experts, LOCAL_EXPERTS)),
        "num_experts_per_tok": config.integer("num_experts_per_tok"),
        "intermediate_size": config.integer(inner),
        **more,
    }


def write_moe(settings: MoESettings, experts: str, inner: str) -> Fields:
    """Return the fields that `read_moe` reads."""
    return {
        experts: settings.num_experts,
        "num_experts_per_tok": settings.num_experts_per_tok,
        inner: settings.intermediate_size,
    }


def dense_width(spec: ModelSpec, otherwise: int) -> int:
    """Return the width of the spec's dense feed-forward, or another where it has none."""
    if not has_ffn(spec, "dense"):
        return otherwise
    dense: DenseSettings = ffn_of(spec, "dense")
    return dense.intermediate_size


# ---- names of tensors ------------------------------------------------------------------------

ATTENTION: Names = same(
    "self_attn",
    *(f"{part}_proj.{kind}" for part in "qkvo" for kind in ("weight", "bias")),
    "q_norm.weight",
    "k_norm.weight",
)
MLA: Names = {
    **same("self_attn", "q_proj.weight", "q_a_proj.weight", "q_b_proj.weight"),
    **same("self_attn", "kv_b_proj.weight", "o_proj.weight"),
    "q_a_norm.weight": "self_attn.q_a_layernorm.weight",
    "kv_a_proj.weight": "self_attn.kv_a_proj_with_mqa.weight",
    "kv_a_norm.weight": "self_attn.kv_a_layernorm.weight",
}
DENSE: Names = {
    "gate_up_proj.weight": "mlp.gate_proj.weight + mlp.up_proj.weight",
    "down_proj.weight": "mlp.down_proj.weight",
}
PLAIN = ("gate_proj", "up_proj", "down_proj")
MIXTRAL = ("w1", "w3", "w2")


def moe_names(
    block: str, parts: tuple[str, str, str] = PLAIN, *, shared: str = "", bias: str = ""
) -> Names:
    """Return the names of a mixture of experts, stored one by one or, as in Qwen3.5, stacked.

    Args:
        block: the mixture's place in a layer.
        parts: what an expert's gate, up and down projections are called.
        shared: what the shared experts are called.
        bias: what the offsets for choosing experts are called.
    """
    gate, up, down = parts
    expert = f"{block}.experts.{{expert}}"
    stacked = f"{block}.experts"
    names = {
        "router.weight": f"{block}.gate.weight",
        "score_correction_bias": f"{block}.{bias or 'gate.e_score_correction_bias'}",
        "experts.gate_up_proj": f"{expert}.{gate}.weight + {expert}.{up}.weight"
        f" | {stacked}.gate_up_proj",
        "experts.down_proj": f"{expert}.{down}.weight | {stacked}.down_proj",
        "shared_expert_gate.weight": f"{block}.shared_expert_gate.weight",
    }
    if shared:
        inside = f"{block}.{shared}"
        names["shared_expert.gate_up_proj.weight"] = (
            f"{inside}.gate_proj.weight + {inside}.up_proj.weight"
        )
        names["shared_expert.down_proj.weight"] = f"{inside}.down_proj.weight"
    return names
