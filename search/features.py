"""Candidates as numbers, for a surrogate. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from search.candidate import Candidate
from search.pareto import Array

if TYPE_CHECKING:
    from search.space import Space

SMOOTHING_LAYERS = 1.2  # how far away a layer still counts as nearly the same place
GROUP_WEIGHTS = (0.5, 2.0, 4.0, 2.0, 2.0)  # places, blurred places, shares, runs, options


class Features:
    """Candidates as numbers.

    For each letter but the first: whether each layer has it, blurred over neighbouring layers; its
    share and that squared. For the whole pattern: what long runs without full attention and
    adjacent full layers amount to. For each choice: which option.

    Args:
        space: whose candidates.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        at = np.arange(len(space.free))
        blur = np.exp(-0.5 * ((at[:, None] - at[None]) / SMOOTHING_LAYERS) ** 2)
        self._blur = blur / blur.sum(axis=1, keepdims=True)
        self._sizes = space.variants.sizes

    def of(self, candidates: Sequence[Candidate]) -> Array:
        """Return [candidates, features]."""
        return np.concatenate(self._groups(candidates), axis=1)

    @cached_property
    def groups(self) -> list[slice]:
        """Which features are of one group: places, blurred places, shares, runs, options."""
        example = self._groups([self._space.random(Random(0))])
        ends = np.cumsum([0, *(group.shape[1] for group in example)]).tolist()
        return [slice(start, end) for start, end in pairwise(ends)]

    @cached_property
    def weights(self) -> Array:
        """How much each feature counts, [features]: each group's squares sum to the group's."""
        sizes = [group.stop - group.start for group in self.groups]
        shares = np.array(GROUP_WEIGHTS[: len(sizes)]) / sum(GROUP_WEIGHTS[: len(sizes)])
        return np.concatenate(
            [np.full(n, np.sqrt(share / n)) for n, share in zip(sizes, shares, strict=True)]
        )

    def _groups(self, candidates: Sequence[Candidate]) -> list[Array]:
        space = self._space
        text = "".join(c.letters for c in candidates).encode("utf-32-le")
        codes = np.frombuffer(text, np.uint32).reshape(len(candidates), -1)[:, space.free]
        has = [(codes == ord(letter)).astype(float) for letter in space.letters[1:]]
        full = np.isin(codes, [ord(letter) for letter in space.full_letters])
        shares = [one.mean(axis=1, keepdims=True) for one in has]
        beside = (full[:, 1:] & full[:, :-1]).mean(axis=1, keepdims=True)
        groups = [
            np.concatenate(has, axis=1),
            np.concatenate([one @ self._blur for one in has], axis=1),
            np.concatenate([*shares, *(share**2 for share in shares)], axis=1),
            np.concatenate([_runs(full), beside], axis=1),
        ]
        taken = [
            (np.array([c.options[index] for c in candidates])[:, None] == np.arange(size))
            for index, size in enumerate(self._sizes)
        ]
        return [*groups, np.concatenate(taken, axis=1).astype(float)] if taken else groups


def _runs(full: Array) -> Array:
    """Return the mean square and the longest of the runs without full attention, per layer."""
    length = full.shape[1]
    at = np.arange(length)
    run = at - np.maximum.accumulate(np.where(full, at, -1), axis=1)  # so far; 0 on a full layer
    squares = np.maximum(2 * run - 1, 0).sum(axis=1)  # n^2 is the sum of the first n odd numbers
    return np.stack([squares / length**2, run.max(axis=1) / length], axis=1)
