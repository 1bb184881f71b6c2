"""Hydra's plugin `hydra/sweeper=hybridsim`: Optuna behind `-m` of any Hydra application.

Hydra imports every plugin at every start, so the plugin imports what it needs when it sweeps.
"""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from hydra_plugins.hybridsim_sweeper import config

config.register()


class HybridsimSweeper(Sweeper):
    """Sweeps with Optuna; the settings are those of `SweeperConf`."""

    def __init__(self, **settings: Any) -> None:
        self._settings: dict[str, Any] = {
            key: OmegaConf.to_container(value, resolve=True)
            if OmegaConf.is_config(value)
            else value
            for key, value in settings.items()
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what Hydra gives; the sweep starts with `sweep`."""
        from search.sweep.sweeper import Settings, Sweep

        self._sweep = Sweep(Settings(**self._settings), task_function, hydra_context, config)

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep over the arguments of the command line."""
        self._sweep.run(arguments)
