"""At the end of a sweep, one comparison of its jobs: table, files, picture."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from hybridsim.commands.task import FAILED_JOBS, FAILURE_FILE, failure_of

RECORD = "profile.json"

log = logging.getLogger(__name__)


class GatherProfiles(Callback):
    """Collects what the jobs of a sweep left in their folders, whichever processes they ran in."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        sweep = Path(str(config.hydra.sweep.dir))
        failed = [
            f"job {file.parent.relative_to(sweep)}: {failure_of(file.parent)}"
            for file in _in_order(sweep.rglob(FAILURE_FILE))
        ]
        if "max_failure_rate" not in config.hydra.sweeper:  # else the sweeper has judged them
            FAILED_JOBS[:] = failed
        files = _in_order(sweep.rglob(RECORD))
        documents = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        if documents:
            gather(documents, failed, sweep, str(config.format), bool(config.pictures))


def _in_order(files: Iterable[Path]) -> list[Path]:
    """Return files in the order of the numbers in their folders' names."""
    return sorted(files, key=lambda file: [int(n) for n in re.findall(r"\d+", str(file))])


def gather(
    documents: list[dict[str, Any]], failed: list[str], folder: Path, chosen: str, pictures: bool
) -> None:
    """Write and print the comparison of several profiles."""
    from hybridsim.profiler.comparison import comparison_document

    document = comparison_document(documents, failed_jobs=failed)
    write_comparison(document, folder, pictures)
    show_comparison(document, folder, chosen)


def write_comparison(document: dict[str, Any], folder: Path, pictures: bool) -> None:
    """Write a comparison, its rows and its pictures into a run's folder."""
    from hybridsim.report import comparison, files

    files.write_json(folder / "comparison.json", document)
    files.write_table(folder, "comparison", comparison.flat_rows(document))
    if pictures:
        from hybridsim.report.pictures import write
        from hybridsim.report.profile_figures import comparison_figures

        for figure in comparison_figures(document["rows"]):
            write(figure, folder)


def show_comparison(document: dict[str, Any], folder: Path, chosen: str) -> None:
    """Print a comparison."""
    from hybridsim.report import comparison, files, tables

    if chosen == "json":
        print(files.json_text(document))
    else:
        tables.print_report(comparison.comparison_report(document))
        log.info("comparison written to %s", folder)
