"""Mistakes that a user may make in a spec: each breaks one thing of a valid one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import strategies as st
from strategies import FFN_STRATEGIES, MIXER_STRATEGIES, Draw, Fields, sampled

from hybridsim.ffn import ffn_settings_class
from hybridsim.mixers import settings_class
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import ModelSpec

# Changes a mapping; returns the dotted key that the message must name, None where the spec has no
# place for the mistake.
Mistake = Callable[[Draw, Fields], str | None]

UNUSED = "Q"  # a letter that no random spec defines
FREE_TEXT = ("name", "description", "released", "published", "sources")
GROUPS = {"mixers": settings_class, "ffns": ffn_settings_class}


# --- The places of a spec ---


def levels(mapping: Fields) -> Iterator[tuple[str, Fields, type]]:
    """Yield the dotted key, the mapping and the settings class of every level of a spec."""
    yield "", mapping, ModelSpec
    for group, cls in GROUPS.items():
        for letter, part in mapping[group].items():
            yield from _nested(f"{group}.{letter}", part, cls(part["kind"]))
    for name in ("norm", "residual"):
        yield from _nested(name, mapping[name], get_type_hints(ModelSpec)[name])


def _nested(key: str, mapping: Fields, cls: type) -> Iterator[tuple[str, Fields, type]]:
    yield key, mapping, cls
    for name, hint in get_type_hints(cls).items():
        for option in get_args(hint):
            if is_dataclass(option) and mapping.get(name) is not None:
                yield from _nested(f"{key}.{name}", mapping[name], option)


def places(mapping: Fields) -> Iterator[tuple[str, Fields, str, Any]]:
    """Yield the dotted key, owner, name and type of every field that has a meaning."""
    for key, level, cls in levels(mapping):
        hints = get_type_hints(cls)
        for field in fields(cls):
            if key or field.name not in FREE_TEXT:
                yield _dotted(key, field.name), level, field.name, hints[field.name]
    for group in ("parallel", "norm_placement"):
        for letter in mapping[group]:
            yield f"{group}.{letter}", mapping[group], letter, str


def _dotted(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _type(hint: Any) -> Any:
    """Return the one type of a hint, null left out."""
    if get_origin(hint) in (dict, tuple):
        return hint
    return next((option for option in get_args(hint) if option is not NoneType), hint)


def _change(draw: Draw, mapping: Fields, types: tuple[Any, ...], values: list[Any]) -> str | None:
    """Give a field of one of the types one of the values."""
    found = [place for place in places(mapping) if place[3] in types or _type(place[3]) in types]
    if not found:
        return None
    key, owner, name, _ = draw(sampled(found))
    owner[name] = draw(sampled(values))
    return key


# --- Fields ---

NO_INTEGERS = ["4", 4.0, True, [4], {"a": 4}, math.nan]
NO_NUMBERS = ["0.1", True, [0.1], {"a": 0.1}]
NO_TEXTS = [1.5, True, ["a"], {"a": "b"}]
NO_TRUTHS = [0, 1, "true", [True]]
NO_MAPPINGS = [0, 5, "", "x", [], [1], True]


def unknown_field(draw: Draw, mapping: Fields) -> str:
    key, level, _ = draw(sampled(list(levels(mapping))))
    name = draw(sampled(["nonsense", "Hidden_size", "num_head", "", "eps "]))
    level[name] = 1
    return _dotted(key, name)


def missing_field(draw: Draw, mapping: Fields) -> str:
    required = [
        (key, level, field.name)
        for key, level, cls in levels(mapping)
        for field in fields(cls)
        if field.default is MISSING and field.default_factory is MISSING
    ]
    key, level, name = draw(sampled(required))
    del level[name]
    return _dotted(key, name)


def wrong_type(draw: Draw, mapping: Fields) -> str:
    key, owner, name, hint = draw(sampled(list(places(mapping))))
    wrong = {int: NO_INTEGERS, float: NO_NUMBERS, str: NO_TEXTS, bool: NO_TRUTHS}
    values = wrong.get(_type(hint), NO_MAPPINGS)
    may_be_null = NoneType in get_args(hint) or get_origin(hint) is dict
    owner[name] = draw(sampled(values if may_be_null else [*values, None]))
    return key


def negative_count(draw: Draw, mapping: Fields) -> str | None:
    return _change(draw, mapping, (int,), [-1, -(10**30)])


def number_without_a_size(draw: Draw, mapping: Fields) -> str | None:
    return _change(draw, mapping, (float,), [math.nan, math.inf, -math.inf, 10**400])


def unknown_choice(draw: Draw, mapping: Fields) -> str | None:
    choices = [
        place
        for place in places(mapping)
        if _type(place[3]) is str and not place[0].endswith("_pattern")
    ]
    key, owner, name, _ = draw(sampled(choices))
    owner[name] = draw(sampled(["nonsense", "", "None", "new\nline", 7]))
    return key


def unknown_kind(draw: Draw, mapping: Fields) -> str | None:
    found = [(group, letter) for group in GROUPS for letter in mapping[group]]
    group, letter = draw(sampled(found))
    mapping[group][letter]["kind"] = draw(
        sampled(["attn", "", 5, None, True, 1.5, ["mla"], {"a": 1}])
    )
    return f"{group}.{letter}.kind"


# --- Letters ---


def part_without_fields(draw: Draw, mapping: Fields) -> str:
    group = draw(sampled(list(GROUPS)))
    mapping[group][UNUSED] = draw(sampled([None, 5, "mla", [], {}]))
    return f"{group}.{UNUSED}"


def name_that_is_no_letter(draw: Draw, mapping: Fields) -> str:
    group = draw(sampled(["mixers", "ffns", "parallel"]))
    name = draw(sampled(["FF", "1", "", ".", "\u00e9", "\u00df", 5, None, True]))
    part: Any = "QQ"
    if group != "parallel":
        kind = sampled(sorted(MIXER_STRATEGIES if group == "mixers" else FFN_STRATEGIES))
        part = _part(draw, draw(kind))
    mapping[group][name] = part
    return f"{group}.{name}"


def letter_of_two_meanings(draw: Draw, mapping: Fields) -> str | None:
    taken = sorted({*mapping["mixers"], *mapping["ffns"]})
    letter = draw(sampled(taken))
    if letter in mapping["mixers"] and draw(st.booleans()):
        mapping["ffns"][letter] = _part(draw, "dense")
        return f"ffns.{letter}"
    mapping["parallel"][letter] = letter * 2
    return f"parallel.{letter}"


def wrong_branches(draw: Draw, mapping: Fields) -> str:
    known = sorted(mapping["mixers"]) or [UNUSED]
    wrong = ["", known[0], known[0] * 2, known[0] + UNUSED, f"{known[0]} {known[-1]}"]
    mapping["parallel"][UNUSED] = draw(sampled([*wrong, 5, None, ["F"]]))
    return f"parallel.{UNUSED}"


def twin_that_is_none(draw: Draw, mapping: Fields) -> str:
    cheap = [m for m, part in mapping["mixers"].items() if part["kind"] in ("kda", "mamba2")]
    mapping["full_twin"] = draw(sampled([*cheap, UNUSED, *mapping["ffns"], "FF", ""]))
    return "full_twin"


def placement_of_no_layer(draw: Draw, mapping: Fields) -> str:
    name = draw(sampled([UNUSED, NOTHING, "", 5]))
    mapping["norm_placement"][name] = "pre"
    return f"norm_placement.{name}"


def post_norm_beside_a_normed_residual(draw: Draw, mapping: Fields) -> str:
    letter = draw(sampled(sorted({*mapping["mixers"], *mapping["ffns"]})))
    mapping["residual"]["source"], mapping["norm_placement"][letter] = "normed", "post"
    # Others may stand at "post" already.
    return "norm_placement"


# --- Patterns ---

BAD_SYNTAX = (
    "",
    "  ",
    "({})",  # closed below: one parenthesis too many
    "({}",
    "{}()",
    "*{}",
    "{}-",
    "{}\n\r?",
    "{}\u2028\u00e9",
    "{} A*0",
    "(A)*({})*",
    "((A)* {})*2",
    "{} A*99999",
    "{} A*" + "9" * 5000,
    "(" * 5000 + "{}" + ")" * 5000,
    "{}Q",
)


def pattern_that_cannot_be_read(draw: Draw, mapping: Fields) -> str:
    key = draw(sampled(["layer_pattern", "ffn_pattern"]))
    form = draw(sampled(BAD_SYNTAX))
    mapping[key] = form.format(mapping[key]) + (")" if form == "({})" else "")
    return key


def pattern_of_another_length(draw: Draw, mapping: Fields) -> str:
    key = draw(sampled(["layer_pattern", "ffn_pattern"]))
    letter = NOTHING if key == "ffn_pattern" else sorted({*mapping["mixers"], *mapping["ffns"]})[0]
    length = draw(sampled([1, mapping["num_layers"] - 1, mapping["num_layers"] + 1, 4096]))
    mapping[key] = letter * (length + (length in (0, mapping["num_layers"])))
    if len(mapping[key]) == mapping["num_layers"]:
        mapping[key] += letter
    return key


def layers_without_end(draw: Draw, mapping: Fields) -> str:
    mapping["num_layers"] = draw(sampled([4097, 10**12, 10**30]))
    for key in ("layer_pattern", "ffn_pattern"):
        mapping[key] = f"{sorted({*mapping['mixers'], *mapping['ffns']})[0]}*"
    mapping["ffn_pattern"] = ".*"
    return "num_layers"


def feed_forward_after_a_feed_forward(draw: Draw, mapping: Fields) -> str | None:
    if not mapping["ffns"]:
        return None
    letter = sorted(mapping["ffns"])[0]
    mapping["num_layers"], mapping["layer_pattern"], mapping["ffn_pattern"] = 1, letter, letter
    return "ffn_pattern"


# --- Fields that do not go together ---


def _part(draw: Draw, kind: str) -> Fields:
    return {"kind": kind} | draw((MIXER_STRATEGIES | FFN_STRATEGIES)[kind])


def _rope(**fields: Any) -> Fields:
    return {"head_dim": 8, "rope": fields}


# kind -> what does not go together: changes to a part, the last of them named by the message
MISMATCHES: list[tuple[str, Callable[[Fields], Fields]]] = [
    ("attention", lambda p: {"num_kv_heads": p["num_heads"] + 1}),
    ("attention", lambda p: _rope(rotary_dim=10)),
    ("attention", lambda p: _rope(rotary_dim=3)),
    ("attention", lambda p: _rope(rotary_dim=0)),
    ("attention", lambda p: _rope(scaling="yarn", factor=4.0)),
    ("attention", lambda p: _rope(scaling="yarn", original_context=8, theta=1.0)),
    ("attention", lambda p: _rope(scaling="yarn", original_context=8, beta_fast=0.0)),
    (
        "attention",
        lambda p: _rope(scaling="llama3", original_context=8, high_freq_factor=1.0),
    ),
    ("attention", lambda p: {"rope": {}, "head_dim": 5}),
    ("attention", lambda p: {"softmax_scale": 0.0}),
    ("attention", lambda p: {"window": 0}),
    ("mla", lambda p: {"rope": {}, "qk_rope_head_dim": 0}),
    ("mla", lambda p: {"q_lora_rank": 0}),
    ("sparse_mla", lambda p: {"q_lora_rank": None}),
    ("sparse_mla", lambda p: {"rope": {}, "qk_rope_head_dim": 8, "index_head_dim": 6}),
    ("block_sparse", lambda p: {"index_num_heads": p["num_kv_heads"] + 1}),
    ("block_sparse", lambda p: {"window": 4}),
    ("block_sparse", lambda p: {"sinks": True}),
    ("block_sparse", lambda p: {"local_blocks": p["topk_blocks"] + 1}),
    ("gated_deltanet", lambda p: {"num_heads": 2, "num_v_heads": 3}),
    ("kda", lambda p: {"chunk_size": 17}),
    ("kda", lambda p: {"gate_lower_bound": 0.0}),
    ("mamba2", lambda p: {"num_groups": p["num_heads"] + 1}),
    ("mamba2", lambda p: {"norm_groups": p["num_heads"] * p["head_dim"] + 1}),
    ("mamba2", lambda p: {"dt_min": 0.1, "dt_max": 0.1}),
    ("mamba2", lambda p: {"dt_min": -0.1}),
    ("dense", lambda p: {"gated": False, "gate_scale": 1.0, "activation": "swiglu_oai"}),
    ("dense", lambda p: {"gated": False, "activation": "silu", "gate_scale": 0.5}),
    ("moe", lambda p: {"num_experts_per_tok": p["num_experts"] + 1}),
    ("moe", lambda p: {"num_groups": p["num_experts"] + 1}),
    ("moe", lambda p: {"topk_groups": p["num_groups"] + 1}),
    ("moe", lambda p: {"num_shared_experts": 0, "shared_expert_gate": True}),
    (
        "moe",
        lambda p: {
            "num_experts": 4,
            "num_groups": 2,
            "topk_groups": 1,
            "num_experts_per_tok": 3,
        },
    ),
]


def fields_that_do_not_go_together(draw: Draw, mapping: Fields) -> str:
    kind, changes = draw(sampled(MISMATCHES))
    part = _part(draw, kind)
    changed = changes(part)
    group = "mixers" if kind in MIXER_STRATEGIES else "ffns"
    mapping[group][UNUSED] = part | changed
    return f"{group}.{UNUSED}.{list(changed)[-1]}"


def selection_that_nobody_made(draw: Draw, mapping: Fields) -> str:
    part = _part(draw, "sparse_mla") | {"indexer_type": "shared"}
    mapping["mixers"][UNUSED] = part
    mapping["layer_pattern"] = UNUSED * mapping["num_layers"]
    mapping["ffn_pattern"] = NOTHING * mapping["num_layers"]
    return "layer_pattern"


MISTAKES: list[Mistake] = [
    unknown_field,
    missing_field,
    wrong_type,
    negative_count,
    number_without_a_size,
    unknown_choice,
    unknown_kind,
    part_without_fields,
    name_that_is_no_letter,
    letter_of_two_meanings,
    wrong_branches,
    twin_that_is_none,
    placement_of_no_layer,
    post_norm_beside_a_normed_residual,
    pattern_that_cannot_be_read,
    pattern_of_another_length,
    layers_without_end,
    feed_forward_after_a_feed_forward,
    fields_that_do_not_go_together,
    selection_that_nobody_made,
]


# --- Anything at all ---

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats()
    | st.text(max_size=6)
    | sampled(["F", "LF", "(F)*", "pre", "mla", "kind"])
)
anything = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=4,
)


def scramble(draw: Draw, mapping: Fields) -> None:
    """Put anything anywhere in the mapping, or what stands elsewhere in it."""
    for _ in range(draw(st.integers(1, 3))):
        spots = list(_spots(mapping))
        elsewhere = sampled(spots).map(lambda spot: copy.deepcopy(spot[0][spot[1]]))
        owner, name = draw(sampled(spots))
        owner[name] = draw(elsewhere | anything)


def _spots(mapping: Fields) -> Iterator[tuple[Fields, Any]]:
    for name, value in mapping.items():
        yield mapping, name
        if isinstance(value, dict):
            yield from _spots(value)
