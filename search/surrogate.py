"""A Gaussian process over patterns: what unseen candidates are likely to be worth. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from search.pareto import Array
from search.warp import Warp

NOISES = (1e-6, 1e-3, 3e-2, 0.2)  # variances, of a standardised objective's 1
FACTORS = (0.25, 4.0)  # by which a group's weight may change at a time
WEIGHT_BOUNDS = (1e-3, 1e3)
LENGTH_BOUNDS = (0.2, 8.0)
LINEAR = 1.0  # weight of the linear kernel beside the squared exponential's 1
RETUNE_EVERY = 8
JITTER = 1e-8  # of variance, so that covariances can be inverted


@dataclass(frozen=True)
class Setting:
    """Hyperparameters of one objective's process.

    Attributes:
        weights: of each group of features, a factor of the squares' given weight.
        length: of the squared exponential, in root mean squares of a feature's difference.
        noise: variance.
    """

    weights: tuple[float, ...]
    length: float = 1.0
    noise: float = 1e-3


class Surrogate:
    """One Gaussian process an objective, on standardised features and warped values.

    Covariance: a linear and a squared exponential part. How much each group of features counts,
    length and noise are those of the highest marginal likelihood found by steps along one of them
    at a time (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, ch. 5).

    Args:
        weights: of the features, [features], their squares sum to 1.
        groups: of the features.
    """

    def __init__(self, weights: Array, groups: Sequence[slice]) -> None:
        self._weights, self._groups = weights, groups
        self._settings: list[Setting] = []
        self._tuned_at = 0

    def fit(self, features: Array, values: Array) -> None:
        """Learn from [trials, features] and [trials, objectives]."""
        self._center, self._scale = features.mean(axis=0), _spread(features)
        known = self._standardised(features)
        self._warps = [Warp(column) for column in values.T]
        warped = np.stack([w.forth(v) for w, v in zip(self._warps, values.T, strict=True)], axis=1)
        self._mean, self._deviation = warped.mean(axis=0), _spread(warped)
        wanted = (warped - self._mean) / self._deviation
        if not self._settings or len(values) >= self._tuned_at + RETUNE_EVERY:
            self._settings = self._tuned(known, wanted)
            self._tuned_at = len(values)
        self._processes = [
            Process(known * self._factors(setting), setting, column)
            for setting, column in zip(self._settings, wanted.T, strict=True)
        ]

    def mean(self, features: Array) -> Array:
        """Return the mean, [candidates, objectives]."""
        return np.asarray(self.quantiles(features, (0.0,))[0])

    def quantiles(self, features: Array, deviations: Sequence[float]) -> Array:
        """Return the mean plus so many standard deviations, [deviations, candidates, objectives].

        Quantiles, since warping keeps the order: without noise.
        """
        asked = self._standardised(features)
        columns = []
        for index, (setting, process) in enumerate(
            zip(self._settings, self._processes, strict=True)
        ):
            found = process.quantiles(asked * self._factors(setting), deviations)
            warped = self._mean[index] + self._deviation[index] * found
            columns.append(self._warps[index].back(warped))
        return np.stack(columns, axis=2)

    def _standardised(self, features: Array) -> Array:
        return np.asarray((features - self._center) / self._scale * self._weights)

    def _factors(self, setting: Setting) -> Array:
        """Return a factor for each feature, [features]."""
        factors = np.ones(len(self._weights))
        for group, weight in zip(self._groups, setting.weights, strict=True):
            factors[group] = np.sqrt(weight)
        return factors

    def _tuned(self, known: Array, wanted: Array) -> list[Setting]:
        inner = [known[:, group] @ known[:, group].T for group in self._groups]
        first = Setting((1.0,) * len(self._groups))
        starts = self._settings or [first] * wanted.shape[1]
        return [
            _climbed(start, partial(_evidence, inner=inner, values=column))
            for start, column in zip(starts, wanted.T, strict=True)
        ]


class Process:
    """One Gaussian process, solved.

    Args:
        known: [trials, features], weighted.
        setting: hyperparameters.
        values: [trials], standardised.
    """

    def __init__(self, known: Array, setting: Setting, values: Array) -> None:
        self._known, self._length = known, setting.length
        covariance = _kernel(known @ known.T, *_squares(known, known), setting.length)
        covariance += (setting.noise + JITTER) * np.eye(len(known))
        self._precision = np.linalg.inv(covariance)
        self._solved = self._precision @ values

    def quantiles(self, asked: Array, deviations: Sequence[float]) -> Array:
        """Return the mean plus so many standard deviations, [deviations, candidates]."""
        squares = _squares(asked, self._known)
        cross = _kernel(asked @ self._known.T, *squares, self._length)
        mean = cross @ self._solved
        if not any(deviations):
            return np.tile(mean, (len(deviations), 1))
        prior = 1.0 + LINEAR * squares[0][:, 0]
        explained = ((cross @ self._precision) * cross).sum(axis=1)
        deviation = np.sqrt(np.maximum(prior - explained, 1e-12))
        return np.asarray(mean + np.multiply.outer(deviations, deviation))


def _climbed(start: Setting, evidence: Callable[[Setting], float]) -> Setting:
    """Return the best setting met by going once over all single changes, each kept if it helps."""
    best, highest = start, evidence(start)
    for change in _changes(start):
        other = change(best)
        found = evidence(other) if _is_within(other) else -np.inf
        if found > highest:
            best, highest = other, found
    return best


def _changes(start: Setting) -> Iterator[Callable[[Setting], Setting]]:
    for noise in NOISES:
        yield partial(_with_noise, noise=noise)
    for index in range(len(start.weights)):
        for factor in FACTORS:
            yield partial(_with_weight, index=index, factor=factor)
    for factor in (0.5, 2.0):
        yield partial(_with_length, factor=factor)


def _with_noise(setting: Setting, noise: float) -> Setting:
    return replace(setting, noise=noise)


def _with_weight(setting: Setting, index: int, factor: float) -> Setting:
    weights = list(setting.weights)
    weights[index] *= factor
    return replace(setting, weights=tuple(weights))


def _with_length(setting: Setting, factor: float) -> Setting:
    return replace(setting, length=setting.length * factor)


def _is_within(setting: Setting) -> bool:
    low, high = WEIGHT_BOUNDS
    inside = all(low < weight < high for weight in setting.weights)
    return inside and LENGTH_BOUNDS[0] < setting.length < LENGTH_BOUNDS[1]


def _evidence(setting: Setting, inner: Sequence[Array], values: Array) -> float:
    """Return the log marginal likelihood, without its constant.

    Args:
        setting: hyperparameters.
        inner: of each group the products of the trials' features, [trials, trials].
        values: [trials].
    """
    product: Any = sum(w * one for w, one in zip(setting.weights, inner, strict=True))
    squares = np.diag(product)
    covariance = _kernel(product, squares[:, None], squares[None], setting.length)
    covariance[np.diag_indices(len(values))] += setting.noise + JITTER
    try:
        factor = np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        return -np.inf
    whitened = np.linalg.solve(factor, values)
    return float(-0.5 * whitened @ whitened - np.log(np.diag(factor)).sum())


def _squares(a: Array, b: Array) -> tuple[Array, Array]:
    return (a**2).sum(axis=1)[:, None], (b**2).sum(axis=1)[None]


def _kernel(inner: Array, left: Array, right: Array, length: float) -> Array:
    """Return covariances of inner products [a, b] and squares [a, 1] and [1, b]."""
    distance = np.maximum(left + right - 2 * inner, 0)
    return np.asarray(LINEAR * inner + np.exp(-0.5 * distance / length**2))


def _spread(values: Array) -> Array:
    deviation: Any = values.std(axis=0)
    return np.asarray(np.where(deviation > 1e-12, deviation, 1.0))
