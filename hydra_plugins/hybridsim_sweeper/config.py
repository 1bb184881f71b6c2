"""The settings of `hydra/sweeper=hybridsim`, as Hydra composes them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from hybridsim.paths import CONF_DIR

OWN_SAMPLER = "pattern"  # of `hybridsim search`: it proposes placements, not overrides


@dataclass
class SweeperConf:
    """Settings, each an override `hydra.sweeper.KEY=VALUE`.

    Attributes:
        sampler: an option of the group hydra/sweeper/sampler.
        seed: of the sampler.
        direction: minimize or maximize the number that a job returns; a list for several.
        objectives: instead, direction by path into the JSON record that a job leaves, as in
            {workload.tpot_s: minimize}.
        constraints: `<= NUMBER` or `>= NUMBER` by path into that record.
        study_name: a study of that name goes on; None makes a new one in the sweep's folder.
        storage: see search/study.py; None is a journal file in the study's folder.
        n_trials: of the study, by all workers that ever join it.
        n_jobs: workers that the launcher starts.
        max_failure_rate: share of failed trials beyond which the exit code is 1.
        params: more sweep overrides by key, for a config file.
        heartbeat_s: between two signs of life of a running trial.
        grace_s: without one until its worker counts as lost.
        max_retries: of a trial that lost its worker.
    """

    _target_: str = "hydra_plugins.hybridsim_sweeper.HybridsimSweeper"
    defaults: list[Any] = field(default_factory=lambda: [{"sampler": "tpe"}])
    sampler: Any = MISSING
    seed: int | None = None
    direction: Any = "minimize"
    objectives: Any = None  # typed, OmegaConf takes no mapping in place of none
    constraints: Any = None
    study_name: str | None = None
    storage: str | None = None
    n_trials: int = 20
    n_jobs: int = 2
    max_failure_rate: float = 1.0
    params: Any = None
    heartbeat_s: float = 10.0
    grace_s: float = 90.0
    max_retries: int = 3


def register() -> None:
    """Make Hydra know the sweeper's settings, and the samplers of conf/sampler."""
    store = ConfigStore.instance()
    store.store(group="hydra/sweeper", name="hybridsim", node=SweeperConf, provider="hybridsim")
    for file in sorted((CONF_DIR / "sampler").glob("*.yaml")):
        if file.stem != OWN_SAMPLER:
            store.store(
                group="hydra/sweeper/sampler",
                name=file.stem,
                node=OmegaConf.load(file),
                provider="hybridsim",
            )
