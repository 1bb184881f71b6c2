"""The box in which a study's hypervolume is taken: fixed by its space, not by what was found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.evaluate import Evaluator
from search.fidelity import arrays
from search.objectives import TRAINED, Value
from search.pareto import Array, hypervolume
from search.records import Tried

MARGIN = 1e-4  # beyond the worst, so that the worst itself still counts
MAX_OPTIONS = 64


@dataclass(frozen=True)
class Box:
    """Best and worst of every objective, all to be minimised.

    Attributes:
        ideal: [objectives].
        reference: [objectives].
        signs: by objective, what makes less the better.
    """

    ideal: Array
    reference: Array
    signs: dict[str, float]

    def share(self, found: Sequence[Tried]) -> float:
        """Return the part of the box that the trials dominate, 0 to 1."""
        return self.share_of(arrays(found, self.signs)[0]) if found else 0.0

    def share_of(self, values: Array) -> float:
        """Return the part of the box that these points dominate, 0 to 1."""
        scaled = (values - self.ideal) / (self.reference - self.ideal)
        return hypervolume(np.maximum(scaled, 0.0), np.ones(len(self.ideal)))


def study_box(evaluator: Evaluator) -> Box:
    """Return the box of a study.

    A cost's ends are those of the classes with most and with fewest layers of each letter; a
    quality's are 1 and 0.
    """
    ends = _end_classes(evaluator)
    ideal, reference = [], []
    for objective in evaluator.objectives:
        if objective.cost_class == TRAINED:
            low, high = -1.0, 0.0
        else:
            found = [objective.sign * one[objective.name].value for one in ends]
            low, high = min(found), max(found)
        ideal.append(low)
        reference.append(high + MARGIN * max(high - low, abs(high), 1e-12))
    signs = {o.name: o.sign for o in evaluator.objectives}
    return Box(np.array(ideal), np.array(reference), signs)


def _end_classes(evaluator: Evaluator) -> list[dict[str, Value]]:
    space = evaluator.space
    found = []
    for options in space.all_options[:MAX_OPTIONS]:
        counts = np.array(sorted(space.feasible_counts(options)))  # [classes, letters]
        ends = {*counts.argmin(axis=0).tolist(), *counts.argmax(axis=0).tolist()}
        chosen = [tuple(counts[row].tolist()) for row in sorted(ends)]
        found += [evaluator.class_costs(options, one) for one in chosen]
    return found
