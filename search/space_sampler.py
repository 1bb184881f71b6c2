"""What our samplers share: all parameters of a trial at once, from a candidate. No torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from search.candidate import Candidate
from search.decoded import Decoded

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

    from search.space import Space


class SpaceSampler(BaseSampler):
    """A sampler that proposes candidates of a space.

    Args:
        space: of the candidates.
    """

    def __init__(self, space: Space) -> None:
        self._space, self._decoded = space, Decoded(space)

    @abstractmethod
    def _proposed(
        self, trials: Sequence[FrozenTrial], directions: Sequence[StudyDirection]
    ) -> Candidate:
        """Return the next candidate after all other trials of a study."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return dict(self._space.distributions())

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        others = [t for t in study.get_trials(deepcopy=False) if t.number != trial.number]
        return self._space.encoding.encode(self._proposed(others, study.directions))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise ValueError(f"parameter {param_name} is not one of the space's")
