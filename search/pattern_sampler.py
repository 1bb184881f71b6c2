"""Our sampler: knows patterns, begins with designs, repeats nothing. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

import numpy as np
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from search.candidate import Candidate
from search.designs import designs
from search.features import Features
from search.moves import mutated
from search.pareto import Array, improvements, non_dominated
from search.space_sampler import SpaceSampler
from search.surrogate import Surrogate

if TYPE_CHECKING:
    from search.space import Space

NODES = (-1.0, 1.0)  # deviations from the mean that stand for all: Gauss and Hermite's two points
GENERATIONS = 6  # of children: moves add up before a trial is spent
PARENTS = 4  # children that have children of their own


class PatternSampler(SpaceSampler):
    """Designs first, then candidates near the front that a surrogate finds most promising.

    Each proposal after the designs: unseen candidates are made from those on the front by moves
    (search/moves.py), the best of them changed again, generation by generation, and the remaining
    designs put beside them. A Gaussian process gives each a mean and a deviation; the one that is
    expected to add most to the hypervolume is taken (Emmerich, Giannakoglou and Naujoks,
    Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian Random Field
    Metamodels, 2006), all objectives better or worse than their means together. What is beyond the
    reference counts for nothing and has no children. No candidate of an earlier trial is proposed
    again, whether that trial finished, failed or still runs.

    Args:
        space: of the candidates.
        seed: of the draws.
        num_designs: how many designs to begin with, at most.
        num_children: unseen candidates of each generation that a proposal chooses among.
        use_surrogate: false: a child of the front at random, as an evolutionary search would.
        reference: of the hypervolume, [objectives], all to be minimised; null: a tenth of the
            observed range beyond the worst.
    """

    def __init__(
        self,
        space: Space,
        *,
        seed: int | None = None,
        num_designs: int = 16,
        num_children: int = 28,
        use_surrogate: bool = True,
        reference: Sequence[float] | None = None,
    ) -> None:
        super().__init__(space)
        self._draw, self._numbers = Random(seed), np.random.default_rng(seed)
        every = designs(space)
        self._designs, self._later = every[:num_designs], every[num_designs:]
        self._num_children = num_children
        self._use_surrogate, self._reference = use_surrogate, reference
        self._features = Features(space)
        self._surrogate = Surrogate(self._features.weights, self._features.groups)

    def reseed_rng(self) -> None:
        self._draw, self._numbers = Random(), np.random.default_rng()

    def _proposed(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
    ) -> Candidate:
        by_trial = self._decoded.by_trial(trials)
        seen = set(by_trial.values())
        for design in self._designs:
            if design not in seen:
                return design
        best: dict[Candidate, Sequence[float]] = {}
        for trial in trials:  # the last of a candidate is of the longest proxy
            if trial.state == TrialState.COMPLETE and trial.number in by_trial:
                best[by_trial[trial.number]] = trial.values
        if not best:
            return self._unseen(seen)
        signs = np.array([1 if d == StudyDirection.MINIMIZE else -1 for d in directions])
        return self._near_front(list(best), np.array(list(best.values())) * signs, seen)

    def _unseen(self, seen: set[Candidate]) -> Candidate:
        for _ in range(1000):
            candidate = self._space.random(self._draw)
            if candidate not in seen:
                break
        return candidate

    def _near_front(self, known: list[Candidate], values: Array, seen: set[Candidate]) -> Candidate:
        if not self._use_surrogate:
            front = [known[i] for i in np.flatnonzero(non_dominated(values))]
            return self._children(front, seen, 1)[0]
        features = self._features.of(known)
        self._surrogate.fit(features, values)
        smooth = self._surrogate.mean(features)
        reference = self._reference_of(values)
        on_front = non_dominated(smooth) & (smooth < reference).all(axis=1)
        front = [known[i] for i in np.flatnonzero(on_front)] or known
        children = self._children(front, seen, self._num_children)
        met = seen.union(children)
        children += [c for c in self._later if c not in met]
        gains = self._gains(children, smooth[on_front], reference)
        for _ in range(GENERATIONS - 1):
            parents = [children[i] for i in np.argsort(-gains)[:PARENTS]]
            more = self._children(parents, seen.union(children), self._num_children)
            gained = self._gains(more, smooth[on_front], reference)
            children, gains = children + more, np.concatenate([gains, gained])
        return children[int(gains.argmax())] if gains.max() > 0 else self._draw.choice(children)

    def _reference_of(self, values: Array) -> Array:
        if self._reference is not None:
            return np.array(self._reference)
        worst = values.max(axis=0)
        return np.asarray(worst + 0.1 * (worst - values.min(axis=0)) + 1e-12)

    def _gains(self, candidates: list[Candidate], front: Array, reference: Array) -> Array:
        """Return how much each candidate is expected to add to the hypervolume, [candidates]."""
        values = self._surrogate.quantiles(self._features.of(candidates), NODES)
        flat = values.reshape(-1, len(reference))
        gains = improvements(flat, front, reference, self._numbers)
        return np.asarray(gains.reshape(len(NODES), -1).mean(axis=0))

    def _children(
        self, parents: list[Candidate], seen: set[Candidate], count: int
    ) -> list[Candidate]:
        """Return unseen candidates near the parents; fewer where the space ends."""
        found: dict[Candidate, None] = {}
        for _ in range(4 * count):
            child = mutated(self._space, self._draw.choice(parents), self._draw)
            if child not in seen:
                found[child] = None
                if len(found) == count:
                    break
        return list(found) or [self._unseen(seen)]
