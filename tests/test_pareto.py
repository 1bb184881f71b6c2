"""Fronts, hypervolumes and probabilities against definitions and brute force."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.pareto import front_probability, hypervolume, improvements, non_dominated, ranks

SMALL = st.integers(0, 6).map(float)


def points(objectives: int, most: int = 7) -> st.SearchStrategy[np.ndarray]:
    row = st.lists(SMALL, min_size=objectives, max_size=objectives)
    return st.lists(row, min_size=1, max_size=most).map(np.array)


def by_definition(values: np.ndarray) -> list[bool]:
    return [
        not any((other <= one).all() and (other < one).any() for other in values) for one in values
    ]


def inclusion_exclusion(values: np.ndarray, reference: np.ndarray) -> float:
    """The volume of a union of boxes, each from a point to the reference."""
    inside = [one for one in values if (one < reference).all()]
    total = 0.0
    for size in range(1, len(inside) + 1):
        for chosen in combinations(inside, size):
            sides = reference - np.max(chosen, axis=0)
            total += (-1) ** (size + 1) * float(np.prod(sides))
    return total


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@given(st.data())
def test_front_is_what_none_dominates(objectives: int, data: st.DataObject) -> None:
    values = data.draw(points(objectives, most=12))
    assert non_dominated(values).tolist() == by_definition(values)


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
@given(st.data())
def test_hypervolume_is_the_volume_of_the_union(objectives: int, data: st.DataObject) -> None:
    values = data.draw(points(objectives))
    reference = np.full(objectives, 5.5)
    assert hypervolume(values, reference) == pytest.approx(inclusion_exclusion(values, reference))


@given(points(2), points(2))
def test_improvement_of_two_objectives_is_the_difference(
    values: np.ndarray, known: np.ndarray
) -> None:
    reference = np.array([5.5, 5.5])
    front = known[non_dominated(known) & (known < reference).all(axis=1)]
    front = np.unique(front, axis=0)
    before = hypervolume(front, reference)
    expected = [
        hypervolume(np.concatenate([front, one[None]]), reference) - before for one in values
    ]
    found = improvements(values, front, reference, np.random.default_rng(0))
    assert found == pytest.approx(expected)


def test_improvement_of_three_objectives_is_near_the_difference() -> None:
    draw = np.random.default_rng(0)
    values, known, reference = draw.random((20, 3)), draw.random((8, 3)), np.ones(3)
    front = known[non_dominated(known)]
    before = hypervolume(front, reference)
    expected = [
        hypervolume(np.concatenate([front, one[None]]), reference) - before for one in values
    ]
    found = improvements(values, front, reference, draw)
    # 4,096 points: three standard errors of a share of a half are 0.023.
    assert np.abs(found - expected).max() < 0.023


def test_probability_of_two_noisy_points() -> None:
    means = np.array([[0.0, 0.0], [1.0, 0.1]])
    deviations = np.array([[0.0, 0.1], [0.0, 0.1]])
    # The second is on the front where its second value is below the first's.
    behind = 0.5 * math.erfc(0.1 / math.sqrt(2 * (0.1**2 + 0.1**2)))
    found = front_probability(means, deviations, draws=20_000)
    assert found[0] == 1.0
    assert found[1] == pytest.approx(behind, abs=0.012)


def test_exact_values_are_on_the_front_or_not() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    assert front_probability(values, np.zeros_like(values)).tolist() == [1, 1, 0, 0]
    assert ranks(values).tolist() == [0, 0, 1, 2]


def test_a_million_points_take_no_minute() -> None:
    values = np.random.default_rng(0).random((1_000_000, 2))
    front = values[non_dominated(values)]
    assert 1 < len(front) < 100
    assert (np.diff(front[front[:, 0].argsort()], axis=0)[:, 1] < 0).all()
