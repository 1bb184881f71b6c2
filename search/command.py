"""hybridsim search: the Pareto frontier of ratio and placement for a workload."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded, write_new
from hybridsim.errors import bad_value
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

if TYPE_CHECKING:
    from search.run import Search

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="search", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> float:
    """Run the command; the number returned, for Hydra's sweepers, is the hypervolume."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields)
    switches = [config.take_switch(fields, key) for key in ("pictures", "baselines", "overwrite")]
    run = RunSettings(
        _count(fields, "trials"),
        _count(fields, "batch_size"),
        fields.pop("seed"),
        fields.pop("tolerance"),
        *switches,
    )
    output = fields.pop("output")
    from search.run import open_search

    search = open_search(spec, fields, run.seed, config.task_overrides())
    document = search.run(
        run.trials, run.batch_size, baselines=run.baselines, tolerance=run.tolerance
    )
    search.write(document, pictures=run.pictures)
    if output is not None:
        write_new(Path(output), search.recommended_spec(document), run.overwrite)
    _show(search, document, chosen)
    return float(document["hypervolume"])


@dataclass(frozen=True)
class RunSettings:
    """What a run of a study may differ in: nothing of it makes trials incomparable."""

    trials: int
    batch_size: int
    seed: int
    tolerance: float
    pictures: bool
    baselines: bool
    overwrite: bool

    def __post_init__(self) -> None:
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise bad_value("seed", self.seed, "must be an integer of at least 0")
        number = isinstance(self.tolerance, int | float) and not isinstance(self.tolerance, bool)
        if not number or self.tolerance < 0:
            raise bad_value("tolerance", self.tolerance, "must be a number of at least 0")


def _count(fields: dict[str, Any], key: str) -> int:
    value = fields.pop(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise bad_value(key, value, "must be an integer of at least 1")
    return value


def _show(search: Search, document: dict[str, Any], chosen: str) -> None:
    if chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(document))
    else:
        from hybridsim.report.tables import print_report
        from search.report import report

        print_report(report(document))
    log.info("written to %s; study=%s goes on", search.folder, search.name)


if __name__ == "__main__":
    main()
