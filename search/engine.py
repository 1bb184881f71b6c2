"""The loop of a study: ask, evaluate together, tell, promote. No torch here."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from optuna.trial import FrozenTrial, TrialState

from search.candidate import Candidate
from search.claim import claim, counts
from search.designs import ladder, periodic
from search.evaluate import Evaluated, Evaluator
from search.fidelity import survivors, unpromoted_front
from search.liveness import INTERRUPTED, Heart, Patience, Watch, end, retire
from search.records import BASELINE, FIDELITY, KEY, PROMOTED_FROM, RECORD, Log, Tried, record_of

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

Told = Callable[[list[Tried]], None]
REFUSED_PAUSE_S = 0.2
BASELINES = {"ladder": ladder, "periodic": periodic}


class Engine:
    """Runs a study, alone or as one of its workers.

    Args:
        study: open, with a sampler.
        evaluator: of candidates.
        batch_size: candidates that are asked for, and trained, together.
        told: called with all finished trials whenever some are new.
        patience: how other workers that were lost are noticed; their trials are repeated.
    """

    def __init__(
        self,
        study: Study,
        evaluator: Evaluator,
        *,
        batch_size: int = 1,
        told: Told | None = None,
        patience: Patience | None = None,
    ) -> None:
        self.patience = patience or Patience()
        self._watch = Watch(self.patience.grace_s)
        self.study, self.evaluator, self.batch_size = study, evaluator, batch_size
        self.space = evaluator.space
        self.signs = {o.name: o.sign for o in evaluator.objectives}
        self._log = Log()
        self._wanted = sys.maxsize  # proposals of the study in all, by all workers
        self._told = told or (lambda found: None)

    def run(self, num_trials: int, *, baselines: bool = True) -> list[Tried]:
        """Go on until the study has that many proposals; return all its finished trials.

        Then what the front lacks of the longest training, then ladder and periodic patterns, where
        they were not tried: what the gain over them is told from.
        """
        self._wanted = min(num_trials, self.space.size)
        while self._num_proposed() < self._wanted:
            count = self._num_open() + self._num_waiting()
            if count > 0:
                self._step(min(self.batch_size, count))
                self._promote_survivors()
            else:  # other workers have the last places; one that is lost leaves its place
                self._retire_lost(self.study.get_trials(deepcopy=False))
                time.sleep(REFUSED_PAUSE_S)
        self._finish_waiting()
        self._train_front_longest()
        if baselines:
            self._try_baselines()
        return self.finished()

    def finished(self) -> list[Tried]:
        """Return all finished trials of the study."""
        return self._log.tried(self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))

    def _num_proposed(self) -> int:
        return sum(one.fidelity == 0 and not one.baseline for one in self.finished())

    def _num_open(self) -> int:
        """Return how many proposals no worker has begun."""
        trials = self.study.get_trials(deepcopy=False)
        return max(0, self._wanted - sum(counts(t) and _is_proposal(t) for t in trials))

    def _num_waiting(self) -> int:
        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def _step(self, count: int) -> None:
        """Evaluate so many trials together; those that others wait for come first."""
        self._retire_lost(self.study.get_trials(deepcopy=False))
        asked: list[tuple[Trial, Candidate]] = []
        try:
            for _ in range(count):
                trial = self.study.ask()
                asked.append((trial, self.space.suggest(trial)))
            with Heart(self.study, [trial for trial, _ in asked], self.patience.heartbeat_s):
                self._evaluate(asked)
        except BaseException:
            for trial, _ in asked:
                self._give_back(trial)
            raise
        self._told(self.finished())

    def _retire_lost(self, trials: Sequence[FrozenTrial]) -> None:
        """Queue again what other workers left behind."""
        for trial in self._watch.lost(trials):
            retire(self.study, trial, trials, self.patience.max_retries)

    def _claims(self, trial: Trial, identity: str) -> bool:
        """Whether the trial may be finished; it is void where not.

        Not where another worker evaluates the same, nor where others have the last places among
        the study's proposals.
        """
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        budget = self._wanted if _is_proposal(frozen) else sys.maxsize
        refused = claim(self.study, trial, identity, budget, self._retire_lost, _is_proposal)
        return refused is None

    def _evaluate(self, asked: Sequence[tuple[Trial, Candidate]]) -> None:
        known = {(one.candidate, one.fidelity): one for one in self.finished()}
        groups: dict[int, dict[Candidate, list[Trial]]] = {}
        for trial, candidate in asked:
            fidelity = int(trial.user_attrs.get(FIDELITY, 0))
            group = groups.setdefault(fidelity, {})
            found = known.get((candidate, fidelity))
            repeated = found is not None or candidate in group
            # What a sampler repeats costs nothing, but takes a place of its own.
            identity = f"{candidate.key} {fidelity}" + (f" {trial.number}" if repeated else "")
            if not self._claims(trial, identity):
                if not repeated:
                    time.sleep(REFUSED_PAUSE_S)  # another worker is at it, and the sampler sees it
            elif found is not None:
                self._tell(trial, candidate, Evaluated(found.values, found.scores), 0.0)
            else:
                group.setdefault(candidate, []).append(trial)
        groups = {fidelity: group for fidelity, group in groups.items() if group}
        for fidelity, group in groups.items():
            start = time.perf_counter()
            results = self.evaluator.evaluate(list(group), fidelity)
            share_s = (time.perf_counter() - start) / len(group)
            for (candidate, trials), result in zip(group.items(), results, strict=True):
                for index, trial in enumerate(trials):
                    self._tell(trial, candidate, result, 0.0 if index else share_s)

    def _tell(self, trial: Trial, candidate: Candidate, found: Evaluated, wall_s: float) -> None:
        if KEY not in trial.user_attrs:
            trial.set_user_attr(KEY, candidate.key)
        trial.set_user_attr(RECORD, record_of(found, wall_s))
        self.study.tell(trial, [found.values[name].value for name in self.signs])

    def _give_back(self, trial: Trial) -> None:
        """Let a trial that was cut short be tried again."""
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        if frozen.state != TrialState.RUNNING:
            return
        end(self.study, frozen, void=INTERRUPTED)
        if set(self.space.distributions()) <= set(frozen.params):
            self.study.enqueue_trial(frozen.params, user_attrs=frozen.user_attrs)

    def _enqueue(self, candidate: Candidate, fidelity: int, **attrs: object) -> bool:
        """Leave a trial for whoever asks next; False where there is one."""
        if (candidate.key, fidelity) in self._queued():
            return False
        given = {KEY: candidate.key, FIDELITY: fidelity, **attrs}
        self.study.enqueue_trial(self.space.encoding.encode(candidate), user_attrs=given)
        return True

    def _queued(self) -> set[tuple[str, int]]:
        trials = self.study.get_trials(deepcopy=False)
        return {_identity(t) for t in trials if t.state != TrialState.FAIL and KEY in t.user_attrs}

    def _promote(self, chosen: Sequence[Tried]) -> int:
        return sum(self._enqueue(one.candidate, one.fidelity + 1, **_origin(one)) for one in chosen)

    def _promote_survivors(self) -> None:
        found = [one for one in self.finished() if not one.baseline]
        for fidelity in range(self.evaluator.num_fidelities - 1):
            self._promote(survivors(found, self.signs, fidelity))

    def _train_front_longest(self) -> None:
        """Promote what is on the front until all of it was trained the longest."""
        last = self.evaluator.num_fidelities - 1
        while self._promote(unpromoted_front(self._own(), self.signs, last)):
            self._finish_waiting()

    def _own(self) -> list[Tried]:
        return [one for one in self.finished() if not one.baseline]

    def _finish_waiting(self) -> None:
        while (waiting := self._num_waiting()) > 0:
            self._step(min(self.batch_size, waiting))

    def _try_baselines(self) -> None:
        """Train each plain family as the search would: all briefly, its front the longest."""
        last = self.evaluator.num_fidelities - 1
        budget = self._num_proposed()
        for name, family in BASELINES.items():
            candidates = family(self.space)[:budget]
            for candidate in candidates:
                self._enqueue(candidate, 0, **{BASELINE: name})
            self._finish_waiting()
            chosen = set(candidates)
            while True:
                own = [one for one in self.finished() if one.candidate in chosen]
                if not self._promote(unpromoted_front(own, self.signs, last)):
                    break
                self._finish_waiting()


def _is_proposal(trial: FrozenTrial) -> bool:
    """Whether a trial is, or may become, one of the study's proposals: no longer training of one,
    no plain pattern, and not failed."""
    given = trial.user_attrs
    first = given.get(FIDELITY, 0) == 0 and not given.get(BASELINE)
    return first and trial.state != TrialState.FAIL


def _identity(trial: FrozenTrial) -> tuple[str, int]:
    return trial.user_attrs[KEY], trial.user_attrs.get(FIDELITY, 0)


def _origin(one: Tried) -> dict[str, object]:
    origin: dict[str, object] = {PROMOTED_FROM: one.number}
    return {**origin, BASELINE: one.baseline} if one.baseline else origin
