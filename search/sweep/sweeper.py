"""The sweep as a whole: a study by name, workers through any launcher, results at the end."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hybridsim.commands.task import FAILED_JOBS
from hybridsim.errors import HybridsimError
from search.claim import finished
from search.liveness import FAILURE, Patience
from search.samplers import parse_sampler
from search.study import storage_errors, study_folder
from search.sweep.job import Plan, SweepJobs, SweepWorker
from search.sweep.record import parse_wanted
from search.sweep.space import parse_space

if TYPE_CHECKING:
    from optuna import Study

FIXED = "hybridsim:fixed"  # overrides that all jobs of a study have
BASIC = "BasicLauncher"  # runs one job after the other, so that one worker is all it takes
WORKERS_FOLDER = "hydra.sweep.subdir=workers/${hydra.job.num}"
RESULTS = "optimization_results.yaml"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """The settings of `hydra.sweeper`, see hydra_plugins/hybridsim_sweeper/config.py."""

    sampler: Mapping[str, Any]
    seed: int | None = None
    direction: Any = "minimize"
    objectives: Mapping[str, str] | None = None
    constraints: Mapping[str, Any] | None = None
    study_name: str | None = None
    storage: str | None = None
    n_trials: int = 20
    n_jobs: int = 2
    max_failure_rate: float = 1.0
    params: Mapping[str, Any] | None = None
    heartbeat_s: float = Patience.heartbeat_s
    grace_s: float = Patience.grace_s
    max_retries: int = Patience.max_retries

    def __post_init__(self) -> None:
        for key in ("objectives", "constraints", "params"):
            given = getattr(self, key)
            if given is not None and not isinstance(given, Mapping):
                raise HybridsimError(
                    f"hydra.sweeper.{key}={given}: must be a mapping, {{PATH: ...}}"
                )
        for key in ("n_trials", "n_jobs"):
            if getattr(self, key) < 1:
                raise HybridsimError(
                    f"hydra.sweeper.{key}={getattr(self, key)}: must be at least 1"
                )
        if not 0 <= self.max_failure_rate <= 1:
            raise HybridsimError(
                f"hydra.sweeper.max_failure_rate={self.max_failure_rate}: must be from 0 to 1"
            )


class Sweep:
    """One multirun as a study of Optuna.

    Args:
        settings: of the sweeper.
        task: the application's.
        context: Hydra's.
        config: of the multirun.
    """

    def __init__(
        self, settings: Settings, task: TaskFunction, context: HydraContext, config: DictConfig
    ) -> None:
        self.settings, self.task, self.context, self.config = settings, task, context, config
        self.folder = Path(str(config.hydra.sweep.dir))

    def run(self, arguments: Sequence[str]) -> None:
        """Sweep over what the arguments vary.

        Raises:
            HybridsimError: wrong arguments, a storage that fails, or too many failed trials.
        """
        plan = self._plan(arguments)
        study = plan.join()
        with storage_errors(plan.shown):
            _require_same(study, plan)
            self.folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(self.config, self.folder / "multirun.yaml")
            self._launch(study, plan)
            self._finish(study, plan)

    def _plan(self, arguments: Sequence[str]) -> Plan:
        settings = self.settings
        given = [f"{key}={value}" for key, value in (settings.params or {}).items()]
        parser = OverridesParser.create(config_loader=self.context.config_loader)
        name = settings.study_name
        return Plan(
            study=name or f"sweep-{datetime.now(UTC):%Y-%m-%d_%H-%M-%S-%f}",
            storage=settings.storage,
            # Workers may start in other folders.
            folder=(self.folder if name is None else study_folder(name)).absolute(),
            space=parse_space(parser.parse_overrides([*given, *arguments])),
            wanted=parse_wanted(settings.direction, settings.objectives, settings.constraints),
            sampler=parse_sampler(settings.sampler),
            seed=settings.seed,
            budget=settings.n_trials,
            patience=Patience(settings.heartbeat_s, settings.grace_s, settings.max_retries),
        )

    def _launch(self, study: Study, plan: Plan) -> None:
        """Start workers; again where they died and left something to do, as long as they get on."""
        jobs = SweepJobs(plan, self.task, self.context, self.config)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=SweepWorker(jobs), config=self.config
        )
        basic = str(self.config.hydra.launcher._target_).endswith(BASIC)
        workers = 1 if basic else self.settings.n_jobs
        overrides = [[*plan.space.fixed, WORKERS_FOLDER] for _ in range(workers)]
        starts_in_vain = 0
        while (done := _num_finished(study)) < plan.budget:
            try:
                for returned in launcher.launch(overrides, initial_job_idx=0):
                    _ = returned.return_value  # raises what ended the worker
                return
            except HybridsimError:
                raise
            except Exception as error:  # each launcher has its own for a process that died
                starts_in_vain = starts_in_vain + 1 if _num_finished(study) == done else 0
                if starts_in_vain > plan.patience.max_retries:
                    raise HybridsimError(f"the workers end without a result: {error!r}") from error
                log.warning("workers ended (%s); starting others", type(error).__name__)

    def _finish(self, study: Study, plan: Plan) -> None:
        """Write what was found; HybridsimError where too much failed."""
        FAILED_JOBS.clear()  # they are trials of the study; whether they are too many is said here
        over = finished(study.get_trials(deepcopy=False))
        failed = [trial for trial in over if FAILURE in trial.user_attrs]
        results = _results(study, plan)
        OmegaConf.save(OmegaConf.create(results), self.folder / RESULTS)
        from hybridsim.report.files import write_table

        write_table(self.folder, "trials", [_row(trial, plan) for trial in over])
        log.info(
            "study %s in %s: %d trials, %d failed",
            study.study_name,
            plan.shown,
            len(over),
            len(failed),
        )
        best = results.get("best_params") or results.get("solutions")
        log.info("best: %s", best or "no trial holds all constraints")
        share = len(failed) / len(over) if over else 0.0
        if share > self.settings.max_failure_rate or len(failed) == len(over):
            last = failed[-1].user_attrs[FAILURE] if failed else "nothing was run"
            raise HybridsimError(
                f"hydra.sweeper.max_failure_rate={self.settings.max_failure_rate:g}:"
                f" {len(failed)} of {len(over)} trials failed, the last one with: {last}"
            )


def _num_finished(study: Study) -> int:
    return len(finished(study.get_trials(deepcopy=False)))


def _require_same(study: Study, plan: Plan) -> None:
    """Raise HybridsimError where a study of that name was made with other fixed overrides."""
    fixed = study.user_attrs.get(FIXED)
    if fixed is None:
        study.set_user_attr(FIXED, plan.space.fixed)
    elif fixed != plan.space.fixed:
        raise HybridsimError(
            f"hydra.sweeper.study_name={plan.study}: its jobs have {' '.join(fixed) or 'no'}"
            f" fixed overrides, not {' '.join(plan.space.fixed) or 'none'}; choose another name"
        )


def _results(study: Study, plan: Plan) -> dict[str, Any]:
    """Return the best trials as hydra-optuna-sweeper writes them."""
    best = study.best_trials if _any_complete(study) else []
    if len(plan.wanted.directions) == 1 and best:
        params, value = dict(best[0].params), best[0].values[0]
        return {"name": "optuna", "best_params": params, "best_value": value}
    solutions = [{"params": dict(t.params), "values": list(t.values)} for t in best]
    return {"name": "optuna", "solutions": solutions}


def _any_complete(study: Study) -> bool:
    from optuna.trial import TrialState

    return bool(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _row(trial: Any, plan: Plan) -> dict[str, Any]:
    names = plan.wanted.paths or tuple(
        "value" if len(plan.wanted.directions) == 1 else f"value_{index}"
        for index in range(len(plan.wanted.directions))
    )
    values = trial.values or [None] * len(names)
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        **trial.params,
        **dict(zip(names, values, strict=True)),
        **{f"excess {name}": value for name, value in trial.constraints.items()},
        "failure": trial.user_attrs.get(FAILURE, ""),
        "folder": trial.user_attrs.get("folder", ""),
    }
