"""Placement problems whose exact optimum is known, to compare samplers on. No torch.

`Landscape`: both are minimised, for b in {0, 1}^N (1 is full attention), n = sum(b):

    f1 = GiB of cache at 128k tokens: 2 heads of 128 in bf16 a full layer, 32 states of 128 x 128 in
         fp32 a linear one
    f2 = exp(-6 w.b) + 0.004 sum over runs of r > 3 linear layers of (r - 3)^2
         + 0.01 (adjacent full pairs) + 0.15 (n / N)^2

with w proportional to 0.2 + 0.6 exp(-((l - 7.5) / 2)^2) + exp(-((l - 17) / 2.5)^2), sum 1, for
l = 0 .. 23 (stretched to other depths). Smooth and nearly additive: full attention matters most in
the middle and at two thirds, long gaps hurt, and full attention everywhere is worse than 3:1, as
Kimi Linear reports (arXiv 2510.26692, table 1). The shape is ours; it is not a measurement.

With more mixers than two, a layer of mixer j counts `strengths[j]` instead of 1 in w.b and in n/N,
and is linear where its strength is below 1/2.

Two others of the same f1 have other shapes, so that no sampler is made for the first one alone:

    Pairs:   f2 = 1 / (1 + 12 P) + 0.15 (n / N)^2, P = sum over i < j of a(j - i) b_i b_j / N,
             a(d) = exp(-((d - 8) / 3)^2): one full layer alone is worth nothing, two as far apart
             as fits are (stretched to other depths); where they stand does not matter
    Rugged:  f2 = exp(-4 w.b) + sum over i < j of J_ij b_i b_j + 0.15 (n / N)^2, w of independent
             exponential draws, sum 1, and J of normal ones, standard deviation 0.02: a layer tells
             nothing of its neighbours, and pairs matter either way
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from search.pareto import Array

GIB = 1 << 30
CONTEXT = 131_072
FULL_BYTES = 2 * 2 * 128 * 2 * CONTEXT
LINEAR_BYTES = 32 * 128 * 128 * 4
RUGGED_SEED = 11


def position_weights(num_layers: int = 24) -> Array:
    """Return how much full attention matters in each layer; they sum to 1."""
    at = np.arange(num_layers) * 23 / max(1, num_layers - 1)
    raw = 0.2 + 0.6 * np.exp(-(((at - 7.5) / 2) ** 2)) + np.exp(-(((at - 17) / 2.5) ** 2))
    return np.asarray(raw / raw.sum())


class PlacementProblem(ABC):
    """Cache against loss, for one depth and set of mixers.

    Args:
        num_layers: N.
        strengths: of each mixer, by its index; (0, 1) is linear and full attention.
        mixer_bytes: cache of a layer of each mixer.
    """

    def __init__(
        self,
        num_layers: int = 24,
        strengths: Sequence[float] = (0.0, 1.0),
        mixer_bytes: Sequence[float] = (LINEAR_BYTES, FULL_BYTES),
    ) -> None:
        self.num_layers = num_layers
        self.strengths = np.array(strengths, dtype=float)
        self.mixer_bytes = np.array(mixer_bytes, dtype=float)

    @property
    def reference(self) -> Array:
        """The hypervolume's reference point."""
        return np.array([1.0001 * self.num_layers * self.mixer_bytes.max() / GIB, 3.0])

    def values(self, mixers: Array) -> Array:
        """Return f1 and f2.

        Args:
            mixers: [placements, layers], the index of each layer's mixer.

        Returns:
            [placements, 2].
        """
        strength = self.strengths[mixers]  # [placements, layers]
        cache = self.mixer_bytes[mixers].sum(axis=1) / GIB
        loss = self.loss(strength) + 0.15 * strength.mean(axis=1) ** 2
        return np.stack([cache, loss], axis=1)

    @abstractmethod
    def loss(self, strength: Array) -> Array:
        """Return f2 without its last term, [placements], of the layers' strengths."""


class Landscape(PlacementProblem):
    """Smooth and nearly additive: the first problem above."""

    def loss(self, strength: Array) -> Array:
        full = strength >= 0.5
        loss = np.exp(-6 * strength @ position_weights(self.num_layers))
        loss += 0.01 * (full[:, 1:] & full[:, :-1]).sum(axis=1) + 0.004 * _long_runs(~full)
        return np.asarray(loss)


class Pairs(PlacementProblem):
    """Nothing is additive: full layers count in pairs."""

    def loss(self, strength: Array) -> Array:
        at = np.arange(self.num_layers) * 23 / max(1, self.num_layers - 1)
        distance = at[None] - at[:, None]
        weight = np.where(distance > 0, np.exp(-(((distance - 8) / 3) ** 2)), 0.0)
        pairs = ((strength @ weight) * strength).sum(axis=1) / self.num_layers
        return np.asarray(1 / (1 + 12 * pairs))


class Rugged(PlacementProblem):
    """Nothing is smooth: places and pairs are drawn at random, always the same."""

    def loss(self, strength: Array) -> Array:
        draw = np.random.default_rng(RUGGED_SEED)
        weights = draw.exponential(size=self.num_layers)
        pairs = np.triu(0.02 * draw.standard_normal((self.num_layers, self.num_layers)), 1)
        loss = np.exp(-4 * strength @ weights / weights.sum())
        return np.asarray(loss + ((strength @ pairs) * strength).sum(axis=1))


def _long_runs(linear: Array) -> Array:
    """Return the sum over runs of r > 3 linear layers of (r - 3)^2.

    A run that grows from r to r + 1 adds (r - 2)^2 - (r - 3)^2 = 2 (r - 3) + 1 from r = 3 on.
    """
    total = np.zeros(len(linear))
    run = np.zeros(len(linear))
    for column in linear.T:
        total += np.where(column & (run >= 3), 2 * (run - 3) + 1, 0)
        run = np.where(column, run + 1, 0)
    return total


def exact_front(landscape: PlacementProblem, num_layers: int = 24, chunk: int = 1 << 18) -> Array:
    """Return the front over all placements of two mixers, by trying every one.

    Returns:
        [front, 2] in the order of f1.
    """
    from search.pareto import non_dominated

    front: Any = np.zeros((0, 2))
    for start in range(0, 1 << num_layers, chunk):
        numbers = np.arange(start, min(start + chunk, 1 << num_layers))
        mixers = (numbers[:, None] >> np.arange(num_layers)) & 1
        values = landscape.values(mixers)
        both = np.concatenate([front, values[non_dominated(values)]])
        front = np.unique(both[non_dominated(both)], axis=0)
    return np.asarray(front)
