"""Learning rates measured on a grid, one for each kind of mixer, kept and used again.

Mixers compared at one learning rate rank wrongly: one change of it moved a score by more than any
two mixers differ. So each kind's rate is measured: a twin with this mixer in every layer is trained
at every rate of the grid; the best is kept in a file whose name says what it depends on. A hybrid's
layers share the smallest of their kinds' rates: a layer that moves faster than one above it keeps
changing what that one reads (docs/proxy.md has what it cost).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import final

from hybridsim.fields import digest, settings_dict
from hybridsim.mixers import MixerSettings
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.population import Member
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.trainer import Outcome

GRID_SEED = 7919  # of the grid's trainings, no seed that a result has
CLEAR = 0.02  # scores closer than this leave the proxy's own rate
TWINS = 2  # counts changes of how twins begin: rates kept of earlier ones are not used


@final
@dataclass(frozen=True)
class Rate:
    """A kind's learning rate.

    Attributes:
        value: the rate.
        source: "measured", "kept" (measured before) or "default" (the proxy's, nothing measured).
        scores: of each rate of the grid, on the first task.
    """

    value: float
    source: str
    scores: dict[str, float | None]


def rate_key(settings: MixerSettings, proxy: ProxySettings, device: str) -> str:
    """Return the name of the file that keeps a mixer's rate."""
    task = next(iter(proxy.tasks))
    parts = [settings_dict(settings.canonical()), asdict(proxy.model), proxy.tasks[task]]
    training = settings_dict(proxy.task_training(task))
    return digest([*parts, training, proxy.precision, device, TWINS])


def model_rate(spec: ModelSpec, rates: dict[MixerSettings, Rate]) -> float:
    """Return the smallest of the rates of a model's mixers."""
    used = {part for letter in spec.layer_letters for part in spec.layer_mixers(letter)}
    return min(rates[spec.mixers[part]].value for part in used)


def find_rates(
    twins: Sequence[ModelSpec],
    proxy: ProxySettings,
    *,
    folder: Path,
    device: str,
    train: Callable[[list[Member], str], list[Outcome]],
) -> dict[MixerSettings, Rate]:
    """Return the rates of all mixers of some twins: kept ones, measured ones, or the proxy's.

    Args:
        twins: models of the proxy's size, of its first task.
        proxy: with `grid`, what is not kept is measured.
        folder: where rates are kept.
        device: kind of device that trains.
        train: trains models on a task of the proxy.
    """
    used = {twin.mixers[p]: (twin, p) for twin in twins for c in twin.layer_letters
            for p in twin.layer_mixers(c)}  # fmt: skip
    paths = {s: folder / f"{rate_key(s, proxy, device)}.json" for s in used}
    missing = {
        settings: replace(twin, layer_pattern=f"{letter}*", parallel={})
        for settings, (twin, letter) in used.items()
        if proxy.grid and not paths[settings].is_file()
    }
    measured = _measured(missing, proxy, train)
    for settings, rate in measured.items():
        folder.mkdir(parents=True, exist_ok=True)
        document = {**asdict(rate), "mixer": settings_dict(settings)}
        paths[settings].write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return {s: measured.get(s) or _kept(path, proxy) for s, path in paths.items()}


def _kept(path: Path, proxy: ProxySettings) -> Rate:
    """Return the rate that a file keeps, the proxy's own where there is none."""
    if not path.is_file():
        return Rate(proxy.training.learning_rate, "default", {})
    kept = json.loads(path.read_text(encoding="utf-8"))
    return Rate(kept["value"], "kept", kept["scores"])


def _measured(
    pure: Mapping[MixerSettings, ModelSpec],
    proxy: ProxySettings,
    train: Callable[[list[Member], str], list[Outcome]],
) -> dict[MixerSettings, Rate]:
    """Return the rates of mixers by twins that have them in every layer, all trained together."""
    grid = proxy.training.learning_rates
    members = [Member(twin, GRID_SEED, rate) for twin in pure.values() for rate in grid]
    outcomes = train(members, next(iter(proxy.tasks))) if members else []
    found = {}
    for number, settings in enumerate(pure):
        own = outcomes[number * len(grid) :][: len(grid)]
        scores = {f"{rate:g}": o.score for rate, o in zip(grid, own, strict=True)}
        value = best_rate(grid, own, proxy.training.learning_rate)
        found[settings] = Rate(value, "measured", scores)
    return found


def best_rate(grid: Sequence[float], outcomes: Sequence[Outcome], default: float) -> float:
    """Return the rate with the best score; among those as good, the one that learnt it first.

    Where the best is no better than the default rate's by 0.02, or nothing was learnt, the default.
    """
    ranked = sorted(
        (-(o.score if o.score is not None else -1.0), o.steps, rate)
        for rate, o in zip(grid, outcomes, strict=True)
    )
    own = [o.score for rate, o in zip(grid, outcomes, strict=True) if rate == default]
    best = -ranked[0][0]
    if own and own[0] is not None and best - own[0] < CLEAR:
        return default
    return ranked[0][2] if best >= 0 else default
