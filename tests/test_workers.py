"""Many workers on one study: killed at random moments, none lost, none counted twice."""

from __future__ import annotations

import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from optuna import Study
from optuna.trial import TrialState
from postgres import server
from study_worker import CANDIDATES, QUICK, Grid, close, join, proxy, start

from search.liveness import CLAIMED, HISTORY, IDENTITY, VOID
from search.worker import Worker

NUM_WORKERS = 8
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
        with proxy(url, tmp_path, port) as address:
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
