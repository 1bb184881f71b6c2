"""Candidates as parameters of a trial, feasible whatever the values: for any sampler of Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from search.candidate import Candidate

if TYPE_CHECKING:
    from optuna.distributions import FloatDistribution, IntDistribution

    from search.space import Space

UNIT = "placement"
Distributions: TypeAlias = "dict[str, IntDistribution | FloatDistribution]"


class FreeEncoding:
    """Numbers of letters, and a key a layer: the layers of the highest keys get the last letter.

    Numbers of letters that break a limit mean the nearest that keep to it (least sum of absolute
    differences), and options without any placement mean the next that have one. So a sampler that
    knows nothing of limits wastes no trial on them. Random keys: J. C. Bean, Genetic Algorithms and
    Random Keys for Sequencing and Optimization, ORSA J. Computing 6, 1994.

    Args:
        space: whose candidates.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._keys = [f"key_{layer + 1:02d}" for layer in space.free]
        self._counts = [f"count_{letter}" for letter in space.letters[1:]]
        self._feasible = lru_cache(maxsize=None)(self._feasible_array)

    def distributions(self) -> Distributions:
        """Return the parameters of a trial by name."""
        from optuna.distributions import FloatDistribution, IntDistribution

        made: Distributions = option_distributions(self._space)
        for name in self._counts:
            made[name] = IntDistribution(0, len(self._space.free))
        for name in self._keys:
            made[name] = FloatDistribution(0.0, 1.0)
        return made

    def _feasible_array(self, options: tuple[int, ...]) -> np.ndarray[Any, Any]:
        return np.array(list(self._space.feasible_counts(options)))

    def decode(self, params: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a trial's parameters."""
        space = self._space
        options = feasible_options(space, taken_options(space, params))
        allowed = self._feasible(options)  # [classes, letters]
        wanted = np.array([params[name] for name in self._counts], dtype=int)
        distance = np.abs(allowed[:, 1:] - wanted).sum(axis=1)
        counts = allowed[int(distance.argmin())]
        order = sorted(range(len(self._keys)), key=lambda i: -params[self._keys[i]])
        taken = [""] * len(order)
        places = iter(order)
        for letter, n in zip(reversed(space.letters), reversed(counts), strict=True):
            for _ in range(n):
                taken[next(places)] = letter
        return space.canonical(Candidate(space.fill(taken), options))

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """Return parameters that mean a candidate."""
        space = self._space
        counts = space.counts(candidate.letters)
        step = 1.0 / max(1, len(space.letters) - 1)
        made: dict[str, Any] = encoded_options(space, candidate)
        made.update(zip(self._counts, counts[1:], strict=True))
        for name, layer in zip(self._keys, space.free, strict=True):
            made[name] = step * space.letters.index(candidate.letters[layer])
        return made


class ListedEncoding:
    """The index of a placement in a list, and the options.

    Args:
        space: whose candidates.
        patterns: the list.
    """

    def __init__(self, space: Space, patterns: Sequence[str]) -> None:
        self._space, self._patterns = space, list(patterns)

    def distributions(self) -> Distributions:
        """Return the parameters of a trial by name."""
        from optuna.distributions import IntDistribution

        made: Distributions = option_distributions(self._space)
        made[UNIT] = IntDistribution(0, len(self._patterns) - 1)
        return made

    def decode(self, params: Mapping[str, Any]) -> Candidate:
        """Return the candidate of a trial's parameters, or the next that keeps to the limits."""
        space = self._space
        options = feasible_options(space, taken_options(space, params))
        allowed = space.feasible_counts(options)
        ordered = self._patterns[params[UNIT] :] + self._patterns[: params[UNIT]]
        letters = next(p for p in ordered if space.counts(p) in allowed)
        return space.canonical(Candidate(letters, options))

    def encode(self, candidate: Candidate) -> dict[str, Any]:
        """Return parameters that mean a candidate."""
        made = encoded_options(self._space, candidate)
        return {**made, UNIT: self._patterns.index(candidate.letters)}


def option_distributions(space: Space) -> Distributions:
    """Return a parameter for each choice: the index of its option."""
    from optuna.distributions import IntDistribution

    return {
        name: IntDistribution(0, len(options) - 1)
        for name, options in space.variants.choices.items()
        if len(options) > 1
    }


def taken_options(space: Space, params: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the options of a trial's parameters."""
    return tuple(params.get(name, 0) for name in space.variants.choices)


def encoded_options(space: Space, candidate: Candidate) -> dict[str, Any]:
    """Return the parameters of a candidate's options."""
    choices = zip(space.variants.choices.items(), candidate.options, strict=True)
    return {name: option for (name, options), option in choices if len(options) > 1}


def feasible_options(space: Space, options: tuple[int, ...]) -> tuple[int, ...]:
    """Return the options, or those nearest to them that some placement makes feasible."""
    if space.feasible_counts(options):
        return options
    return min(
        space.all_options,
        key=lambda other: sum(abs(a - b) for a, b in zip(other, options, strict=True)),
    )
