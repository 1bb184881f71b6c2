"""A placement problem whose exact optimum is known, to compare samplers on. No torch.

Both are minimised, for b in {0, 1}^N (1 is full attention), n = sum(b):

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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from search.pareto import Array

GIB = 1 << 30
CONTEXT = 131_072
FULL_BYTES = 2 * 2 * 128 * 2 * CONTEXT
LINEAR_BYTES = 32 * 128 * 128 * 4


def position_weights(num_layers: int = 24) -> Array:
    """Return how much full attention matters in each layer; they sum to 1."""
    at = np.arange(num_layers) * 23 / max(1, num_layers - 1)
    raw = 0.2 + 0.6 * np.exp(-(((at - 7.5) / 2) ** 2)) + np.exp(-(((at - 17) / 2.5) ** 2))
    return np.asarray(raw / raw.sum())


class Landscape:
    """The problem for one depth and set of mixers.

    Args:
        num_layers: N.
        strengths: of each mixer, by its index; (0, 1) is the problem above.
        mixer_bytes: cache of a layer of each mixer.
    """

    def __init__(
        self,
        num_layers: int = 24,
        strengths: Sequence[float] = (0.0, 1.0),
        mixer_bytes: Sequence[float] = (LINEAR_BYTES, FULL_BYTES),
    ) -> None:
        self.weights = position_weights(num_layers)
        self.strengths = np.array(strengths, dtype=float)
        self.mixer_bytes = np.array(mixer_bytes, dtype=float)

    @property
    def reference(self) -> Array:
        """The hypervolume's reference point."""
        return np.array([1.0001 * len(self.weights) * self.mixer_bytes.max() / GIB, 3.0])

    def values(self, mixers: Array) -> Array:
        """Return f1 and f2.

        Args:
            mixers: [placements, layers], the index of each layer's mixer.

        Returns:
            [placements, 2].
        """
        strength = self.strengths[mixers]  # [placements, layers]
        cache = self.mixer_bytes[mixers].sum(axis=1) / GIB
        full = strength >= 0.5
        share = strength.mean(axis=1)
        loss = np.exp(-6 * strength @ self.weights) + 0.15 * share**2
        loss += 0.01 * (full[:, 1:] & full[:, :-1]).sum(axis=1) + 0.004 * _long_runs(~full)
        return np.stack([cache, loss], axis=1)


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


def exact_front(landscape: Landscape, num_layers: int = 24, chunk: int = 1 << 18) -> Array:
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
