"""Many workers on one study: killed at random moments, none lost, none counted twice."""

from __future__ import annotations

import random
import re
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from optuna import Study, Trial
from optuna.exceptions import StorageInternalError
from optuna.trial import TrialState
from postgres import server
from study_worker import CANDIDATES, QUICK, Grid, close, join, proxy, start

from hybridsim.errors import HybridsimError
from search.claim import claim
from search.liveness import CLAIMED, FAILURE, HISTORY, IDENTITY, VOID, Patience, Watch, retire
from search.storage_proxy import parse_options
from search.study import open_storage
from search.worker import Worker, through_outages

NUM_WORKERS = 8
HASTY = Patience(heartbeat_s=0.05, grace_s=0.3, max_retries=1)
WORK_S = 0.05
KILL_EVERY, LAST_KILL, LEAST_KILLS = 12, 190, 8
STUDY_S = 240.0


def front(study: Study) -> set[tuple[float, ...]]:
    return {tuple(trial.values) for trial in study.best_trials}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """The study as one worker makes it."""
    study = join(None, tmp_path_factory.mktemp("alone"))
    Worker(study, Grid(), CANDIDATES, QUICK).run()
    return study


@pytest.fixture(params=["postgresql", "grpc", "journal"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str | None]:
    if request.param == "journal":
        yield None
        return
    with server() as url:
        if request.param == "postgresql":
            yield url
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with proxy(url, port) as address:
            yield address


def run_and_kill(storage: str | None, folder: Path) -> int:
    """Keep eight workers on a study, kill one after the other; return how many were killed."""
    args = (storage, folder, WORK_S, CANDIDATES)
    workers = [start(*args) for _ in range(NUM_WORKERS)]
    try:
        kills = _kill_some(workers, args)
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.exitcode for worker in workers] == [0] * NUM_WORKERS
    return kills


