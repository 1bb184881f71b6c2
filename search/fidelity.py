"""Longer trainings for survivors, above Optuna, which prunes no study of several objectives.

A promotion is a waiting trial of the same candidate: any worker of the study takes it up next, and
it is retried and recorded like every other trial.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search.pareto import Array, front_probability, ranks
from search.quality import deviation
from search.records import Tried, best_known

NOISY = ("proxy", "surrogate")  # provenances of what differs from training to training
REDUCTION = 4  # of so many candidates of a fidelity, one is promoted


def survivors(found: Sequence[Tried], signs: dict[str, float], fidelity: int) -> list[Tried]:
    """Return which trials of a fidelity deserve the next one, the best first.

    The best quarter, by the probability of being on the front and then by the front they are on:
    asynchronous successive halving (Li et al., A System for Massively Parallel Hyperparameter
    Tuning, MLSys 2020), with that order in place of one objective's.
    """
    here = [one for one in found if one.fidelity == fidelity]
    quota = len(here) // REDUCTION
    if not quota:
        return []
    means, deviations = arrays(here, signs)
    chances, fronts = front_probability(means, deviations, draws=64), ranks(means)
    order = np.lexsort([fronts, -chances])  # by the last key first
    return [here[i] for i in order[:quota]]


def unpromoted_front(
    found: Sequence[Tried], signs: dict[str, float], last_fidelity: int
) -> list[Tried]:
    """Return the trials on the front, as far as known, that were not trained the longest."""
    known = best_known(found)
    if not known:
        return []
    means, _ = arrays(known, signs)
    on_front = ranks(means) == 0
    return [o for o, on in zip(known, on_front, strict=True) if on and o.fidelity < last_fidelity]


def arrays(found: Sequence[Tried], signs: dict[str, float]) -> tuple[Array, Array]:
    """Return values and standard deviations, both [trials, objectives], all to be minimised.

    Only a quality's error reorders candidates: errors of times go together (see
    hybridsim.measure.estimate.total) and move all of them alike.
    """
    means = np.array([[sign * one.values[n].value for n, sign in signs.items()] for one in found])
    spread = [
        [deviation(one.values[n]) if one.values[n].provenance in NOISY else 0.0 for n in signs]
        for one in found
    ]
    return means.reshape(len(found), len(signs)), np.array(spread).reshape(means.shape)
