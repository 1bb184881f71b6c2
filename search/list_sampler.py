"""Every candidate of a small space once, in random order. No torch."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial

from hybridsim.errors import HybridsimError
from search.decoded import Decoded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

    from search.space import Space

MAX_LISTED = 1_000_000


class ListSampler(BaseSampler):
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
        self._space, self._decoded = space, Decoded(space)
        self._candidates = list(space.candidates())
        Random(seed).shuffle(self._candidates)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        seen = set(self._decoded.by_trial(others).values())
        unseen = (c for c in self._candidates if c not in seen)
        return self._space.encoding.encode(next(unseen, self._candidates[0]))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(f"parameter {param_name} is not one of the space's")
