"""Workers in processes of their own, and a problem whose front is known, for tests of studies."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

import optuna
import optuna.storages._grpc.servicer
import psycopg  # noqa: F401
from optuna import Study, Trial
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from search.liveness import Patience
from search.storage_proxy import serve
from search.study import open_storage, open_study
from search.worker import Outcome, Problem, TrialFailedError, Worker

WIDTH, HEIGHT = 20, 10
CANDIDATES = WIDTH * HEIGHT
QUICK = Patience(heartbeat_s=0.5, grace_s=3.0, max_retries=20)
DIRECTIONS = ["minimize", "minimize"]

# What a database needs is imported here, once, and not in each worker.
optuna.storages.RDBStorage("sqlite:///:memory:")


class Grid(Problem):
    """The cells of a grid, two objectives that disagree; some work in each evaluation."""

    def __init__(self, work_s: float = 0.0, broken: frozenset[int] = frozenset()) -> None:
        self.work_s, self.broken = work_s, broken

    def suggest(self, trial: Trial) -> str:
        return str(trial.suggest_int("cell", 0, CANDIDATES - 1))

    def evaluate(self, trial: Trial) -> Outcome:
        time.sleep(self.work_s)
        cell = trial.params["cell"]
        if cell in self.broken:
            raise TrialFailedError(f"cell {cell} is broken")
        y, x = divmod(cell, WIDTH)
        return Outcome([float(x + y % 3), float((WIDTH - x) ** 2 + y)], {"y": y - 5.0})

    def unseen(self, known: set[str]) -> Mapping[str, Any] | None:
        left = [cell for cell in range(CANDIDATES) if str(cell) not in known]
        return {"cell": random.choice(left)} if left else None


class InOrder(BaseSampler):
    """Proposes one cell after the other, and starts anew after the last one."""

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return trial.number % CANDIDATES


def close(study: Study) -> None:
    """Close a database's connections."""
    backend = getattr(study._storage, "_backend", None)
    if isinstance(backend, optuna.storages.RDBStorage):
        backend.remove_session()
        backend.engine.dispose()


def join(storage: str | None, folder: Path, seed: int | None = None) -> Study:
    """Return the tests' study in a storage."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # A database takes its time: there few proposals are wasted, on a file many are.
    sampler = RandomSampler(seed) if storage is None else InOrder()
    return open_study("grid", DIRECTIONS, sampler, open_storage(storage, folder))


def work(storage: str | None, folder: Path, work_s: float, budget: int) -> None:
    """Work on the study until it is over."""
    study = join(storage, folder)
    Worker(study, Grid(work_s), budget, QUICK).run()
    close(study)


def _processes() -> Any:
    """Return what forks processes off one that has imported everything and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    return context


def start(*args: Any) -> BaseProcess:
    """Start `work` with these arguments in a process."""
    process: BaseProcess = _processes().Process(target=work, args=args)
    process.start()
    return process


@contextmanager
def proxy(storage: str, port: int) -> Iterator[str]:
    """Run a storage proxy in a process; its address is given."""
    process: BaseProcess = _processes().Process(target=serve, args=(storage, "127.0.0.1", port))
    process.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.join()
