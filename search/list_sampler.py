"""Every candidate of a small space once, in random order. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import TYPE_CHECKING

from hybridsim.errors import HybridsimError
from search.candidate import Candidate
from search.space_sampler import SpaceSampler

if TYPE_CHECKING:
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial

    from search.space import Space

MAX_LISTED = 1_000_000


class ListSampler(SpaceSampler):
    """Proposes what no earlier trial was of, until the space ends.

    Args:
        space: of the candidates.
        seed: of their order.

    Raises:
        HybridsimError: the space is too large to be listed.
    """

    def __init__(self, space: Space, *, seed: int | None = None) -> None:
        if space.size > MAX_LISTED:
            raise HybridsimError(
                f"sampler=grid: the space has {space.size:,} candidates;"
                f" at most {MAX_LISTED:,} can be listed"
            )
        super().__init__(space)
        self._candidates = list(space.candidates())
        Random(seed).shuffle(self._candidates)

    def _proposed(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
    ) -> Candidate:
        seen = set(self._decoded.by_trial(trials).values())
        unseen = (c for c in self._candidates if c not in seen)
        return next(unseen, self._candidates[0])
