"""The candidates that a study's trials are of. No torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial

from search.candidate import Candidate, parse_key
from search.records import KEY

if TYPE_CHECKING:
    from search.space import Space


class Decoded:
    """Remembers the candidate of each trial, whatever its state.

    Args:
        space: that the trials' parameters are of.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._known: dict[int, Candidate] = {}

    def by_trial(self, trials: Iterable[FrozenTrial]) -> dict[int, Candidate]:
        """Return candidates by number; trials that have no parameters yet are left out."""
        found = {}
        for trial in trials:
            if trial.number not in self._known:
                candidate = self._candidate(trial)
                if candidate is None:
                    continue
                self._known[trial.number] = candidate
            found[trial.number] = self._known[trial.number]
        return found

    def _candidate(self, trial: FrozenTrial) -> Candidate | None:
        if KEY in trial.user_attrs:
            return parse_key(trial.user_attrs[KEY])
        params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
        if set(self._space.distributions()) <= set(params):
            return self._space.encoding.decode(params)
        return None
