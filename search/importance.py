"""Which positions want full attention, by what the trials found. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.objectives import Objective
from search.pareto import Array
from search.records import Tried, best_known
from search.space import Space

BOOTSTRAPS = 400
RIDGE = 1.0
SMOOTHING = 4.0  # weight of differences between neighbouring layers
LEAST_TRIALS = 12


@dataclass(frozen=True)
class Importance:
    """What full attention in one layer is worth.

    Attributes:
        layer: from 1.
        effect: on the quality, against the mean layer, at an equal number of full layers.
        low, high: its 90 % interval over bootstrap samples of the candidates.
        tried: candidates with full attention there.
    """

    layer: int
    effect: float
    low: float
    high: float
    tried: int


def layer_importance(
    space: Space, found: Sequence[Tried], objective: Objective, seed: int = 0
) -> list[Importance]:
    """Return the importance of each free layer; nothing where too few candidates were tried.

    Ridge regression of the quality on which layers are full, beside the number of full layers, its
    square and its logarithm; neighbouring layers are drawn together. A search tries layers that it
    takes for good more often: rarely tried ones have wide intervals.
    """
    known = best_known(found)
    if len(known) < LEAST_TRIALS or not space.full_letters:
        return []
    full = np.array([[one.candidate.letters[i] in space.full_letters for i in space.free]
                     for one in known], dtype=float)  # fmt: skip
    better = np.array([-objective.sign * one.values[objective.name].value for one in known])
    draw = np.random.default_rng(seed)
    rows = [draw.integers(len(known), size=len(known)) for _ in range(BOOTSTRAPS)]
    samples = np.array([_effects(full[r], better[r]) for r in rows])
    low, high = np.quantile(samples, [0.05, 0.95], axis=0)
    effects = _effects(full, better)
    return [
        Importance(
            layer + 1, float(effects[i]), float(low[i]), float(high[i]), int(full[:, i].sum())
        )
        for i, layer in enumerate(space.free)
    ]


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
