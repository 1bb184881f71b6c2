"""A Gaussian process over patterns: what unseen candidates are likely to be worth. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np

from search.candidate import Candidate
from search.pareto import Array

if TYPE_CHECKING:
    from search.space import Space

SMOOTHING_LAYERS = 1.2  # how far away a layer still counts as nearly the same place
LENGTHS = (0.5, 1.0, 2.0)  # of the kernel, in root mean squares of a feature's difference
NOISES = (1e-6, 1e-3, 3e-2, 0.2)  # variances, of a standardised objective's 1
GROUP_WEIGHTS = (0.5, 2.0, 4.0, 2.0, 2.0)  # places, blurred places, shares, runs, options
LINEAR = 1.0  # weight of the linear kernel beside the squared exponential's 1
RETUNE_EVERY = 8


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
    def weights(self) -> Array:
        """How much each feature counts, [features]: each group's squares sum to the group's."""
        groups = self._groups([self._space.random(Random(0))])
        sizes = [group.shape[1] for group in groups]
        shares = np.array(GROUP_WEIGHTS[: len(groups)]) / sum(GROUP_WEIGHTS[: len(groups)])
        return np.concatenate(
            [np.full(n, np.sqrt(share / n)) for n, share in zip(sizes, shares, strict=True)]
        )

    def _groups(self, candidates: Sequence[Candidate]) -> list[Array]:
        space = self._space
        codes = np.array([[ord(c.letters[i]) for i in space.free] for c in candidates])
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
    run = np.zeros(len(full))
    squares, longest = np.zeros(len(full)), np.zeros(len(full))
    for column in full.T:
        run = np.where(column, 0.0, run + 1)
        squares += np.where(column, 0.0, 2 * run - 1)
        longest = np.maximum(longest, run)
    return np.stack([squares / length**2, longest / length], axis=1)


class Surrogate:
    """One Gaussian process an objective, on standardised features and values.

    Covariance: a linear and a squared exponential part. Length and noise are those of the highest
    marginal likelihood on a small grid (Rasmussen and Williams, Gaussian Processes for Machine
    Learning, 2006, ch. 5).

    Args:
        weights: of the features, their squares sum to 1.
    """

    def __init__(self, weights: Array) -> None:
        self._weights = weights
        self._tuned: list[tuple[float, float]] = []
        self._tuned_at = 0

    def fit(self, features: Array, values: Array) -> None:
        """Learn from [trials, features] and [trials, objectives]."""
        self._center, self._scale = features.mean(axis=0), _spread(features)
        self._mean, self._deviation = values.mean(axis=0), _spread(values)
        self._known = self._standardised(features)
        wanted = (values - self._mean) / self._deviation
        if not self._tuned or len(values) >= self._tuned_at + RETUNE_EVERY:
            self._tuned = [self._best(column) for column in wanted.T]
            self._tuned_at = len(values)
        self._solved = []
        for (length, noise), column in zip(self._tuned, wanted.T, strict=True):
            precision = np.linalg.inv(self._covariance(length, noise))
            self._solved.append((length, precision, precision @ column))

    def _standardised(self, features: Array) -> Array:
        return np.asarray((features - self._center) / self._scale * self._weights)

    def mean(self, features: Array) -> Array:
        """Return the mean, [candidates, objectives]."""
        asked = self._standardised(features)
        means = [_kernel(asked, self._known, length) @ w for length, _, w in self._solved]
        return np.asarray(self._mean + self._deviation * np.stack(means, axis=1))

    def predict(self, features: Array) -> tuple[Array, Array]:
        """Return mean and standard deviation, both [candidates, objectives], without noise."""
        asked = self._standardised(features)
        means, deviations = [], []
        prior = 1.0 + LINEAR * (asked**2).sum(axis=1)
        for length, precision, weights in self._solved:
            cross = _kernel(asked, self._known, length)
            means.append(cross @ weights)
            explained = ((cross @ precision) * cross).sum(axis=1)
            deviations.append(np.sqrt(np.maximum(prior - explained, 1e-12)))
        mean = self._mean + self._deviation * np.stack(means, axis=1)
        return mean, self._deviation * np.stack(deviations, axis=1)

    def _covariance(self, length: float, noise: float) -> Array:
        same = _kernel(self._known, self._known, length)
        return same + (noise + 1e-8) * np.eye(len(self._known))

    def _best(self, column: Array) -> tuple[float, float]:
        def evidence(setting: tuple[float, float]) -> float:
            factor = np.linalg.cholesky(self._covariance(*setting))
            whitened = np.linalg.solve(factor, column)
            return float(-0.5 * whitened @ whitened - np.log(np.diag(factor)).sum())

        return max(((length, noise) for length in LENGTHS for noise in NOISES), key=evidence)


def _kernel(a: Array, b: Array, length: float) -> Array:
    inner = a @ b.T
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * inner
    return np.asarray(LINEAR * inner + np.exp(-0.5 * np.maximum(squares, 0) / length**2))


def _spread(values: Array) -> Array:
    deviation: Any = values.std(axis=0)
    return np.asarray(np.where(deviation > 1e-12, deviation, 1.0))
