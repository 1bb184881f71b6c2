"""Non-dominated sets, exact hypervolume, and the probability of being on the front. No torch.

All values are minimised here: the sign of what is maximised is turned before.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

DRAWS = 512
Z_90 = 1.6448536269514722  # half-width of a normal's central 90 %, in standard deviations


def non_dominated(values: Array) -> Array:
    """Return which points no other dominates; equal points are all on the front.

    Args:
        values: [points, objectives], minimised, finite.

    Returns:
        [points] of bool.
    """
    if not len(values):
        return np.zeros(0, dtype=bool)
    points, back = np.unique(values, axis=0, return_inverse=True)  # in lexicographic order
    keep = _front_2d(points) if points.shape[1] == 2 else _front_any(points)
    return keep[back.reshape(-1)]


def _front_2d(points: Array) -> Array:
    """Return the front of distinct points in lexicographic order: the second value must fall."""
    best_before = np.minimum.accumulate(points[:, 1])
    keep = np.ones(len(points), dtype=bool)
    keep[1:] = points[1:, 1] < best_before[:-1]
    return keep


def _front_any(points: Array) -> Array:
    """Return the front of distinct points in lexicographic order: none is beaten by a later one."""
    keep = np.zeros(len(points), dtype=bool)
    front = points[:0]
    for index, point in enumerate(points):
        if not (front <= point).all(axis=1).any():
            keep[index] = True
            front = points[keep]
    return keep


def hypervolume(values: Array, reference: Array) -> float:
    """Return the volume that the points dominate, up to the reference point; exact.

    Two objectives: a sweep. More: slices along the last one, each the volume of a front with one
    objective less (Knowles, Local-Search and Hybrid Evolutionary Algorithms for Pareto
    Optimization, 2002: hypervolume by slicing objectives).

    Args:
        values: [points, objectives], minimised; points beyond the reference count for nothing.
        reference: [objectives].
    """
    inside = values[(values < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    front = np.unique(inside[non_dominated(inside)], axis=0)
    return _volume(front, np.asarray(reference, dtype=float))


def _volume(front: Array, reference: Array) -> float:
    if front.shape[1] == 1:
        return float(reference[0] - front.min())
    if front.shape[1] == 2:
        ordered = front[front[:, 0].argsort()]
        right = np.append(ordered[1:, 0], reference[0])
        return float(((right - ordered[:, 0]) * (reference[1] - ordered[:, 1])).sum())
    ordered = front[front[:, -1].argsort()]
    ends = np.append(ordered[1:, -1], reference[-1])
    total = 0.0
    for index, end in enumerate(ends):
        depth = end - ordered[index, -1]
        if depth > 0:
            total += depth * hypervolume(ordered[: index + 1, :-1], reference[:-1])
    return total


def improvements(values: Array, front: Array, reference: Array, draw: np.random.Generator) -> Array:
    """Return how much each point would add to the front's hypervolume.

    Exact for two objectives; for more, the share of random points in the box that a point newly
    dominates.

    Args:
        values: [points, objectives].
        front: [front, objectives], non-dominated, within the reference.
        reference: [objectives].
        draw: random points for three objectives and more.

    Returns:
        [points].
    """
    if values.shape[1] == 2:
        return _improvements_2d(values, front, reference)
    low = np.minimum(values.min(axis=0), front.min(axis=0) if len(front) else np.inf)
    sides = reference - low
    points = low[:, None] + draw.random((len(reference), _BOX_POINTS)) * sides[:, None]
    for one in front:
        points = points[:, (points < one[:, None]).any(axis=0)]
    newly = np.ones((len(values), points.shape[1]), dtype=bool)
    for value, point in zip(values.T, points, strict=True):
        newly &= value[:, None] <= point
    return np.asarray(newly.sum(axis=1) / _BOX_POINTS * np.prod(sides))


_BOX_POINTS = 2048


def _improvements_2d(values: Array, front: Array, reference: Array) -> Array:
    """Sum, over the steps of the staircase, the part of each that a point newly dominates."""
    ordered = front[front[:, 0].argsort()]
    left = np.concatenate([[-np.inf], ordered[:, 0]])  # [steps]
    right = np.concatenate([ordered[:, 0], [reference[0]]])
    height = np.concatenate([[reference[1]], ordered[:, 1]])
    width = right[None] - np.maximum(values[:, :1], left[None])
    depth = height[None] - values[:, 1:]
    return np.asarray((np.maximum(width, 0) * np.maximum(depth, 0)).sum(axis=1))


def front_probability(
    means: Array, deviations: Array, *, draws: int = DRAWS, seed: int = 0
) -> Array:
    """Return with which probability each point is on the front, given independent normal errors.

    Args:
        means: [points, objectives], minimised.
        deviations: [points, objectives], standard deviations, 0 where a value is exact.
        draws: of all points at once.
        seed: of the draws.

    Returns:
        [points].
    """
    if not deviations.any():
        return non_dominated(means).astype(float)
    draw = np.random.default_rng(seed)
    counts = np.zeros(len(means))
    for _ in range(draws):
        counts += non_dominated(means + deviations * draw.standard_normal(means.shape))
    return counts / draws


def ranks(values: Array) -> Array:
    """Return the front that each point is on: 0 the first, 1 what is left without it, and so on."""
    found = np.full(len(values), -1)
    rank = 0
    while (left := found < 0).any():
        rows = np.flatnonzero(left)
        found[rows[non_dominated(values[rows])]] = rank
        rank += 1
    return found
