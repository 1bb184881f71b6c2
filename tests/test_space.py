"""Spaces: what is in them, what it costs, and that nothing outside the limits is ever proposed."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from spaces import UNLIMITED, served, space_of, tiny

from hybridsim import load_spec
from hybridsim.cost.model import ModelCosts
from hybridsim.errors import SpecError
from hybridsim.graph import build_graph
from hybridsim.measure.model_times import ModelTimes
from hybridsim.options import option_names, read_option
from hybridsim.profiler.serving import Serving
from search.candidate import Candidate, parse_key
from search.designs import centred, designs
from search.encoding import feasible_options
from search.moves import MOVES, mutated
from search.objectives import OBJECTIVES, TRAINED
from search.settings import Constraints, SpaceSettings, parse_space
from search.space import Space

BASES = ["kimi_linear", "qwen3_next", "minimax_m1", "jamba", "nemotron_h_8b", "falcon_h1_34b"]
CHOICES = {
    "mixers.F.kv_lora_rank": [512, 256],
    "experts": [
        {"ffns.E.num_experts": 256, "ffns.E.num_experts_per_tok": 8},
        {"ffns.E.num_experts": 128, "ffns.E.num_experts_per_tok": 4},
    ],
}


def small(**settings: object) -> Space:
    return space_of(tiny(), **settings)


@pytest.mark.parametrize("base", BASES)
def test_costs_are_those_of_the_whole_model(base: str) -> None:
    space = space_of(base)
    draw, serve = random.Random(0), served()
    for _ in range(3):
        candidate = space.random(draw)
        graph = build_graph(space.spec(candidate))
        times = ModelTimes(graph, serve.deployment, serve.hardware, None)
        costs = ModelCosts.of(graph)
        whole = Serving(costs, serve.deployment, serve.hardware, times=times)
        ours = space.costs(candidate.options).serving(space.counts(candidate.letters))
        assert ours.costs.parameters == costs.parameters
        for objective in OBJECTIVES.values():
            if objective.compute is None or objective.unit == "USD":
                continue
            found = objective.compute(ours, serve.workload)
            expected = objective.compute(whole, serve.workload)
            assert found.value == pytest.approx(expected.value, rel=1e-12), objective.name
            assert found.provenance == expected.provenance


def test_price_of_a_million_tokens() -> None:
    space, serve = space_of(), served()
    hardware = replace(serve.hardware, price_usd_per_hour=3.6)
    priced = Space(space.base, space.settings, replace(serve, hardware=hardware))
    serving = priced.costs(()).serving((20, 7))
    load = serve.workload
    record = serving.workload(load)
    found = OBJECTIVES["usd_per_million_tokens"].compute(serving, load)
    request_s = record["ttft_s"] + load.output_tokens * record["tpot_s"] / load.concurrency
    assert found.value == pytest.approx(request_s * 3.6 / 3600 * 1e6 / load.total_tokens)


def test_a_device_without_a_price_has_no_price_of_tokens() -> None:
    serving = space_of().costs(()).serving((20, 7))
    with pytest.raises(SpecError, match="price_usd_per_hour=null"):
        OBJECTIVES["usd_per_million_tokens"].compute(serving, served().workload)


def test_every_objective_has_a_unit_direction_and_cost_class() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert objective.direction in ("minimize", "maximize")
        assert (objective.compute is None) == (objective.cost_class == TRAINED)
        assert objective.title


def test_size_is_the_number_of_candidates() -> None:
    assert space_of().size == 2**27
    for space in (small(), small(placement="periodic"), small(first="F", last="L")):
        assert space.size == len(list(space.candidates()))


def test_candidates_of_few_classes_are_listed_without_trying_all_placements() -> None:
    space = space_of(full_layers_max=1)  # of 2^27 placements
    found = list(space.candidates())
    assert space.size == len(set(found)) == 28
    assert {one.letters.count("F") for one in found} == {0, 1}


def test_limits_are_those_of_each_candidate() -> None:
    twin = ModelCosts.of(build_graph(tiny().all_full_twin()))
    serve = served()
    context, dtypes = serve.workload.context_target, serve.deployment.dtypes
    share = 0.5
    limits = Constraints(fits=False, cache_share_max=share)
    inside = set(small(constraints=limits).candidates())
    whole = small()
    for candidate in whole.candidates():
        costs = ModelCosts.of(build_graph(whole.spec(candidate)))
        bytes_kept = costs.cache_bytes(context, dtypes)
        allowed = bytes_kept <= share * twin.cache_bytes(context, dtypes)
        assert (candidate in inside) == allowed
    assert 0 < len(inside) < whole.size


@pytest.mark.parametrize(
    ("limits", "named"),
    [
        (Constraints(cache_bytes_max=1.0), "constraints.cache_bytes_max=1.0"),
        (Constraints(fits=False, ttft_s_max=1e-9), "constraints.ttft_s_max=1e-09"),
        (Constraints(fits=False, tpot_s_max=1e-9), "constraints.tpot_s_max=1e-09"),
    ],
)
def test_an_impossible_limit_is_named(limits: Constraints, named: str) -> None:
    with pytest.raises(SpecError, match="no candidate; refused by .*" + named):
        space_of(constraints=limits)


def test_a_model_that_does_not_fit_is_no_candidate() -> None:
    with pytest.raises(SpecError, match="4 sequences of 131,072 tokens on h200"):
        space_of("qwen3_235b", constraints=Constraints())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"first": "L", "last": "LF"},
        {"full_layers_min": 3, "full_layers_max": 8},
        {"placement": "periodic"},
        {"choices": CHOICES},
        {"placement": "periodic", "choices": CHOICES},
        {"placement": "fixed", "choices": CHOICES},
        {"constraints": Constraints(cache_share_max=0.25)},
        {"mixers": {"W": {"kind": "attention", "num_heads": 32, "num_kv_heads": 8,
                          "head_dim": 128, "window": 4096}}},
    ],
)  # fmt: skip
def test_nothing_infeasible_is_ever_made(settings: dict[str, object]) -> None:
    space = space_of(**settings)
    draw, numbers = random.Random(0), np.random.default_rng(0)
    candidate = space.random(draw)
    for _ in range(60):
        params = {
            name: numbers.integers(d.low, d.high + 1) if "key" not in name else numbers.random()
            for name, d in space.distributions().items()
        }
        for made in (space.encoding.decode(params), space.random(draw)):
            assert made in space
            assert space.encoding.decode(space.encoding.encode(made)) == made
            assert parse_key(made.key) == made
        candidate = mutated(space, candidate, draw)
        assert candidate in space
    assert all(design in space for design in designs(space))


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
def test_a_move_keeps_the_length_and_changes_something(move: object) -> None:
    draw = random.Random(0)
    changed = 0
    for _ in range(50):
        letters = list("LLFLLLFLLF")
        move(letters, "LF", draw)  # type: ignore[operator]
        assert len(letters) == 10
        assert set(letters) <= set("LF")
        changed += letters != list("LLFLLLFLLF")
        if move.__name__ not in ("ratio", "paint"):  # type: ignore[attr-defined]
            assert letters.count("F") == 3
    assert changed > 25


def test_options_about_an_absent_mixer_make_no_other_candidate() -> None:
    space = space_of(choices={"mixers.F.kv_lora_rank": [512, 256]})
    without, other = (Candidate("L" * 27, (option,)) for option in (0, 1))
    assert space.canonical(other) == space.canonical(without) == without
    with_full = Candidate("L" * 26 + "F", (1,))
    assert space.canonical(with_full) == with_full


def test_options_nobody_can_have_mean_the_nearest() -> None:
    choices = {"mixers.F.kv_lora_rank": [512, 4096]}
    limits = Constraints(fits=False, parameters_within=0.006)
    space = space_of(choices=choices, full_layers_min=20, constraints=limits)
    assert feasible_options(space, (1,)) == (0,)


def test_periodic_patterns_repeat_a_unit() -> None:
    space = small(placement="periodic", max_period=3)
    expected = {
        "".join(unit[i % size] for i in range(7))
        for size in (1, 2, 3)
        for unit in product("LF", repeat=size)
    }
    assert set(space.listed) == expected


def test_ladder_is_centred() -> None:
    assert centred(1, 24) == [12]
    assert centred(3, 24) == [4, 12, 20]
    assert centred(24, 24) == list(range(24))


def test_designs_have_the_published_pattern_and_both_ends() -> None:
    space = space_of()
    found = [design.letters for design in designs(space)]
    assert found[0] == load_spec("kimi_linear").layer_letters
    assert {"L" * 27, "F" * 27} < set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("name", option_names("space"))
def test_shipped_spaces_have_candidates(name: str) -> None:
    from omegaconf import OmegaConf

    fields = read_option("space", name)
    if "defaults" in fields:
        fields.pop("defaults")
        merged = OmegaConf.merge(read_option("space", "placement"), fields)
        fields = OmegaConf.to_container(merged)  # type: ignore[assignment]
    settings = parse_space(fields)
    assert settings.name == name
    assert settings.title
    space = Space(load_spec("kimi_linear"), settings, served())
    assert space.size > 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"letters": "LQ"}, "space.letters=LQ: the base has no mixer Q"),
        ({"letters": "LL"}, "must name each letter once"),
        ({"first": "Q"}, "space.first=Q: the base has no mixer Q"),
        ({"mixers": {"L": {"kind": "kda"}}}, "the base has a mixer L already"),
        ({"choices": {"mixers.F.rank": [1]}}, "mixers.F.rank is not a field of the base"),
        ({"choices": {"mixers.F.kv_lora_rank": []}}, "must be a list of values"),
        ({"choices": {"x": [1, {"a": 2}]}}, "mixes values with mappings"),
        ({"placement": "any"}, "placement=any"),
        ({"full_layers_min": 4, "full_layers_max": 3}, "full_layers_max=3: must be at least"),
        ({"max_period": 0}, "max_period=0"),
        ({"placement": "periodic", "max_period": 27}, "space.max_period=27: more than"),
        (
            {"choices": {f"mixers.F.{n}": list(range(1, 18)) for n in
                         ("kv_lora_rank", "v_head_dim", "num_heads")}},
            "4,913 combinations; must be at most 4,096",
        ),
    ],
)  # fmt: skip
def test_a_space_that_does_not_fit_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        space_of(**settings).listed  # noqa: B018
    assert "\n" not in str(error.value)


def test_letters_that_share_a_selection_cannot_stand_anywhere() -> None:
    with pytest.raises(SpecError, match="shares a selection"):
        space_of(_borrowing())


def _borrowing():  # type: ignore[no-untyped-def]
    spec = load_spec("deepseek_v32_tiny")
    shared = replace(spec.mixers["X"], indexer_type="shared")
    return replace(spec, mixers={**spec.mixers, "S": shared}, layer_pattern="XSXS")


def test_settings_are_plain_data() -> None:
    with pytest.raises(SpecError, match=r"space\.constraints\.cache: no such field"):
        parse_space({"name": "x", "constraints": {"cache": 1}})
    assert SpaceSettings(name="x").constraints.fits
    assert not UNLIMITED.fits
