"""Costs alone, exactly: every candidate of a space, by classes that cost the same. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybridsim.errors import HybridsimError
from search.candidate import Candidate
from search.costs import Counts
from search.evaluate import Evaluator
from search.pareto import Array, non_dominated
from search.space import Space, arrangements

MAX_CLASSES = 200_000


@dataclass(frozen=True)
class CostClass:
    """Placements that cost the same.

    Attributes:
        options: of the choices.
        counts: free layers of each letter.
        placements: how many there are.
    """

    options: tuple[int, ...]
    counts: Counts
    placements: int


def cost_classes(space: Space) -> list[CostClass]:
    """Return the classes of all candidates.

    Raises:
        HybridsimError: there are too many to try each.
    """
    made: list[CostClass] = []
    patterns = None if space.patterns is None else Counter(map(space.counts, space.patterns))
    for options in space.all_options:
        for counts in space.feasible_counts(options):
            number = arrangements(counts) if patterns is None else patterns[counts]
            made.append(CostClass(options, counts, number))
        if len(made) > MAX_CLASSES:
            raise HybridsimError(
                f"space={space.settings.name}: more than {MAX_CLASSES:,} classes of candidates;"
                " give fewer letters or choices"
            )
    return made


class CostTable:
    """Objectives of every class of a space, so that any number of candidates are looked up.

    Args:
        evaluator: whose objectives are all costs.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self.space = evaluator.space
        self.classes = cost_classes(self.space)
        self.values = class_values(evaluator, self.classes)
        size = len(self.space.template) + 1
        self._powers = size ** np.arange(len(self.space.letters))
        self._options = {o: i for i, o in enumerate(self.space.all_options)}
        self._rows = np.full((len(self._options), int(self._powers[-1]) * size), -1, dtype=np.int32)
        for row, one in enumerate(self.classes):
            self._rows[self._options[one.options], int(self._powers @ np.array(one.counts))] = row

    def look_up(self, codes: Array, options: tuple[int, ...]) -> Array:
        """Return the signed objectives of placements, NaN for those outside the limits.

        Args:
            codes: [placements, free layers] of uint8, the index of each layer's letter.
            options: of all of them.

        Returns:
            [placements, objectives], less is better.
        """
        index = np.zeros(len(codes), dtype=np.int64)
        for letter, power in enumerate(self._powers):
            index += power * np.count_nonzero(codes == letter, axis=1)
        rows = self._rows[self._options[options], index]
        return np.where(rows[:, None] >= 0, self.values[rows], np.nan)

    def class_row(self, counts: Counts, options: tuple[int, ...] = ()) -> int:
        """Return the row of a class in `values`, -1 for one outside the limits."""
        return int(self._rows[self._options[options], int(self._powers @ np.array(counts))])

    def front(self) -> list[CostClass]:
        """Return the classes that no candidate of the space beats."""
        on_front = np.flatnonzero(non_dominated(self.values))
        return [self.classes[i] for i in on_front]


def class_values(evaluator: Evaluator, classes: Sequence[CostClass]) -> Array:
    """Return [classes, objectives], less is better."""
    rows = []
    for one in classes:
        found = evaluator.class_costs(one.options, one.counts)
        rows.append([o.sign * found[o.name].value for o in evaluator.objectives])
    return np.array(rows)


def representative(space: Space, one: CostClass) -> Candidate:
    """Return a candidate of a class: its letters spread evenly, or the first that is listed."""
    if space.patterns is not None:
        letters = next(p for p in space.listed if space.counts(p) == one.counts)
        return space.canonical(Candidate(letters, one.options))
    places = sorted(
        ((i + 0.5) / n, letter)
        for letter, n in zip(space.letters, one.counts, strict=True)
        for i in range(n)
    )
    return space.canonical(Candidate(space.fill([letter for _, letter in places]), one.options))
