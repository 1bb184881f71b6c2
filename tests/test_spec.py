"""Specs: reading, inheritance, overrides, and one clear line for each mistake."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
from cases import SHARED_INDEXER_SPEC, UNUSUAL_SPEC

from hybridsim import load_spec
from hybridsim.errors import SpecError
from hybridsim.spec.load import spec_names
from hybridsim.spec.overrides import quote_patterns
from hybridsim.spec.parse import parse_spec, spec_dict

REFERENCE_SYSTEMS = (
    "kimi_linear",
    "qwen3_next",
    "deepseek_v32",
    "minimax_m1",
    "minimax_m2",
    "minimax_m3",
)


@pytest.mark.parametrize("name", spec_names())
def test_shipped_specs_load_and_survive_a_round_trip(name: str) -> None:
    spec = load_spec(name)
    assert spec.name == name
    assert spec.sources["config"]
    assert parse_spec(spec_dict(spec)) == spec


def test_every_reference_system_has_a_tiny_variant_of_its_structure() -> None:
    for name in REFERENCE_SYSTEMS:
        full, tiny = load_spec(name), load_spec(f"{name}_tiny")
        for whole, small in ((full.mixers, tiny.mixers), (full.ffns, tiny.ffns)):
            assert {k: s.kind for k, s in whole.items()} == {k: s.kind for k, s in small.items()}
        assert set(tiny.layer_letters) == set(full.layer_letters)
        assert set(tiny.ffn_letters) == set(full.ffn_letters)


@pytest.mark.parametrize("name", ["kimi_linear", "qwen3_next", "deepseek_v32", "minimax_m3"])
def test_patterns_are_the_published_ones(name: str, models: dict[str, Any]) -> None:
    assert load_spec(name).layer_letters == models[name]["layer_pattern"]


def test_nemotron_h_has_the_vendors_layers(models: dict[str, Any]) -> None:
    letters = models["nemotron_h_8b"]["layer_pattern"].translate(str.maketrans("-*", "DF"))
    assert load_spec("nemotron_h_8b").layer_letters == letters


def test_kimi_linear_has_20_linear_and_7_full_layers() -> None:
    letters = load_spec("kimi_linear").layer_letters
    assert [i + 1 for i, letter in enumerate(letters) if letter == "F"] == [
        4,
        8,
        12,
        16,
        20,
        24,
        27,
    ]


def test_overrides_reach_every_field() -> None:
    spec = load_spec(
        "kimi_linear",
        [
            "layer_pattern=(LLF)*9",
            "mixers.L.chunk_size=128",
            "norm.eps=1e-6",
            "ffns.E.num_groups=4",
            "ffns.E.topk_groups=2",
            "residual.alpha=2",
        ],
    )
    assert spec.layer_letters == "LLF" * 9
    assert spec.mixers["L"].chunk_size == 128
    assert spec.ffns["E"].num_groups == 4
    assert (spec.norm.eps, spec.residual.alpha) == (1e-6, 2.0)


def test_a_users_file_inherits_from_a_shipped_spec(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "defaults:\n  - kimi_linear\n  - _self_\nname: mine\nlayer_pattern: (LLLLLLLLF)*3\n"
    )
    assert load_spec(file).layer_letters == "LLLLLLLLF" * 3
    assert load_spec(str(file), ["name=again"]).name == "again"


def test_a_users_file_wins_over_a_shipped_spec_of_its_name(tmp_path: Path) -> None:
    file = tmp_path / "qwen3_32b.yaml"
    file.write_text("defaults:\n  - qwen3_1_7b\n  - _self_\nname: shadow\n")
    assert load_spec(file).name == "shadow"
    assert load_spec("qwen3_32b").name == "qwen3_32b"
    file.rename(tmp_path / "other.yml")
    with pytest.raises(SpecError, match=r"must end in \.yaml"):
        load_spec(tmp_path / "other.yml")


def test_patterns_are_quoted_for_hydra() -> None:
    given = ["spec.layer_pattern=(LF)*2,F*4", "layer_pattern='LF'", "spec.name=a", "x=(b"]
    assert quote_patterns(given) == [
        "spec.layer_pattern='(LF)*2','F*4'",
        "layer_pattern='LF'",
        "spec.name=a",
        "x=(b",
    ]
    assert quote_patterns(["spec.layer_pattern=choice(LF,F)"]) == [
        "spec.layer_pattern=choice(LF,F)"
    ]


def changed(**changes: Any) -> dict[str, Any]:
    """Return the unusual spec with changes, `a__b=c` for nested fields."""
    spec = copy.deepcopy(UNUSUAL_SPEC)
    for path, value in changes.items():
        *parents, last = path.split("__")
        at = spec
        for parent in parents:
            at = at[parent]
        at[last] = value
    return spec


KDA = {"num_heads": 1, "head_dim": 8, "gate_rank": 4}


def linear(**fields: Any) -> dict[str, Any]:
    """Return the change that makes the mixer L linear attention with these fields."""
    sizes = {"num_heads": 2, "head_k_dim": 8, "head_v_dim": 8}
    return {"mixers__L": {"kind": "linear_attention", **sizes, **fields}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, r"spec\.hidden_size=0: must be at least 1"),
        ({"hidden_size": "48"}, r"spec\.hidden_size=48: expected an integer"),
        ({"hidden_size": True}, r"spec\.hidden_size=True: expected an integer"),
        ({"hidden": 48}, r"spec\.hidden: no such field; did you mean 'hidden_size'\?"),
        (
            {"layer_pattern": "P M S Q P F"},
            r"spec\.layer_pattern=.*letter 'Q' at position 7 \(layer 4\)",
        ),
        (
            {"ffn_pattern": "D D E . D ."},
            r"spec\.ffn_pattern=.*layer 2 is the feed-forward M itself",
        ),
        ({"ffn_pattern": "D . E . D F"}, r"letter 'F' at position 11 \(layer 6\) is not defined"),
        ({"mixers": {"F": {"num_heads": 4}}}, r"spec\.mixers\.F\.kind: missing \(known: attention"),
        ({"mixers__F__kind": "attn"}, r"spec\.mixers\.F\.kind=attn: no such kind"),
        (
            {"mixers__F__num_kv_heads": 3},
            r"spec\.mixers\.F\.num_heads=4: must be a multiple of num_kv",
        ),
        ({"mixers__S__window": 0}, r"spec\.mixers\.S\.window=0: must be at least 1"),
        ({"mixers__L__num_v_heads": 3}, r"num_v_heads=3: must be a multiple of num_heads=2"),
        ({"mixers__FF": {"kind": "attention"}}, r"spec\.mixers\.FF\."),
        (
            {"ffns__E__num_experts_per_tok": 7},
            r"num_experts_per_tok=7: must be at most num_experts=6",
        ),
        ({"ffns__E__num_groups": 4}, r"num_experts=6: must be a multiple of num_groups=4"),
        ({"ffns__E__router": "sofmax"}, r"router=sofmax: no such choice; did you mean 'softmax'"),
        ({"ffns__F": {"kind": "dense", "intermediate_size": 8}}, r"F is a mixer too"),
        ({"parallel": {"P": "FX"}}, r"spec\.parallel\.P=FX: 'X' is not a mixer"),
        ({"parallel": {"P": "F"}}, r"spec\.parallel\.P=F: needs two mixers or more"),
        ({"parallel": {"P": "FL", "S": "FL"}}, r"parallel\.S: S is defined twice"),
        ({"norm": {"eps": 0.0}}, r"spec\.norm\.eps=0\.0: must be above 0"),
        ({"mixers__F__softmax_scale": 0.0}, r"mixers\.F\.softmax_scale=0\.0: must be above 0"),
        ({"ffns__M__gate_scale": 0.5}, r"spec\.ffns\.M\.gate_scale=0\.5: needs gated=true"),
        (
            {"mixers__F__rope": {"rotary_dim": 17}},
            r"spec\.mixers\.F\.rope\.rotary_dim=17: must be an even",
        ),
        (
            {"mixers__F__rope": {"rotary_dim": 18}},
            r"spec\.mixers\.F\.rope\.rotary_dim=18: must be at most",
        ),
        ({"full_twin": "Q"}, r"spec\.full_twin=Q: not a mixer"),
        (linear(num_features=8), r"num_features=8: must be null with feature_map=elu1"),
        (
            linear(feature_map="performer"),
            r"num_features=None: must be at least 1 with feature_map=performer",
        ),
        (
            linear(feature_map="identity"),
            r"normalize=True: must be false with feature_map=identity",
        ),
        (linear(feature_map="elu"), r"feature_map=elu: no such choice; did you mean 'relu'"),
        ({"num_layers": None}, r"spec\.num_layers=None: expected an integer"),
        # Found by random specs: each was another exception, several lines, or no error at all.
        ({"mixers__F__kind": ["mla"]}, r"spec\.mixers\.F\.kind=\['mla'\]: no such kind"),
        ({"mixers": []}, r"spec\.mixers=\[\]: expected a mapping of fields"),
        (
            {"mixers__\u00e9": {"kind": "kda", **KDA}},
            r"spec\.mixers\.\u00e9: a name must be one letter",
        ),
        ({"parallel": {"P": None}}, r"spec\.parallel\.P=None: expected a text"),
        ({"parallel": {"P": "FF"}}, r"spec\.parallel\.P=FF: names a mixer twice"),
        ({"norm_placement": {"P": ["pre"]}}, r"spec\.norm_placement\.P=\['pre'\]: expected a text"),
        ({"full_twin": "L"}, r"spec\.full_twin=L: gated_deltanet has no full form"),
        (
            {"num_layers": 10**12, "layer_pattern": "F*"},
            r"num_layers=1000000000000: must be at most",
        ),
        ({"layer_pattern": "P M\n?"}, r"^spec\.layer_pattern=P M\\n\?: bad character"),
        ({"logit_scale": math.inf}, r"spec\.logit_scale=inf: must be a finite number"),
        ({"residual": {"alpha": 10**400}}, r"spec\.residual\.alpha=10+: must be a finite number"),
        (
            {"mixers__F__rope": {"mscale": math.nan}},
            r"F\.rope\.mscale=nan: must be a finite number",
        ),
        (
            {"mixers__F__rope": {"theta": 1.0}},
            r"spec\.mixers\.F\.rope\.theta=1\.0: must be above 1",
        ),
        ({"mixers__F__rope": {"beta_slow": 0.0}}, r"F\.rope\.beta_slow=0\.0: must be above 0"),
        (
            {"mixers__F__rope": {"original_context": -1}},
            r"rope\.original_context=-1: must be at least",
        ),
        (
            {
                "mixers__F__rope": {
                    "scaling": "llama3",
                    "original_context": 8,
                    "high_freq_factor": 1.0,
                }
            },
            r"spec\.mixers\.F\.rope\.high_freq_factor=1\.0: must be above low_freq_factor=1\.0",
        ),
    ],
)
def test_a_mistake_is_one_clear_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as raised:
        parse_spec(changed(**changes))
    assert "\n" not in str(raised.value)


KDA: dict[str, Any] = {"kind": "kda", "num_heads": 2, "head_dim": 8, "gate_rank": 8}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({**KDA, "gate_rank": 0}, r"spec\.mixers\.L\.gate_rank=0: must be at least 1"),
        (
            {**KDA, "gate_lower_bound": 5.0},
            r"spec\.mixers\.L\.gate_lower_bound=5\.0: must be below 0, or null",
        ),
    ],
)
def test_mistakes_in_a_mixers_options(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse_spec(changed(mixers__L=settings))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("S X F S X S", r"layer 1 \(S\) shares a selection of 12 tokens, .* has none"),
        ("X F S Y F S", r"layer 6 \(S\) shares a selection of 12 tokens, .* has 9"),
    ],
)
def test_a_selection_is_shared_only_after_a_layer_that_selects(pattern: str, message: str) -> None:
    mixers = SHARED_INDEXER_SPEC["mixers"]
    mixers = {**mixers, "Y": {**mixers["X"], "index_topk": 9}}
    with pytest.raises(SpecError, match=r"spec\.layer_pattern=" + f".*{message}"):
        parse_spec({**SHARED_INDEXER_SPEC, "layer_pattern": pattern, "mixers": mixers})


@pytest.mark.parametrize("field", ["norm", "mixers__F__kind"])
def test_a_mistake_in_a_file_is_one_clear_line(field: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(json.dumps(changed(**{field: [5]})))
    key = field.replace("__", "[.]")
    with pytest.raises(SpecError, match=rf"^spec[.]{key}=\[5\]: ") as raised:
        load_spec(file)
    assert "\n" not in str(raised.value)


def test_missing_fields_say_what_is_expected() -> None:
    spec = copy.deepcopy(UNUSUAL_SPEC)
    del spec["vocab_size"]
    with pytest.raises(SpecError, match=r"spec\.vocab_size: missing; give an integer"):
        parse_spec(spec)


def test_the_all_full_twin_replaces_cheap_mixers_only() -> None:
    spec = parse_spec(UNUSUAL_SPEC)
    twin = spec.all_full_twin()
    assert twin is not None
    assert twin.layer_letters == "FMFMFF"
    assert twin.ffn_letters == spec.ffn_letters
    assert twin.all_full_twin() is None
    sparse = load_spec("deepseek_v32").all_full_twin()
    assert sparse is not None
    assert sparse.mixers[sparse.layer_letters[0]] == load_spec("deepseek_v3").mixers["F"]


def test_an_ambiguous_twin_is_an_error() -> None:
    two = changed(mixers__A={"kind": "attention", "num_heads": 2, "num_kv_heads": 2, "head_dim": 8})
    with pytest.raises(SpecError, match="2 kinds of full attention are defined"):
        parse_spec(two).all_full_twin()
    twin = parse_spec(two | {"full_twin": "A"}).all_full_twin()
    assert twin is not None
    assert twin.layer_letters == "AMAMAF"
