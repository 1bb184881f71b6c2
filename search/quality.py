"""Where qualities come from: the proxy trainings, or a stated surrogate of them. No torch here."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridsim.errors import SpecError, bad_value, unknown
from search.candidate import Candidate
from search.landscape import position_weights
from search.objectives import Value
from search.pareto import Z_90, Array
from search.space import Space

SURROGATE, PROXY, NONE = QUALITIES = ("surrogate", "proxy", "none")
Scores = dict[str, Value]


@dataclass(frozen=True)
class Fidelity:
    """How long candidates are trained.

    Attributes:
        name: of the proxy.
        seeds: trainings a candidate.
    """

    name: str
    seeds: int


class Quality(ABC):
    """Scores of candidates by task, at one of several fidelities.

    Attributes:
        fidelities: the cheapest first.
        tasks: that every candidate is scored on.
        settings: of the trainings, in short; scores of others are not comparable. "" without any.
    """

    fidelities: tuple[Fidelity, ...]
    tasks: tuple[str, ...]
    settings: str = ""

    @abstractmethod
    def scores(self, candidates: Sequence[Candidate], fidelity: int) -> list[Scores]:
        """Return each candidate's scores: accuracies in 0 to 1 with 90 % intervals."""

    def reliability(self, fidelity: int) -> str:
        """Return the line on how far such scores can be trusted; "" where none are of trainings."""
        return ""

    def pressure(self, fidelity: int) -> dict[str, Any] | None:
        """Return what its tasks ask of the base's state; None where nothing is trained."""
        return None


def weighted(scores: Scores, weights: Mapping[str, float]) -> Value:
    """Return the weighted mean of scores; their errors are taken as independent."""
    total = sum(weights.values())
    value = sum(weight * scores[task].value for task, weight in weights.items()) / total
    squares = sum((weight * deviation(scores[task])) ** 2 for task, weight in weights.items())
    half = Z_90 * float(np.sqrt(squares)) / total
    first = next(iter(weights))
    return Value(value, value - half, value + half, scores[first].provenance)


def deviation(value: Value) -> float:
    """Return the standard deviation of which a value's 90 % interval is; 0 where it has none."""
    if value.low is None or value.high is None:
        return 0.0
    return (value.high - value.low) / (2 * Z_90)


def check_weights(weights: Mapping[str, float], tasks: Sequence[str]) -> dict[str, float]:
    """Return the weights of the weighted quality: all tasks alike where none are given.

    Raises:
        SpecError: a task is not scored, or a weight is not above 0.
    """
    if not weights:
        return dict.fromkeys(tasks, 1.0)
    for task, weight in weights.items():
        if task not in tasks:
            raise unknown("quality_weights", task, tasks, "task")
        if isinstance(weight, bool) or not isinstance(weight, int | float) or weight < 0:
            raise bad_value(f"quality_weights.{task}", weight, "must be a number of at least 0")
    used = {task: float(weight) for task, weight in weights.items() if weight > 0}
    if not used:
        raise SpecError(f"quality_weights={dict(weights)}: one weight must be above 0")
    return used


# Share of full layers -> validation perplexity of Kimi Linear's ratio ablation (arXiv 2510.26692,
# table 1: full, 1:1, 3:1, 7:1, 15:1). Purely linear is not in it: 0.8 % above full attention in
# loss, as in "Hybrid Architectures for Language Models" (arXiv 2510.04800, table 5, 1B: 2.758 to
# 2.750 nats).
_SHARES = (0.0, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
_PERPLEXITIES = (5.77 * float(np.exp(0.008)), 5.82, 5.70, 5.65, 5.66, 5.77)
_RECALL_RATE = 6.0
_GAP_LOSS = 0.004
_NEIGHBOUR_LOSS = 0.01
_NOISES = {"recall": 0.02, "language": 0.004}


class SurrogateQuality(Quality):
    """A formula in place of trainings, for tests and for trying a search out in a minute.

    recall = 1 - exp(-6 w.b) - 0.004 sum over runs of r > 3 layers without full attention of
    (r - 3)^2 - 0.01 (adjacent full pairs), at least 0, with the position weights w of
    search/landscape.py: it rises with more full layers, most of all below 3:1 (arXiv 2507.06457),
    and in the middle of the stack (arXiv 2510.04800). language = 5.65 / perplexity, interpolated
    over the share of full layers in Kimi Linear's ablation: nearly flat. Noise is normal, of 0.02
    and 0.004 a training: our proxies' spread between seeds, and Kimi's between neighbouring ratios.
    Choices other than placement do not enter.

    Args:
        space: whose candidates.
        seed: of the noise, together with candidate and fidelity.
    """

    tasks = ("recall", "language")
    fidelities = (Fidelity("short", 1), Fidelity("standard", 3), Fidelity("deep", 9))

    def __init__(self, space: Space, seed: int = 0) -> None:
        self._space, self._seed = space, seed
        self._weights = position_weights(len(space.template))

    def scores(self, candidates: Sequence[Candidate], fidelity: int) -> list[Scores]:
        return [self._scores(candidate, fidelity) for candidate in candidates]

    def _scores(self, candidate: Candidate, fidelity: int) -> Scores:
        text = f"{self._seed}/{fidelity}/{candidate.key}".encode()
        draw = np.random.default_rng(list(text))
        seeds = self.fidelities[fidelity].seeds
        made = {}
        for task, value in self.exact(candidate).items():
            spread = _NOISES[task] / np.sqrt(seeds)
            seen = value + spread * draw.standard_normal()
            half = Z_90 * spread
            made[task] = Value(float(seen), float(seen - half), float(seen + half), SURROGATE)
        return made

    def exact(self, candidate: Candidate) -> dict[str, float]:
        """Return the scores without noise."""
        full = np.array([c in self._space.full_letters for c in candidate.letters])
        share = float(full.mean())
        missed = float(np.exp(-_RECALL_RATE * full @ self._weights))
        missed += _GAP_LOSS * _gaps(full) + _NEIGHBOUR_LOSS * int((full[1:] & full[:-1]).sum())
        perplexity = float(np.interp(share, _SHARES, _PERPLEXITIES))
        return {"recall": max(0.0, 1.0 - missed), "language": min(_PERPLEXITIES) / perplexity}


def _gaps(full: Array) -> int:
    total = run = 0
    for one in full:
        run = 0 if one else run + 1
        total += 2 * (run - 4) + 1 if run > 3 else 0
    return total
