"""A worker of a study: takes trials until the study has as many candidates as it should.

Any number of workers, in any number of processes and machines, may work on one study: each trial
gives signs of life, a trial that lost its worker is taken up by another, and no candidate is paid
for twice. A worker needs to know no other one: all they share is the storage.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from hybridsim.errors import HybridsimError
from search.claim import claim, counts, finished
from search.liveness import DUPLICATE, IDENTITY, INTERRUPTED, Heart, Patience, Watch, end, retire

IDLE_S = 0.2  # between looks at a study whose last trials run elsewhere
MAX_REFUSALS = 5  # of proposals in a row, until one not seen yet is looked for
OUTAGE_PAUSES_S = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Result = TypeVar("Result")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What evaluating a candidate gave.

    Attributes:
        values: one an objective, in the study's order.
        constraints: by name; at most 0 is feasible.
        notes: kept with the trial.
    """

    values: Sequence[float]
    constraints: Mapping[str, float] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


class TrialFailedError(HybridsimError):
    """A candidate could not be evaluated; its trial is recorded as failed."""


class Problem(ABC):
    """What the workers of a study work on."""

    @abstractmethod
    def suggest(self, trial: Trial) -> str:
        """Draw all parameters of a trial; return the identity of the candidate they mean."""

    @abstractmethod
    def evaluate(self, trial: Trial) -> Outcome:
        """Evaluate the candidate of a trial.

        Raises:
            TrialFailedError: it cannot be; any other exception ends the trial as failed too.
        """

    def unseen(self, known: set[str]) -> Mapping[str, Any] | None:
        """Return the parameters of a candidate without these identities; None where none is left.

        Called after many proposals in a row were known already.
        """
        raise HybridsimError(
            f"the sampler proposed {MAX_REFUSALS} known candidates in a row; widen the space"
            " or choose another sampler"
        )


