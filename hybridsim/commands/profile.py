"""hybridsim profile: the costs of a spec on a device and for a workload."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from hybridsim import config
from hybridsim.commands.task import guarded
from hybridsim.paths import CONF_DIR
from hybridsim.spec import source

if TYPE_CHECKING:
    from hybridsim.profiler.profile import Profile

log = logging.getLogger(__name__)
source.register()


@hydra.main(config_path=str(CONF_DIR), config_name="profile", version_base="1.3")
@guarded
def main(cfg: DictConfig) -> float:
    """Run the command; the number returned, for Hydra's sweepers, is the TPOT in s."""
    fields = config.plain(cfg)
    spec, chosen = config.take_spec(fields), config.take_format(fields)
    pictures, measure = (config.take_switch(fields, key) for key in ("pictures", "measure"))
    hardware, workload = fields.pop("hardware"), fields.pop("workload")
    from hybridsim.profiler.profile import profile_spec

    with _progress(f"profiling {spec.name}", hidden=measure):
        found = profile_spec(
            spec, hardware, workload, config.task_overrides(), fields, measure=measure
        )
    folder = Path(config.output_dir())
    write(found, folder, pictures)
    show(found, chosen, folder)
    return float(found.document["workload"]["tpot_s"])


def _progress(message: str, *, hidden: bool) -> Any:
    """Return a spinner on standard error, silent where that is no terminal or shows a bar."""
    from rich.console import Console

    return nullcontext() if hidden else Console(stderr=True).status(message)


def write(found: Profile, folder: Path, drawn: bool) -> None:
    """Write the record, its tables and its pictures into the run's folder."""
    from hybridsim.report import files

    files.write_json(folder / "profile.json", found.document)
    files.write_table(folder, "nodes", found.nodes)
    files.write_table(folder, "sweep", found.sweep)
    if drawn:
        from hybridsim.report import pictures
        from hybridsim.report.profile_figures import profile_figures

        for figure in profile_figures(found.document, found.sweep):
            pictures.write(figure, folder)


def show(found: Profile, chosen: str, folder: Path) -> None:
    """Print the result; a job of a sweep leaves that to the comparison at the sweep's end."""
    if config.is_multirun():
        log.info("%s: written to %s", found.document["spec"]["name"], folder)
    elif chosen == "json":
        from hybridsim.report.files import json_text

        print(json_text(found.document))
    else:
        from hybridsim.report.tables import print_report, profile_report

        print_report(profile_report(found.document, found.sweep))
        log.info("written to %s", folder)


if __name__ == "__main__":
    main()
