"""Qualities from proxy trainings. torch is imported when the first candidate is trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, variance
from typing import TYPE_CHECKING, Any

from hybridsim.errors import HybridsimError
from hybridsim.fields import digest
from hybridsim.spec.parse import spec_dict
from hybridsim.train.proxy import ProxySettings, load_proxy
from hybridsim.train.reliability import summary_line
from search.candidate import Candidate
from search.objectives import Value
from search.pareto import Z_90
from search.quality import PROXY, Fidelity, Quality, Scores
from search.space import Space

if TYPE_CHECKING:
    from hybridsim.train.run import ProxyRun

Seeds = dict[str, list[float]]  # by task, the score of each training that ended
DIGITS = 24  # of what twins and trainings are known by
HOW_FAST = ("models_at_once", "workers")  # fields of a proxy that scores do not depend on
ASSUMED_DEVIATION = 0.05  # between trainings, where no twin has two on a task


class ProxyQuality(Quality):
    """Trains small twins of candidates: see hybridsim.train.

    A twin has fewer layers than its model, so many candidates have the same one: it is trained
    once, and kept in the folder. Tasks are those that count in every proxy. Intervals are of the
    mean over seeds, by the spread between seeds pooled over all twins of the same length of
    training: three seeds of one twin say little of it.

    Args:
        space: whose candidates.
        proxies: names in conf/proxy, the shortest first.
        folder: for scores of twins, checkpoints and learning rates.
        device: "auto", "cpu" or "cuda".
        pressure: of their tasks on the base's state, the same for all candidates; see `press`.

    Raises:
        HybridsimError: no proxy is named, no task is in all of them, or the pressure does not fit.
    """

    def __init__(
        self,
        space: Space,
        proxies: Sequence[str],
        folder: Path,
        device: str = "auto",
        pressure: float | str | None = None,
    ) -> None:
        if not proxies:
            raise HybridsimError("fidelities=[]: give the name of a proxy")
        self._space, self._folder, self._device = space, folder, device
        self._pressure = pressure
        whole = [load_proxy(name) for name in proxies]
        self.tasks = _common_tasks(whole)
        self._proxies = [self._pressed(proxy.only(self.tasks)) for proxy in whole]
        self.fidelities = tuple(Fidelity(p.name, p.seeds) for p in self._proxies)
        self.settings = digest([_decisive(proxy) for proxy in self._proxies], DIGITS)
        self._known: list[dict[str, Seeds]] = [{} for _ in proxies]

    def scores(self, candidates: Sequence[Candidate], fidelity: int) -> list[Scores]:
        twins = [self._twin_key(candidate, fidelity) for candidate in candidates]
        known = self._known[fidelity]
        for key in twins:
            if key not in known and self._file(key).is_file():
                known[key] = json.loads(self._file(key).read_text(encoding="utf-8"))
        new = {key: c for key, c in zip(twins, candidates, strict=True) if key not in known}
        if new:
            known.update(self._trained(new, fidelity))
        spread = {task: _pooled_deviation(known.values(), task) for task in self.tasks}
        return [
            {task: _value(known[key][task], spread[task]) for task in self.tasks} for key in twins
        ]

    def reliability(self, fidelity: int) -> str:
        proxy = self._proxies[fidelity]
        return summary_line(proxy.name, asdict(proxy), self._pressure is not None)

    def pressure(self, fidelity: int) -> dict[str, Any]:
        from hybridsim.train.pressed import pressure_record

        proxy, workload = self._proxies[fidelity], self._space.serve.workload
        return pressure_record(self._pressure, proxy, self._space.base, workload)

    def _pressed(self, proxy: ProxySettings) -> ProxySettings:
        if self._pressure is None:
            return proxy
        from hybridsim.train.pressed import press

        return press(proxy, self._pressure, self._space.base, self._space.serve.workload)

    def _trained(self, new: dict[str, Candidate], fidelity: int) -> dict[str, Seeds]:
        specs = [self._space.spec(candidate) for candidate in new.values()]
        found, run = {}, self._run(fidelity)
        for key, result in zip(new, run.train(specs), strict=True):
            profile = result.profile.scores
            found[key] = {
                task: [s for s in score.seeds if s is not None] if score is not None else []
                for task, score in profile.items()
            }
            self._file(key).parent.mkdir(parents=True, exist_ok=True)
            self._file(key).write_text(json.dumps(found[key]) + "\n", encoding="utf-8")
        run.forget()
        return found

    def _run(self, fidelity: int) -> ProxyRun:
        from hybridsim.train.devices import pick_device
        from hybridsim.train.run import ProxyRun

        return ProxyRun(
            self._proxies[fidelity],
            device=pick_device(self._device),
            folder=self._folder,
            context_target=self._space.serve.workload.context_target,
        )

    def _file(self, key: str) -> Path:
        return self._folder / "twins" / f"{key}.json"

    def _twin_key(self, candidate: Candidate, fidelity: int) -> str:
        """Return what two candidates share where one training serves both."""
        from hybridsim.train.devices import pick_device
        from hybridsim.train.scale import scale_spec

        proxy, spec = self._proxies[fidelity], self._space.spec(candidate)
        target = self._space.serve.workload.context_target
        told = {"name": "", "description": "", "published": {}, "sources": {}}
        fields = [
            {**spec_dict(twin), **told, "layer_pattern": twin.layer_letters}
            for twin in (
                scale_spec(spec, proxy, task, context_target=target) for task in proxy.tasks
            )
        ]
        return digest([fields, _decisive(proxy), pick_device(self._device)], DIGITS)


def _decisive(proxy: ProxySettings) -> dict[str, Any]:
    """Return the settings that scores depend on."""
    return {name: value for name, value in asdict(proxy).items() if name not in HOW_FAST}


def _common_tasks(proxies: Sequence[ProxySettings]) -> tuple[str, ...]:
    counted = [proxy.counted_tasks() for proxy in proxies]
    tasks = tuple(task for task in counted[0] if all(task in other for other in counted))
    if not tasks:
        names = ", ".join(proxy.name for proxy in proxies)
        raise HybridsimError(f"fidelities=[{names}]: they have no task in common")
    return tasks


def _value(seeds: Sequence[float], spread: float) -> Value:
    """Return the mean with its interval; where no training ended the score is 0."""
    if not seeds:
        return Value(0.0, 0.0, 0.0, PROXY)
    mean, half = fmean(seeds), Z_90 * spread / len(seeds) ** 0.5
    return Value(mean, mean - half, mean + half, PROXY)


def _pooled_deviation(known: Iterable[Seeds], task: str) -> float:
    """Return the standard deviation between seeds of a task, pooled over twins."""
    variances = [variance(seeds[task]) for seeds in known if len(seeds[task]) > 1]
    return float(fmean(variances)) ** 0.5 if variances else ASSUMED_DEVIATION