class Worker:
    """Takes trials of a study and evaluates them.

    Args:
        study: shared with other workers.
        problem: what is evaluated.
        budget: candidates of the whole study, by all workers, those that failed included.
        patience: how lost workers are noticed.
        done: called with every trial that this worker finished.
    """

    def __init__(
        self,
        study: Study,
        problem: Problem,
        budget: int,
        patience: Patience | None = None,
        done: Callable[[FrozenTrial], None] = lambda trial: None,
    ) -> None:
        self.study, self.problem, self.budget = study, problem, budget
        self.patience = patience or Patience()
        self._done = done
        self._watch = Watch(self.patience.grace_s)
        self._refusals = 0

    def run(self) -> None:
        """Work until the study has its candidates, or there are no more."""
        while through_outages(self._step):
            pass

    def _step(self) -> bool:
        """Take one trial, or wait; return whether the study is not over."""
        trials = self.study.get_trials(deepcopy=False)
        self._retire_lost(trials)
        if len(finished(trials)) >= self.budget:
            return False
        if self._finds_work(trials):
            self._take()
            return True
        # What others still run may be lost, and repeated here.
        time.sleep(IDLE_S)
        return any(not trial.state.is_finished() for trial in trials)

    def _finds_work(self, trials: Sequence[FrozenTrial]) -> bool:
        if any(trial.state == TrialState.WAITING for trial in trials):
            return True
        if sum(map(counts, trials)) >= self.budget:
            return False
        return self._refusals < MAX_REFUSALS or self._queue_unseen(trials)

    def _retire_lost(self, trials: Sequence[FrozenTrial]) -> None:
        """End the trials that have no worker."""
        for trial in self._watch.lost(trials):
            retire(self.study, trial, trials, self.patience.max_retries)

    def _queue_unseen(self, trials: Sequence[FrozenTrial]) -> bool:
        """Queue a candidate that nobody proposed; return whether there is one."""
        known = {
            t.system_attrs[IDENTITY] for t in trials if counts(t) and IDENTITY in t.system_attrs
        }
        params = self.problem.unseen(known)
        if params is not None:
            self.study.enqueue_trial(dict(params))
        return params is not None

    def _take(self) -> None:
        """Take one trial from its beginning to its end."""
        trial = self.study.ask()
        with Heart(self.study, [trial], self.patience.heartbeat_s):
            try:
                identity = self.problem.suggest(trial)
                refused = claim(self.study, trial, identity, self.budget, self._retire_lost)
                self._note(refused)
                if refused:
                    return
                outcome = self._evaluated(trial)
            except BaseException:
                self._give_up(trial)
                raise
            self._record(trial, outcome)

    def _note(self, refused: str | None) -> None:
        """Keep in mind how often proposals were known: where it is often, new ones are queued."""
        known = refused == DUPLICATE
        self._refusals = min(max(self._refusals + (1 if known else -1), 0), MAX_REFUSALS)

    def _give_up(self, trial: Trial) -> None:
        try:
            end(self.study, self._frozen(trial), void=INTERRUPTED)
        except Exception as error:  # without a storage the others will find it without a worker
            log.warning("trial %d is left to the other workers: %s", trial.number, error)

    def _frozen(self, trial: Trial) -> FrozenTrial:
        return self.study._storage.get_trial(trial._trial_id)

    def _evaluated(self, trial: Trial) -> Outcome | str:
        """Return the outcome, or why there is none."""
        try:
            outcome = self.problem.evaluate(trial)
            return _wrong(outcome, len(self.study.directions)) or outcome
        except HybridsimError as error:
            return str(error)
        except Exception as error:
            log.exception("trial %d met a bug", trial.number)
            return repr(error)

    def _record(self, trial: Trial, outcome: Outcome | str) -> None:
        """Write a result down; one that another worker took over in the meantime is dropped."""
        try:
            told = through_outages(lambda: self._tell(trial, outcome))
        except UpdateFinishedTrialError:
            told = None
        if told is None:
            log.warning("trial %d was taken over by others; its result is dropped", trial.number)
        else:
            self._done(told)

    def _tell(self, trial: Trial, outcome: Outcome | str) -> FrozenTrial | None:
        if isinstance(outcome, str):
            return self._fail(trial, outcome)
        return self._complete(trial, outcome)

    def _fail(self, trial: Trial, reason: str) -> FrozenTrial | None:
        log.error("trial %d failed: %s", trial.number, reason)
        ended = end(self.study, self._frozen(trial), failure=reason)
        return self._frozen(trial) if ended else None

    def _complete(self, trial: Trial, outcome: Outcome) -> FrozenTrial | None:
        for name, bound in outcome.constraints.items():
            trial.set_constraint(name, bound)
        for name, note in outcome.notes.items():
            trial.set_user_attr(name, note)
        # Finished already: given up by others, or told before an outage hid the answer.
        try:
            told = self.study.tell(trial, list(outcome.values), skip_if_finished=True)
        except (RuntimeError, KeyError):
            # Optuna's grid wants to stop a loop of Optuna's own; the values are written even so.
            told = self._frozen(trial)
            if not told.state.is_finished():
                raise
        return told if told.state == TrialState.COMPLETE else None


def _wrong(outcome: Outcome, objectives: int) -> str | None:
    """Return what makes an outcome no result, None where it is one."""
    if len(outcome.values) != objectives:
        return f"gave {len(outcome.values)} values, but the study has {objectives} objectives"
    wrong = [str(v) for v in [*outcome.values, *outcome.constraints.values()] if math.isnan(v)]
    return "gave a value that is not a number" if wrong else None


def through_outages(call: Callable[[], Result]) -> Result:
    """Call again, after ever longer pauses, while a storage does not answer.

    Raises:
        Exception: as the call, where the pauses are used up, or it is no outage.
    """
    for pause_s in OUTAGE_PAUSES_S:
        try:
            return call()
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("the study's storage does not answer; next try in %g s", pause_s)
            time.sleep(pause_s)
    return call()


def is_outage(error: Exception) -> bool:
    """Whether a storage may work again later: a database or a proxy that does not answer."""
    home = type(error).__module__.partition(".")[0]
    return home == "grpc" or type(error).__name__ in ("StorageInternalError", "OperationalError")
