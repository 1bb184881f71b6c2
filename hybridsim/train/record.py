"""The record of trained specs, as plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hybridsim.fields import settings_dict
from hybridsim.origin import git_revision, host, versions
from hybridsim.spec.parse import spec_dict
from hybridsim.train.devices import device_title
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.reliability import summary_line
from hybridsim.train.run import Ledger, ProxyRun, Trained

SCHEMA = "hybridsim/train/1"
Rows = list[dict[str, Any]]


def train_record(
    trained: Trained,
    run: ProxyRun,
    *,
    pressure: Mapping[str, Any],
    weights: Mapping[str, float],
    overrides: Sequence[str],
    wall_s: float,
) -> dict[str, Any]:
    """Return the document of one spec.

    Args:
        trained: its result.
        run: what trained it.
        pressure: see `pressure_record`.
        weights: of the tasks that count.
        overrides: what the user changed on the command line.
        wall_s: seconds from start to end.
    """
    scores = {
        task: None if score is None else score.document()
        for task, score in trained.profile.scores.items()
    }
    return {
        "schema": SCHEMA,
        "spec": _spec_record(trained),
        "proxy": proxy_record(run.proxy),
        "scores": scores,
        "summary": trained.profile.summary(weights).document(),
        "reliability": summary_line(
            run.proxy.name, proxy_record(run.proxy), pressure["option"] is not None
        ),
        "pressure": dict(pressure),
        "device": device_title(run.device, run.ledger.processes),
        "wall_s": wall_s,
        "failures": failures(trained),
        "learning_rate": min(rate.value for rate in trained.rates.values()),
        "learning_rates": {letter: asdict(rate) for letter, rate in trained.rates.items()},
        "ledger": run.ledger.document(),
        "twin": spec_dict(trained.twin),
        "overrides": list(overrides),
        "versions": versions(("torch", "hydra-core", "omegaconf")),
        "git_revision": git_revision(),
        "host": host(),
    }


def _spec_record(trained: Trained) -> dict[str, Any]:
    spec = trained.spec
    return {
        "name": spec.name,
        "layer_pattern": spec.layer_pattern,
        "proxy_pattern": trained.twin.layer_pattern,
        "num_layers": spec.num_layers,
        "mixers": {letter: settings_dict(s) for letter, s in spec.mixers.items()},
    }


def proxy_record(proxy: ProxySettings) -> dict[str, Any]:
    """Return a proxy with all its settings."""
    return asdict(proxy)


def failures(trained: Trained) -> Rows:
    """Return the trainings without a score, each with its cause."""
    return [
        {"task": task, "seed": o.member.seed, "status": o.status, "cause": o.cause}
        for task, outcomes in trained.outcomes.items()
        for o in outcomes
        if o.score is None
    ]


def curve_rows(trained: Sequence[Trained]) -> Rows:
    """Return the learning curves, a row a step of a model."""
    return [
        {
            "spec": one.spec.name,
            "layer_pattern": one.twin.layer_pattern,
            "task": task,
            "seed": outcome.member.seed,
            **row,
        }
        for one in trained
        for task, outcomes in one.outcomes.items()
        for outcome in outcomes
        for row in outcome.curve
    ]


def model_rows(trained: Sequence[Trained]) -> Rows:
    """Return the trainings, a row each."""
    return [
        {
            "spec": one.spec.name,
            "layer_pattern": one.twin.layer_pattern,
            "task": task,
            "seed": o.member.seed,
            "status": o.status,
            "score": o.score,
            "loss": o.loss,
            "steps": o.steps,
            "tokens": o.tokens,
            "cause": o.cause,
        }
        for one in trained
        for task, outcomes in one.outcomes.items()
        for o in outcomes
    ]


def ledger_lines(ledger: Ledger, pressure: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was spent, and at which pressure on the state, as label and text."""
    seconds = ", ".join(f"{name} {wall_s:.1f} s" for name, wall_s in ledger.wall_s.items())
    ran_as = ", ".join(sorted(ledger.notes)) or "none: all were finished before"
    if ledger.processes > 1:
        ran_as += f", in {ledger.processes} processes"
    return [
        ("models trained", f"{ledger.models}, of which {ledger.failed} failed"),
        ("optimizer steps", f"{ledger.steps:,}"),
        ("tokens", f"{ledger.tokens:,}"),
        ("time", f"{sum(ledger.wall_s.values()):.1f} s ({seconds})"),
        ("steps ran as", ran_as),
        ("pressure on the state", str(pressure["line"])),
    ]
