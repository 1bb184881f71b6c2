"""Samplers: ours on the problem whose optimum is known, and all of them by name."""

from __future__ import annotations

import importlib
import json
import statistics
from functools import lru_cache
from pathlib import Path

import numpy as np
import optuna
import pytest
from spaces import space_of, tiny

from hybridsim.errors import HybridsimError, SpecError
from hybridsim.options import option_names, read_option
from search.candidate import Candidate
from search.landscape import Landscape, exact_front, position_weights
from search.pareto import hypervolume, non_dominated
from search.samplers import (
    KINDS,
    SINGLE_OBJECTIVE,
    SamplerSettings,
    grid,
    make_sampler,
    parse_sampler,
)
from search.space import Space

FRONT = Path(__file__).parent / "facts" / "placement_front.json"
optuna.logging.set_verbosity(optuna.logging.WARNING)


@lru_cache(maxsize=None)
def problem() -> Space:
    """24 layers of two mixers; only their places matter."""
    return space_of(tiny(24))


def values(candidates: list[Candidate]) -> np.ndarray:
    rows = np.array(["LF".index(c) for one in candidates for c in one.letters]).reshape(-1, 24)
    return Landscape().values(rows)


def exact() -> float:
    patterns = json.loads(FRONT.read_text())["patterns"]
    found = values([Candidate(pattern) for pattern in patterns])
    assert non_dominated(found).all()
    return hypervolume(found, Landscape().reference)


def search(
    kind: str, trials: int, seed: int, reference: list[float] | None = None
) -> list[Candidate]:
    space = problem()
    sampler = make_sampler(
        SamplerSettings(kind),
        seed,
        space=space,
        reference=reference or Landscape().reference.tolist(),
    )
    study = optuna.create_study(sampler=sampler, directions=["minimize", "minimize"])
    tried = []
    for _ in range(trials):
        trial = study.ask()
        tried.append(space.suggest(trial))
        study.tell(trial, values(tried[-1:])[0].tolist())
    return tried


def reached(tried: list[Candidate], count: int) -> float:
    return hypervolume(values(tried[:count]), Landscape().reference) / exact()


def test_the_landscape_is_the_documented_formula() -> None:
    letters = "LLLLLLFLLFLLLLLLFLFLLLLL"
    full = np.array([c == "F" for c in letters])
    runs = [len(run) for run in letters.split("F")]
    weights = position_weights()
    expected = float(np.exp(-6 * weights[full].sum()))
    expected += 0.004 * sum((r - 3) ** 2 for r in runs if r > 3)
    expected += 0.15 * (full.sum() / 24) ** 2
    cache = 4 * 2 * 2 * 128 * 2 * 131072 / 2**30 + 20 * 32 * 128 * 128 * 4 / 2**30
    assert values([Candidate(letters)])[0] == pytest.approx([cache, expected])
    assert weights.sum() == pytest.approx(1)


def test_exact_front_is_that_of_all_placements() -> None:
    landscape = Landscape(10)
    rows = (np.arange(1 << 10)[:, None] >> np.arange(10)) & 1
    everything = landscape.values(rows)
    expected = np.unique(everything[non_dominated(everything)], axis=0)
    assert exact_front(landscape, 10, chunk=100) == pytest.approx(expected)


@pytest.mark.slow
def test_known_optimum_is_reached() -> None:
    runs = [search("pattern", 200, seed) for seed in range(5)]
    assert [len(set(run)) for run in runs] == [200] * 5
    shares = {n: statistics.mean(reached(run, n) for run in runs) for n in (25, 100, 200)}
    assert shares[25] >= 0.970
    assert shares[100] >= 0.990
    assert shares[200] >= 0.995


def test_ours_is_ahead_of_random_and_of_its_own_designs() -> None:
    ours = search("pattern", 60, 0)
    assert len(set(ours)) == 60
    assert reached(ours, 60) > reached(search("random", 60, 0), 60)
    assert reached(ours, 60) > reached(ours, 16)


@pytest.mark.slow
def test_many_layers_and_mixers_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[1]
    monkeypatch.syspath_prepend(root / "benchmarks")
    compared = importlib.import_module("samplers")
    name = "48 layers, 4 mixers"
    record = json.loads((root / "docs/records/samplers.json").read_text())["results"]
    known = next(one["best_hypervolume"] for one in record if one["problem"] == name)
    problem = next(one for one in compared.problems() if one.name == name)
    (row,) = compared.compare(problem, ["pattern"], 200, 5, known=known)["samplers"]
    assert row["at_100"] >= 0.990
    assert row["at_200"] >= 0.994


