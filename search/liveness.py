"""Which running trials still have a worker, and a second chance for those that lost theirs.

Works on every storage, also on those for which Optuna has no heartbeat (journal file, gRPC proxy):
a worker counts up a number on its trial, and the others notice by their own clocks that a number
stands still. No clock is compared with another machine's.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType

from optuna import Study
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from hybridsim.errors import HybridsimError

BEAT = "hybridsim:beat"  # counted up by a trial's worker
HISTORY = "hybridsim:retry_of"  # numbers of the trials that this one repeats, the first one first
VOID = "hybridsim:void"  # why a trial counts for nothing
IDENTITY = "hybridsim:identity"  # of what a trial evaluates: the same for no two that count
CLAIMED = "hybridsim:claimed"  # the candidate is this trial's: it is being evaluated
FAILURE = "failure"  # why a trial that counts has no values
LOST, DUPLICATE, SURPLUS, INTERRUPTED = "lost", "duplicate", "surplus", "interrupted"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How fast a lost worker is noticed.

    Attributes:
        heartbeat_s: between two signs of life of a running trial.
        grace_s: without one until a trial counts as lost.
        max_retries: of a trial that lost its worker; then it is a failure that counts.
    """

    heartbeat_s: float = 10.0
    grace_s: float = 90.0
    max_retries: int = 3

    def __post_init__(self) -> None:
        if not 0 < 2 * self.heartbeat_s <= self.grace_s:
            raise HybridsimError(
                f"grace_s={self.grace_s:g}: must be at least twice heartbeat_s={self.heartbeat_s:g}"
            )
        if self.max_retries < 0:
            raise HybridsimError(f"max_retries={self.max_retries}: must be at least 0")


class Heart(AbstractContextManager["Heart"]):
    """Beats for running trials, in a thread, until the block ends.

    A beat that the storage does not take is tried again at the next one: an outage shorter than the
    grace costs nothing.

    Args:
        study: of the trials.
        trials: running, by this process.
        heartbeat_s: between beats.
    """

    def __init__(self, study: Study, trials: Sequence[Trial], heartbeat_s: float) -> None:
        self._study, self._heartbeat_s = study, heartbeat_s
        self._trial_ids = [trial._trial_id for trial in trials]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heart:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(self._heartbeat_s):
            count += 1
            for trial_id in self._trial_ids:
                try:
                    self._study._storage.set_trial_system_attr(trial_id, BEAT, count)
                except (UpdateFinishedTrialError, KeyError):
                    continue  # told, or taken over by another worker
                except Exception as error:
                    log.warning("no sign of life could be given: %s", error)


class Watch:
    """Notices running trials whose workers give no sign of life.

    Args:
        grace_s: how long a beat may stand still.
        now: a clock that never goes back.
    """

    def __init__(self, grace_s: float, now: Callable[[], float] = time.monotonic) -> None:
        self._grace_s, self._now = grace_s, now
        self._seen: dict[int, tuple[object, float]] = {}  # trial -> last beat, when first seen

    def lost(self, trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
        """Return the running trials whose beat has stood still for the grace.

        Args:
            trials: of the study, as just read.
        """
        now = self._now()
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        previous, self._seen = self._seen, {}
        for trial in running:
            beat = trial.system_attrs.get(BEAT)
            last = previous.get(trial.number)
            self._seen[trial.number] = last if last and last[0] == beat else (beat, now)
        return [t for t in running if now - self._seen[t.number][1] >= self._grace_s]


def retire(
    study: Study, trial: FrozenTrial, trials: Sequence[FrozenTrial], max_retries: int
) -> None:
    """End a trial that lost its worker, and queue it again where it was worth it.

    The order makes it safe to be killed at any point: whoever comes next finds the repetition and
    only ends the trial. Of two repetitions made at once, the later one gives way at its claim.

    Args:
        study: of the trial.
        trial: running, without a worker.
        trials: of the study.
        max_retries: repetitions of one trial at most.
    """
    history = [*trial.system_attrs.get(HISTORY, []), trial.number]
    claimed = CLAIMED in trial.system_attrs and VOID not in trial.system_attrs
    if claimed and len(history) > max_retries:
        end(study, trial, failure=f"lost its worker {len(history)} times")
        return
    if claimed and not any(t.system_attrs.get(HISTORY) == history for t in trials):
        study.add_trial(_again(trial, history))
        log.warning("trial %d lost its worker and is queued again", trial.number)
    end(study, trial, void=trial.system_attrs.get(VOID, LOST))


def _again(trial: FrozenTrial, history: list[int]) -> FrozenTrial:
    kept = {k: v for k, v in trial.system_attrs.items() if k not in (BEAT, VOID)}
    return create_trial(
        state=TrialState.WAITING,
        params=trial.params,
        distributions=trial.distributions,
        user_attrs=trial.user_attrs,
        system_attrs=kept | {HISTORY: history},
    )


def end(study: Study, trial: FrozenTrial, *, void: str = "", failure: str = "") -> bool:
    """End a trial without values.

    Args:
        study: of the trial.
        trial: running.
        void: why it counts for nothing, or
        failure: why it counts as failed.

    Returns:
        Whether this call ended it: another worker may have been faster.
    """
    storage, trial_id = study._storage, trial._trial_id
    try:
        if void:
            storage.set_trial_system_attr(trial_id, VOID, void)
        else:
            storage.set_trial_user_attr(trial_id, FAILURE, failure)
        return storage.set_trial_state_values(trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return False
