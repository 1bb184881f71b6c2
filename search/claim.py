"""One worker a candidate: claims that any number of workers agree on, whatever the storage.

A trial writes its candidate's identity, then reads all trials. Of two with the same one at least
the later writer sees the other; the storage numbers trials, and the higher number gives way. Where
the lower number finds a higher one that has not decided, it waits for its decision. Waits go from
lower to higher numbers only, so that no two wait for each other, and only for trials of the same
candidate, or for the last places of a study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from optuna import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from search.liveness import CLAIMED, DUPLICATE, HISTORY, IDENTITY, LOST, SURPLUS, VOID, end

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.02, 0.25
GRANTED, WAIT = "granted", "wait"


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial stands for a candidate: claimed or finished, and not void."""
    if trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        return True
    return IDENTITY in trial.system_attrs and VOID not in trial.system_attrs


def finished(trials: Iterable[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that are over and count, one a candidate."""
    return [trial for trial in trials if counts(trial) and trial.state.is_finished()]


def claim(
    study: Study,
    trial: Trial,
    identity: str,
    budget: int,
    retire_lost: Callable[[Sequence[FrozenTrial]], None],
    shares_budget: Callable[[FrozenTrial], bool] = lambda trial: True,
) -> str | None:
    """Claim a candidate for a running trial.

    Args:
        study: of the trial.
        trial: with all its parameters.
        identity: of the candidate.
        budget: candidates of the whole study, or of what shares the budget.
        retire_lost: ends those of the trials that have no worker; called between waits.
        shares_budget: which trials are counted against it.

    Returns:
        None, or why the trial counts for nothing (it is then ended): "duplicate" or "surplus".
    """
    study._storage.set_trial_system_attr(trial._trial_id, IDENTITY, identity)
    for pause_s in _pauses():
        trials = study.get_trials(deepcopy=False)
        (mine,) = (t for t in trials if t.number == trial.number)
        verdict = _verdict(study, mine, trials, budget, shares_budget)
        if verdict != WAIT:
            break
        retire_lost(trials)
        time.sleep(pause_s)
    if verdict == GRANTED:
        study._storage.set_trial_system_attr(trial._trial_id, CLAIMED, True)
        return None
    end(study, mine, void=verdict)
    return verdict


def _pauses() -> Iterator[float]:
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _verdict(
    study: Study,
    mine: FrozenTrial,
    trials: Sequence[FrozenTrial],
    budget: int,
    shares_budget: Callable[[FrozenTrial], bool],
) -> str:
    """Return whether a trial may go on: granted, wait, duplicate or surplus."""
    others = [t for t in trials if t.number != mine.number and counts(t)]
    same = [t for t in others if _identity(t) == _identity(mine)]
    if HISTORY in mine.system_attrs:
        return _verdict_on_repetition(study, mine, same)
    if any(_goes_first(t, mine) for t in same):
        return DUPLICATE
    sharing = [t for t in others if shares_budget(t)]
    if sum(_goes_first(t, mine) for t in sharing) >= budget:
        return SURPLUS
    return WAIT if same or len(sharing) >= budget else GRANTED


def _identity(trial: FrozenTrial) -> str | None:
    identity: str | None = trial.system_attrs.get(IDENTITY)
    return identity


def _goes_first(other: FrozenTrial, mine: FrozenTrial) -> bool:
    """Whether another trial has its candidate already, or will have it where both want it."""
    has_it = other.state != TrialState.RUNNING or CLAIMED in other.system_attrs
    return has_it or other.number < mine.number


def _verdict_on_repetition(study: Study, mine: FrozenTrial, same: Sequence[FrozenTrial]) -> str:
    """Return whether a repetition goes on: not where its candidate is done, or another does it.

    A worker that was only slow may still finish the trial that is repeated; from here on it cannot.
    """
    rivals = []
    for other in same:
        slow = other.number in mine.system_attrs[HISTORY] and not other.state.is_finished()
        if not (slow and end(study, other, void=LOST)):
            rivals.append(other)
    taken = any(t.number < mine.number or t.state.is_finished() for t in rivals)
    return DUPLICATE if taken else GRANTED