def test_few_trials_are_spent_beyond_the_reference() -> None:
    reference = [1.5, 0.8]  # few and many layers of full attention count for nothing
    tried = search("pattern", 60, 0, reference=reference)
    inside = (values(tried[30:]) < reference).all(axis=1)
    assert inside.sum() >= 27


def test_rows_are_merged_into_a_record_at_the_better_best(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    compared = importlib.import_module("samplers")
    problem = compared.problems()[0]
    old = compared.compare(problem, ["random", "nsga2"], 20, 1, known=1.0)
    new = compared.compare(problem, ["random", "gp"], 10, 1, known=2.0 * old["best_hypervolume"])
    record = compared.merged(old, new)
    assert record["best_hypervolume"] == new["best_hypervolume"]
    rows = {row["sampler"]: row for row in record["samplers"]}
    assert list(rows) == ["nsga2", "gp", "random"]
    assert [row["trials"] for row in rows.values()] == [20, 10, 10]
    before = next(row for row in old["samplers"] if row["sampler"] == "nsga2")
    assert rows["nsga2"]["worst"] == pytest.approx(before["worst"] / 2)
    assert rows["random"] == next(row for row in new["samplers"] if row["sampler"] == "random")
    assert record["baselines"]["periodic"]["share"] == pytest.approx(
        old["baselines"]["periodic"]["share"] / 2
    )


def test_the_same_seed_proposes_the_same() -> None:
    assert search("pattern", 30, 3) == search("pattern", 30, 3)
    assert search("pattern", 30, 3) != search("pattern", 30, 4)


def test_what_failed_or_runs_is_not_proposed_again() -> None:
    space = problem()
    sampler = make_sampler(SamplerSettings("pattern"), 0, space=space)
    study = optuna.create_study(sampler=sampler, directions=["minimize"])
    proposed = []
    for number in range(40):
        trial = study.ask()
        proposed.append(space.suggest(trial))
        if number % 3 == 0:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif number % 3 == 1:
            study.tell(trial, float(number))
    assert len(set(proposed)) == 40


@pytest.mark.parametrize("name", option_names("sampler"))
def test_every_shipped_sampler_searches(name: str) -> None:
    space = space_of(tiny(4)) if name in ("grid", "gp") else problem()
    sampler = make_sampler(parse_sampler(read_option("sampler", name)), 0, space=space)
    values = [1.0] if name in SINGLE_OBJECTIVE else [1.0, 1.0]
    study = optuna.create_study(sampler=sampler, directions=["minimize"] * len(values))
    seen = set()
    for _ in range(12):  # more than any sampler's random start
        trial = study.ask()
        candidate = space.suggest(trial)
        assert candidate in space
        seen.add(candidate)
        values[0] = float(candidate.letters.count("F"))
        study.tell(trial, values)
    assert len(seen) > 1
    if name == "grid":
        assert len(seen) == 12


def test_shipped_samplers_are_of_known_kinds() -> None:
    assert set(option_names("sampler")) <= set(KINDS)


def test_grid_of_parameters() -> None:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    made = grid(
        {
            "a": CategoricalDistribution(["x", "y"]),
            "b": IntDistribution(1, 5, step=2),
            "c": FloatDistribution(0.0, 0.3, step=0.1),
        }
    )
    assert made == {"a": ["x", "y"], "b": [1, 3, 5], "c": pytest.approx([0.0, 0.1, 0.2, 0.3])}
    with pytest.raises(HybridsimError, match="c is continuous"):
        grid({"c": FloatDistribution(0.0, 1.0)})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "tpee"}, "sampler.kind=tpee: no such sampler; did you mean 'tpe'"),
        ({"kind": "tpe", "options": {"n_startup": 3}}, "did you mean 'n_startup_trials'"),
        ({"kind": "nsga2", "options": {"population_size": 1}}, "sampler.options="),
        ({"kind": "pattern", "options": {"depth": 1}}, "sampler.options=.*depth"),
    ],
)
def test_a_wrong_sampler_is_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises((SpecError, HybridsimError), match=message):
        make_sampler(parse_sampler(settings), 0, space=problem())


def test_a_sampler_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.samplers.find_spec", lambda name: None)
    with pytest.raises(HybridsimError, match="sampler=gp: needs the package scipy"):
        make_sampler(SamplerSettings("gp"), 0)


def test_patterns_need_a_space() -> None:
    with pytest.raises(HybridsimError, match="searches layer patterns only"):
        make_sampler(SamplerSettings("pattern"), 0)