def _kill_some(workers: list[BaseProcess], args: tuple[Any, ...]) -> int:
    """Kill a worker, at some moment, whenever so many trials more are done."""
    drawn, kills = random.Random(0), 0
    study = join(*args[:2])
    deadline = time.monotonic() + STUDY_S
    while any(worker.is_alive() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(drawn.uniform(0.1, 0.3))
        index = drawn.randrange(NUM_WORKERS)
        done = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        if done >= KILL_EVERY * (kills + 1) and workers[index].is_alive() and done < LAST_KILL:
            workers[index].kill()
            workers[index].join()
            workers[index] = start(*args)
            kills += 1
    close(study)
    return kills


def test_killed_workers_lose_nothing(
    storage: str | None, tmp_path: Path, alone: Study, request: pytest.FixtureRequest
) -> None:
    kills = run_and_kill(storage, tmp_path)
    assert kills >= LEAST_KILLS
    study = join(storage, tmp_path)
    request.addfinalizer(lambda: close(study))
    done = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    assert len(done) == CANDIDATES == 200
    assert len({trial.system_attrs[IDENTITY] for trial in done}) == CANDIDATES
    # Only a trial that had no candidate yet may be left behind.
    assert all(t.state.is_finished() or CLAIMED not in t.system_attrs for t in study.trials)
    assert front(study) == front(alone)
    reasons = Counter(t.system_attrs[VOID] for t in study.trials if VOID in t.system_attrs)
    assert reasons["lost"] > 0, "no kill hit a running trial: the test shows nothing"
    assert any(HISTORY in t.system_attrs for t in done)
    print(storage, kills, reasons, len(study.trials))


def claimed(study: Study, cell: int) -> Trial:
    """Return a trial that evaluates a cell, of a worker that will never say anything."""
    study.enqueue_trial({"cell": cell})
    trial = study.ask()
    assert claim(study, trial, Grid().suggest(trial), CANDIDATES, lambda trials: None) is None
    return trial


def test_a_lost_trial_is_repeated_and_the_late_result_of_a_slow_worker_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study = join(None, tmp_path)
    slow, worker = claimed(study, 7), Worker(study, Grid(), CANDIDATES, HASTY)
    worker.run()
    (again,) = (t for t in study.trials if t.system_attrs.get(HISTORY) == [slow.number])
    assert again.state == TrialState.COMPLETE
    assert again.params == {"cell": 7}
    worker._record(slow, Grid().evaluate(slow))
    assert "its result is dropped" in caplog.text
    done = [t.params["cell"] for t in study.trials if t.state == TrialState.COMPLETE]
    assert sorted(done) == list(range(CANDIDATES))


def test_a_trial_that_loses_every_worker_fails_and_counts(tmp_path: Path) -> None:
    study = join(None, tmp_path)
    claimed(study, 7)
    watch = Watch(HASTY.grace_s)
    watch.lost(study.trials)
    time.sleep(HASTY.grace_s)
    (lost,) = watch.lost(study.trials)
    retire(study, lost, study.trials, HASTY.max_retries)
    retire(study, lost, study.trials, HASTY.max_retries)  # another worker, a moment later
    again = study.ask()
    assert claim(study, again, Grid().suggest(again), CANDIDATES, lambda trials: None) is None
    assert study.trials[-1].number == again.number  # repeated once, though retired twice
    Worker(study, Grid(), CANDIDATES, HASTY).run()
    (poison,) = (t for t in study.trials if FAILURE in t.user_attrs)
    assert poison.user_attrs[FAILURE] == "lost its worker 2 times"
    assert poison.params == {"cell": 7}
    assert sum(t.state == TrialState.COMPLETE for t in study.trials) == CANDIDATES - 1


def test_a_beating_trial_is_not_lost_however_long_it_takes(tmp_path: Path) -> None:
    study = join(None, tmp_path)
    others = join(None, tmp_path)
    with ThreadPoolExecutor() as pool:
        slow = Worker(study, Grid(work_s=4 * HASTY.grace_s), 1, HASTY)
        running = pool.submit(slow.run)
        Worker(others, Grid(), 1, HASTY).run()
        running.result()
    done = [t for t in others.trials if t.state == TrialState.COMPLETE]
    assert len(done) == 1
    assert not any(t.system_attrs.get(VOID) == "lost" for t in others.trials)


def test_candidates_that_cannot_be_evaluated_are_failed_trials(tmp_path: Path) -> None:
    study = join(None, tmp_path)
    told = []
    Worker(study, Grid(broken=frozenset({3, 8})), CANDIDATES, HASTY, told.append).run()
    failed = {t.params["cell"]: t.user_attrs[FAILURE] for t in told if FAILURE in t.user_attrs}
    assert failed == {3: "cell 3 is broken", 8: "cell 8 is broken"}
    assert len(told) == CANDIDATES
    assert next(t for t in told if t.params["cell"] == 199).constraints == {"y": 4.0}


def test_claims_of_threads_at_once_are_granted_once(tmp_path: Path) -> None:
    """Sixteen workers that all want the same candidate: one has it."""
    for cell in range(5):

        def want(_: int, cell: int = cell) -> str | None:
            study = join(None, tmp_path)
            trial = study.ask()
            trial.suggest_int("cell", cell, cell)
            return claim(study, trial, str(cell), CANDIDATES, lambda trials: None)

        with ThreadPoolExecutor(16) as pool:
            answers = Counter(pool.map(want, range(16)))
        assert answers == {None: 1, "duplicate": 15}


def test_an_outage_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    answers = iter([StorageInternalError, StorageInternalError, None])

    def call() -> str:
        error = next(answers)
        if error:
            raise error
        return "done"

    assert through_outages(call) == "done"
    assert pauses == [1.0, 2.0]
    with pytest.raises(ValueError, match="no outage"):
        through_outages(lambda: int("no outage"))


def test_the_proxys_options_are_checked() -> None:
    for wrong in (["storage=./study.journal"], ["storage=sqlite:///x", "port=a"], ["prt=1"]):
        with pytest.raises(HybridsimError, match=wrong[-1].partition("=")[0]):
            parse_options(wrong)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("grpc://localhost", "must be grpc://HOST:PORT"),
        ("grpc://127.0.0.1:1", "GRPC connection timeout"),
        ("postgresql://me:secret@127.0.0.1:1/none", "me:***@"),
        ("nonsense://x", "Can't load plugin"),
    ],
)
def test_a_storage_that_is_not_there_is_one_line(
    address: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("search.study.REACHED_S", 0.2)
    with pytest.raises(HybridsimError, match=re.escape(message)) as caught:
        open_storage(address, tmp_path)
    assert "secret" not in str(caught.value)
