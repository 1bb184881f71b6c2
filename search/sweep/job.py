"""A worker of a sweep: one job of Hydra's launcher, which runs the jobs of many trials."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict
from optuna.trial import FrozenTrial, Trial

from hybridsim.commands.task import failure_of
from hybridsim.errors import HybridsimError
from search.liveness import FAILURE, Patience
from search.samplers import SamplerSettings, make_sampler, require_takes
from search.study import open_storage, open_study, shown_storage, storage_errors
from search.sweep.record import Wanted
from search.sweep.space import OverrideSpace
from search.worker import Outcome, Problem, TrialFailedError, Worker

FOLDER = "folder"  # of the job of a trial

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """All that the workers of a sweep have in common; it travels to their processes.

    Attributes:
        study: name.
        storage: see `search.study.open_storage`.
        folder: of the study.
        space: what varies.
        wanted: objectives and constraints.
        sampler: proposes trials.
        seed: of the first worker's sampler.
        budget: candidates of the whole study.
        patience: how lost workers are noticed.
    """

    study: str
    storage: str | None
    folder: Path
    space: OverrideSpace
    wanted: Wanted
    sampler: SamplerSettings
    seed: int | None
    budget: int
    patience: Patience

    @property
    def shown(self) -> str:
        """How messages call the storage."""
        return shown_storage(self.storage, self.folder)

    def join(self, worker: int = 0) -> Any:
        """Return the study, with the sampler of a worker.

        Raises:
            HybridsimError: the storage fails, or the sampler cannot be made.
        """
        seed = None if self.seed is None else self.seed + worker
        require_takes(self.sampler, len(self.wanted.directions))
        sampler = make_sampler(self.sampler, seed, distributions=self.space.distributions)
        storage = open_storage(self.storage, self.folder)
        return open_study(self.study, self.wanted.directions, sampler, storage, self.shown)


class SweepJobs(Problem):
    """The jobs of a sweep's trials, each with its own config, folder and log.

    Args:
        plan: of the sweep.
        task: the application's.
        context: Hydra's.
        config: of the multirun.
    """

    def __init__(
        self, plan: Plan, task: TaskFunction, context: HydraContext, config: DictConfig
    ) -> None:
        self.plan, self.task, self.context, self.config = plan, task, context, config

    def suggest(self, trial: Trial) -> str:
        return self.plan.space.suggest(trial)

    def unseen(self, known: set[str]) -> Mapping[str, Any] | None:
        return self.plan.space.unseen(known)

    def evaluate(self, trial: Trial) -> Outcome:
        overrides = self.plan.space.overrides(trial.params)
        log.info("trial %d: %s", trial.number, " ".join(overrides))
        done = self._run(trial.number, overrides)
        assert done.hydra_cfg is not None
        folder = Path(done.hydra_cfg.hydra.runtime.output_dir)
        trial.set_user_attr(FOLDER, str(folder))
        failure = failure_of(folder)
        if done.status == JobStatus.FAILED:
            failure = _one_line(done._return_value)
        if failure:
            raise TrialFailedError(failure)
        record = folder / f"{done.hydra_cfg.hydra.job.name}.json"
        return self.plan.wanted.outcome(done.return_value, record)

    def _run(self, number: int, overrides: Sequence[str]) -> JobReturn:
        """Run the job of a trial as a launcher would."""
        job = self.context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(job):
            job.hydra.job.id = job.hydra.job.num = number
        try:
            return run_job(
                hydra_context=self.context,
                task_function=self.task,
                config=job,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)


class SweepWorker:
    """What a launcher runs in place of the application's task.

    Args:
        jobs: of the sweep.
    """

    def __init__(self, jobs: SweepJobs) -> None:
        self.jobs = jobs

    def __call__(self, config: DictConfig) -> None:
        """Work on the study until it is over."""
        setup_globals()
        plan = self.jobs.plan
        study = plan.join(worker=int(HydraConfig.get().job.num))
        with storage_errors(plan.shown):
            Worker(study, self.jobs, plan.budget, plan.patience, _report).run()


def _report(trial: FrozenTrial) -> None:
    if FAILURE not in trial.user_attrs:
        log.info("trial %d: %s", trial.number, ", ".join(f"{v:g}" for v in trial.values))


def _one_line(error: object) -> str:
    if isinstance(error, HybridsimError):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
