"""Which positions want full attention, by what the trials found. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.objectives import Objective
from search.pareto import Array
from search.quality import deviation
from search.records import Tried, best_known
from search.space import Space

BOOTSTRAPS = 400
RIDGE = 1.0
SMOOTHING = 4.0  # weight of differences between neighbouring layers
LEAST_TRIALS_A_LAYER = 2  # candidates, below which nothing is said


@dataclass(frozen=True)
class Importance:
    """What full attention in one layer is worth.

    Attributes:
        layer: from 1.
        effect: on the quality, against the mean layer, at an equal number of full layers.
        low, high: its 90 % interval over bootstrap samples of the candidates, their qualities drawn
            anew within their errors.
        tried: candidates with full attention there.
        spared: candidates without.
    """

    layer: int
    effect: float
    low: float
    high: float
    tried: int
    spared: int


def layer_importance(
    space: Space, found: Sequence[Tried], objective: Objective, seed: int = 0
) -> list[Importance]:
    """Return the importance of each free layer; nothing where too few candidates were tried.

    Ridge regression of the quality on which layers are full, beside the number of full layers, its
    square and its logarithm; neighbouring layers are drawn together. A search tries layers that it
    takes for good more often: rarely tried ones have wide intervals.
    """
    known = best_known(found)
    least = LEAST_TRIALS_A_LAYER * len(space.free)
    if len(known) < least or not space.full_letters:
        return []
    full = np.array([[one.candidate.letters[i] in space.full_letters for i in space.free]
                     for one in known], dtype=float)  # fmt: skip
    better = np.array([-objective.sign * one.values[objective.name].value for one in known])
    errors = np.array([deviation(one.values[objective.name]) for one in known])
    draw = np.random.default_rng(seed)
    samples = np.array([_resampled(full, better, errors, draw) for _ in range(BOOTSTRAPS)])
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    effects = _effects(full, better)
    return [
        Importance(
            layer=layer + 1,
            effect=float(effects[i]),
            low=float(low[i]),
            high=float(high[i]),
            tried=int(full[:, i].sum()),
            spared=int((1 - full[:, i]).sum()),
        )
        for i, layer in enumerate(space.free)
    ]


def _resampled(full: Array, better: Array, errors: Array, draw: np.random.Generator) -> Array:
    rows = draw.integers(len(full), size=len(full))
    noise = errors[rows] * draw.standard_normal(len(full))
    return _effects(full[rows], better[rows] + noise)


def _effects(full: Array, better: Array) -> Array:
    """Return [layers], with mean zero."""
    size = full.shape[1]
    count = full.sum(axis=1)
    shared = np.stack([np.ones(len(full)), count / size, (count / size) ** 2, np.log1p(count)], 1)
    design = np.concatenate([full - count[:, None] / size, shared], axis=1)
    penalty = np.zeros((design.shape[1], design.shape[1]))
    steps = np.diff(np.eye(size), axis=0)
    penalty[:size, :size] = RIDGE * np.eye(size) + SMOOTHING * steps.T @ steps
    penalty[size:, size:] = 1e-6 * np.eye(4)
    solved = np.linalg.solve(design.T @ design + penalty, design.T @ better)[:size]
    return np.asarray(solved - solved.mean())
