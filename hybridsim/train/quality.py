"""A spec's quality profile: a score with an interval for every task, and what it comes to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Any, final

from hybridsim.errors import HybridsimError, unknown

CONFIDENCE = 0.95
A_BETTER, B_BETTER, UNRESOLVED = "a better", "b better", "no difference resolved"


@final
@dataclass(frozen=True)
class Score:
    """A held-out score over several trainings.

    Attributes:
        mean: over the seeds.
        low: lower end of the 95 % interval of that mean, by Student's t; not below 0.
        high: upper end; not above 1.
        seeds: the score of each training; None for one that failed.
        chance: of the best constant model.
    """

    mean: float
    low: float
    high: float
    seeds: tuple[float | None, ...]
    chance: float

    def document(self) -> dict[str, Any]:
        """Return the score as the record has it."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "seeds": list(self.seeds),
            "chance": self.chance,
        }


def score_of(seeds: Sequence[float | None], chance: float) -> Score | None:
    """Return the score over trainings, None where none has one.

    One training alone says nothing about the next: its interval is all of [0, 1].
    """
    found = [value for value in seeds if value is not None]
    if not found:
        return None
    mean = fmean(found)
    half = half_width(found)
    return Score(mean, max(0.0, mean - half), min(1.0, mean + half), tuple(seeds), chance)


def half_width(values: Sequence[float]) -> float:
    """Return half the 95 % interval of the mean of normal values, infinite for one value."""
    if len(values) < 2:
        return math.inf
    return student_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))


@lru_cache(maxsize=None)
def student_quantile(freedom: int, confidence: float = CONFIDENCE) -> float:
    """Return the two-sided quantile of Student's t: 12.71, 4.30, 3.18 for 1, 2, 3 degrees."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _inside(middle, freedom) < confidence else (low, middle)
    return (low + high) / 2


def _inside(t: float, freedom: int) -> float:
    """Return P(|T| < t): Abramowitz and Stegun, 26.7.3 and 26.7.4."""
    theta = math.atan(t / math.sqrt(freedom))
    term = math.cos(theta) if freedom % 2 else 1.0
    total = 0.0 if freedom == 1 else term
    for k in range(2 + freedom % 2, freedom - 1, 2):
        term *= math.cos(theta) ** 2 * (k - 1) / k
        total += term
    if freedom % 2:
        return 2 / math.pi * (theta + math.sin(theta) * total)
    return math.sin(theta) * total


@final
@dataclass(frozen=True)
class QualityProfile:
    """What short trainings say about a spec.

    Attributes:
        scores: by task; None where every training failed.
    """

    scores: Mapping[str, Score | None]

    def summary(self, weights: Mapping[str, float] | None = None) -> Summary:
        """Return the weighted mean of the tasks' scores.

        Args:
            weights: of tasks, as a workload's `quality_weights`; all equal where None. Tasks of the
                profile without one count for nothing.

        Raises:
            HybridsimError: no task of the profile has a weight.
        """
        given = dict.fromkeys(self.scores, 1.0) if weights is None else dict(weights)
        used = {name: w for name, w in given.items() if name in self.scores and w > 0}
        if not used:
            raise HybridsimError(
                f"quality_weights={given}: none of the proxy's tasks {', '.join(self.scores)}"
            )
        total = sum(used.values())
        return _weighted(self.scores, {name: w / total for name, w in used.items()})


@final
@dataclass(frozen=True)
class Summary:
    """One number for a workload.

    Attributes:
        mean: weighted mean of the tasks' scores; a task without a score counts as its chance, 0.
        low: lower end of its 95 % interval.
        high: upper end.
        weights: of the tasks, sum 1.
    """

    mean: float
    low: float
    high: float
    weights: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        """Return the summary as the record has it."""
        return {
            "mean": self.mean,
            "low": self.low,
            "high": self.high,
            "weights": dict(self.weights),
        }


def _weighted(scores: Mapping[str, Score | None], weights: Mapping[str, float]) -> Summary:
    """Return the weighted mean; trainings of tasks are independent, so half widths add squared."""
    mean, square = 0.0, 0.0
    for name, weight in weights.items():
        score = scores[name]
        if score is None:
            continue
        mean += weight * score.mean
        square += (weight * max(score.mean - score.low, score.high - score.mean)) ** 2
    half = math.sqrt(square)
    return Summary(mean, max(0.0, mean - half), min(1.0, mean + half), dict(weights))


def difference(a: Score, b: Score) -> str:
    """Return which of two scores is higher, if the trainings can tell.

    Welch's test at 95 %: the means differ by more than the half width of their difference. Two
    intervals that do not overlap always differ.
    """
    first, second = ([v for v in s.seeds if v is not None] for s in (a, b))
    return larger(first, second)


def larger(first: Sequence[float], second: Sequence[float]) -> str:
    """Return which of two groups of trainings has the higher mean, see `difference`."""
    if min(len(first), len(second)) < 2:
        return UNRESOLVED
    gap = fmean(first) - fmean(second)
    if abs(gap) <= _welch(first, second):
        return UNRESOLVED
    return A_BETTER if gap > 0 else B_BETTER


def _welch(first: Sequence[float], second: Sequence[float]) -> float:
    """Return half the 95 % interval of the difference of two means."""
    parts = [stdev(values) ** 2 / len(values) for values in (first, second)]
    total = sum(parts)
    if total == 0:
        return 0.0
    scale = sum(p**2 / (len(v) - 1) for p, v in zip(parts, (first, second), strict=True))
    freedom = max(1, int(total**2 / scale))
    return student_quantile(freedom) * math.sqrt(total)


def require_known(weights: Mapping[str, float], known: Sequence[str]) -> None:
    """Raise SpecError for a weight of a task that no proxy has."""
    for name in weights:
        if name not in known:
            raise unknown("quality_weights", name, known, "task name")
