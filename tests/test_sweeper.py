"""`hydra/sweeper=hybridsim`: what hydra-optuna-sweeper's users know, resumable, by any launcher."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import TrialState
from study_worker import CANDIDATES, DIRECTIONS, Grid

from hybridsim.errors import HybridsimError
from hybridsim.paths import CONF_DIR
from search.samplers import KINDS, PATTERN, make_sampler, parse_sampler
from search.study import open_storage, open_study
from search.sweep.record import Wanted, parse_wanted
from search.sweep.space import OverrideSpace, identity, parse_space
from search.worker import TrialFailedError, Worker

APP = Path(__file__).with_name("sweep_app.py")
ROOT = Path(__file__).parents[1]


def space(*overrides: str) -> OverrideSpace:
    return parse_space(OverridesParser.create().parse_overrides(list(overrides)))


DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "k=a,b": CategoricalDistribution(["a", "b"]),
    "k=choice(1,2.5,true,x)": CategoricalDistribution([1, 2.5, True, "x"]),
    "k='LL F',[1,2]": CategoricalDistribution(["'LL F'", "[1,2]"]),
    "k=range(1,8,step=3)": IntDistribution(1, 7, step=3),
    "k=range(0,3)": IntDistribution(0, 3),
    "k=range(0.0,1.0,step=0.25)": FloatDistribution(0.0, 1.0, step=0.25),
    "k=shuffle(range(0,3))": CategoricalDistribution([0, 1, 2]),
    "k=interval(-5.0,5)": FloatDistribution(-5, 5),
    "k=int(interval(1,9))": IntDistribution(1, 9),
    "k=tag(log,interval(0.0001,1))": FloatDistribution(0.0001, 1, log=True),
    "k=tag(log,int(interval(1,64)))": IntDistribution(1, 64, log=True),
}


@pytest.mark.parametrize("override", DISTRIBUTIONS)
def test_overrides_are_distributions(override: str) -> None:
    found = space(override, "fixed=[1,2]", "+other='(LLF)*2'", "~gone")
    (distribution,) = found.distributions.values()
    wanted = DISTRIBUTIONS[override]
    if isinstance(wanted, CategoricalDistribution):
        assert isinstance(distribution, CategoricalDistribution)
        assert sorted(map(str, distribution.choices)) == sorted(map(str, wanted.choices))
    else:
        assert distribution == wanted
    assert found.fixed == ["fixed=[1,2]", "+other='(LLF)*2'", "~gone"]


def test_every_candidate_comes_back_as_overrides_of_the_same_meaning() -> None:
    found = space("a='LL F',null", "+b=choice(1,true,x)", "c=range(0,4,step=2)")
    known: set[str] = set()
    while (params := found.unseen(known)) is not None:
        known.add(identity(params))
        again = OverridesParser.create().parse_overrides(found.overrides(params))
        values = {o.get_key_element(): o.value() for o in again}
        assert values["a"] in ("LL F", None)
        assert values["+b"] in (1, True, "x")
        assert values["c"] in (0, 2, 4)
    assert len(known) == 2 * 3 * 3


def test_a_continuous_space_has_always_more() -> None:
    found = space("x=interval(0,1)", "y=tag(log,interval(0.001,1))")
    drawn = [found.unseen(set()) for _ in range(50)]
    assert all(d and 0 <= d["x"] <= 1 and 0.001 <= d["y"] <= 1 for d in drawn)


WRONG_SPACES = {
    "nothing varies": (["a=1"], "nothing to sweep"),
    "tag": (["a=tag(lg,interval(1,2))"], "no such tag"),
    "downwards": (["a=range(5,1,step=-1)"], "must go upwards"),
    "log of 0": (["a=tag(log,interval(0,1))"], "a=tag"),
}


@pytest.mark.parametrize("case", WRONG_SPACES)
def test_wrong_spaces_are_one_line(case: str) -> None:
    overrides, message = WRONG_SPACES[case]
    with pytest.raises(HybridsimError, match=message):
        space(*overrides)


def test_objectives_and_constraints_are_paths_into_the_record(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(json.dumps({"a": {"b": [1.5, {"c": 7}]}, "memory": 12, "name": "x"}))
    wanted = parse_wanted(
        "minimize",
        {"a.b.1.c": "maximize", "a.b.0": "minimize"},
        {"memory": "<= 10", "a.b.0": ">=1"},
    )
    assert wanted.directions == ("maximize", "minimize")
    outcome = wanted.outcome(None, file)
    assert list(outcome.values) == [7, 1.5]
    assert outcome.constraints == {"memory": 2.0, "a.b.0": -0.5}
    for path in ("a.x", "a.b.9", "name", "memory.deeper"):
        with pytest.raises(TrialFailedError, match=path.rpartition(".")[2]):
            Wanted(("minimize",), (path,)).outcome(None, file)
    with pytest.raises(TrialFailedError, match=r"left no other\.json"):
        wanted.outcome(None, tmp_path / "other.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("up", None, None), "direction=up"),
        (("minimize", {"a": "min"}, None), "objectives=min"),
        (("minimize", None, {"a": "10"}), "constraints.a=10"),
        (("minimize", None, {"a": "<= ten"}), "constraints.a=<= ten"),
    ],
)
def test_wrong_wishes_are_one_line(arguments: Any, message: str) -> None:
    with pytest.raises(HybridsimError, match=message):
        parse_wanted(*arguments)


def sweep(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APP), "-m", "hydra/sweeper=hybridsim", "hydra.sweep.dir=sweep"]
    path = os.pathsep.join([str(ROOT), str(APP.parent)])
    return subprocess.run(
        [*command, *args],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def trials(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "sweep" / "trials.parquet").set_index("trial")


def test_failed_jobs_are_failed_trials_and_the_rest_goes_on(tmp_path: Path) -> None:
    done = sweep(tmp_path, "x=1,2,3", "kind=a,b", "broken=3", "nan=1", "hydra.sweeper.n_trials=50")
    assert done.returncode == 0, done.stderr
    table = trials(tmp_path)
    assert len(table) == 6  # all there are, each once, though 50 were allowed
    assert len(table[["x", "kind"]].drop_duplicates()) == 6
    reasons = table.set_index("x")["failure"]
    assert set(reasons[3]) == {"ValueError: a broken value"}
    assert set(reasons[1]) == {"the job's result is nan, not a number"}
    assert set(reasons[2]) == {""}
    results = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml")
    assert results == {"name": "optuna", "best_params": {"x": 2, "kind": "a"}, "best_value": 0.0}


def test_a_study_goes_on_by_name(tmp_path: Path) -> None:
    name = "hydra.sweeper.study_name=mine"
    first = sweep(tmp_path, "x=interval(0,4)", "hydra.sweeper.n_trials=4", name)
    assert first.returncode == 0, first.stderr
    more = ["hydra.sweeper.n_trials=7", "hydra/sweeper/sampler=random"]
    assert sweep(tmp_path, "x=interval(0,4)", *more, name).returncode == 0
    assert len(trials(tmp_path)) == 7
    assert (tmp_path / "outputs/studies/mine/study.journal").is_file()
    other = sweep(tmp_path, "x=interval(0,4)", "kind=b", name)
    assert other.returncode == 1
    assert "study_name=mine: its jobs have no fixed overrides, not kind=b" in other.stderr


def test_several_objectives_and_too_many_failures(tmp_path: Path) -> None:
    many = "hydra.sweeper.direction=[minimize,maximize]"
    done = sweep(tmp_path, "two=true", "x=1,2,3,4", many, "hydra/sweeper/sampler=grid")
    assert done.returncode == 0, done.stderr
    solutions = OmegaConf.load(tmp_path / "sweep" / "optimization_results.yaml").solutions
    assert sorted(s["values"][1] for s in solutions) == [2.0, 3.0, 4.0]
    strict = sweep(tmp_path, "x=1,2,3", "broken=2", "hydra.sweeper.max_failure_rate=0.2")
    assert strict.returncode == 1
    assert "1 of 3 trials failed, the last one with: ValueError: a broken value" in strict.stderr


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_launchers_start_workers_that_outlive_a_killed_one(launcher: str, tmp_path: Path) -> None:
    args = [f"hydra/launcher={launcher}", "hydra.sweeper.n_jobs=2"]
    args += ["hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=2"]
    if launcher == "joblib":
        args.append("hydra.launcher.n_jobs=2")
    done = sweep(tmp_path, "x=range(0,9)", "kill_once=killed", "wait_s=0.1", *args)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").is_file()
    table = trials(tmp_path)
    assert sorted(table["x"]) == list(range(10))
    assert set(table["state"]) == {"complete"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")
def test_ray_starts_workers_that_outlive_a_killed_one(tmp_path: Path) -> None:
    args = ["hydra/launcher=ray", "hydra.sweeper.n_jobs=2"]
    args += ["hydra.sweeper.heartbeat_s=0.5", "hydra.sweeper.grace_s=2"]
    done = sweep(tmp_path, "x=range(0,9)", f"kill_once={tmp_path}/killed", "wait_s=0.1", *args)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").is_file()
    table = trials(tmp_path)
    assert sorted(table["x"]) == list(range(10))
    assert set(table["state"]) == {"complete"}


SAMPLERS = sorted(f.stem for f in (CONF_DIR / "sampler").glob("*.yaml") if f.stem != PATTERN)


def test_every_sampler_is_an_option() -> None:
    assert {*SAMPLERS, PATTERN} == set(KINDS)


def test_a_sampler_without_its_package_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.samplers.find_spec", lambda name: None)
    with pytest.raises(HybridsimError, match="sampler=cmaes: needs the package cmaes"):
        make_sampler(parse_sampler({"kind": "cmaes"}), 0)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "cmaes"])
def test_every_sampler_proposes_for_workers(name: str, tmp_path: Path) -> None:
    found = OmegaConf.to_container(OmegaConf.load(CONF_DIR / "sampler" / f"{name}.yaml"))
    settings = parse_sampler(found)
    over = {"cell": IntDistribution(0, CANDIDATES - 1)}
    sampler = make_sampler(settings, 0, distributions=over)
    study = open_study("all", DIRECTIONS, sampler, open_storage(None, tmp_path))
    Worker(study, Grid(), 15).run()
    cells = [t.params["cell"] for t in study.trials if t.state == TrialState.COMPLETE]
    assert len(cells) == len(set(cells)) == 15


def test_cma_es_takes_one_objective(tmp_path: Path) -> None:
    done = sweep(
        tmp_path,
        "x=interval(0,4)",
        "wait_s=interval(0,0.001)",
        "hydra/sweeper/sampler=cmaes",
        "hydra.sweeper.n_trials=12",
    )
    assert done.returncode == 0, done.stderr
    assert len(trials(tmp_path)) == 12
