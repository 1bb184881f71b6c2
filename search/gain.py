"""What a search gained over plain ladders and periodic patterns, and whether that is resolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.engine import BASELINES
from search.fidelity import arrays
from search.pareto import Array, non_dominated
from search.records import Tried, best_known
from search.reference import Box
from search.space import Space

DRAWS = 400


@dataclass(frozen=True)
class Gain:
    """The search against one plain family of patterns.

    Attributes:
        baseline: "ladder" or "periodic".
        evaluations: candidates that the search tried.
        baseline_evaluations: those of the family: as many, or all it has.
        baseline_hypervolume: part of the box that the family's front dominates.
        hypervolume: what the search's dominates.
        low, high: 90 % interval of the difference, from the qualities' errors.
    """

    baseline: str
    evaluations: int
    baseline_evaluations: int
    baseline_hypervolume: float
    hypervolume: float
    low: float
    high: float

    @property
    def resolved(self) -> bool:
        """Whether the search is better beyond those errors."""
        return self.low > 0


def gains(space: Space, found: Sequence[Tried], box: Box) -> list[Gain]:
    """Return the gain over each plain family that was tried whole.

    Each side's front is what its observed values say; its worth is drawn anew around them, so a
    front that was lucky shows in the interval, though not in the centre.
    """
    made = []
    ours = [one for one in found if not one.baseline]
    budget = len({one.candidate for one in ours})
    for name, family in BASELINES.items():
        candidates = set(family(space)[:budget])
        theirs = [one for one in found if one.candidate in candidates]
        if candidates and {one.candidate for one in theirs} == candidates:
            made.append(_gain(name, theirs, ours, box))
    return made


def _gain(name: str, theirs: Sequence[Tried], ours: Sequence[Tried], box: Box) -> Gain:
    known, plain = best_known(ours), best_known(theirs)
    sides = [_front(known, box), _front(plain, box)]
    draw = np.random.default_rng(0)
    differences = [_worth(sides[0], box, draw) - _worth(sides[1], box, draw) for _ in range(DRAWS)]
    low, high = np.quantile(differences, [0.05, 0.95])
    return Gain(
        baseline=name,
        evaluations=len(known),
        baseline_evaluations=len(plain),
        baseline_hypervolume=box.share_of(sides[1][0]),
        hypervolume=box.share_of(sides[0][0]),
        low=float(low),
        high=float(high),
    )


def _front(side: Sequence[Tried], box: Box) -> tuple[Array, Array]:
    means, deviations = arrays(side, box.signs)
    on_front = non_dominated(means)
    return means[on_front], deviations[on_front]


def _worth(side: tuple[Array, Array], box: Box, draw: np.random.Generator) -> float:
    means, deviations = side
    return box.share_of(means + deviations * draw.standard_normal(means.shape))
