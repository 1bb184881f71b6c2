"""At the end of a sweep, one comparison of its jobs: table, files, picture."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from hybridsim.commands.task import FAILED_JOBS

log = logging.getLogger(__name__)


class GatherProfiles(Callback):
    """Collects profile.json of every job that succeeded; failed jobs take nothing from it."""

    def __init__(self) -> None:
        self.folders: list[Path] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        if job_return.status == JobStatus.COMPLETED and job_return.hydra_cfg is not None:
            self.folders.append(Path(job_return.hydra_cfg.hydra.runtime.output_dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        files = [folder / "profile.json" for folder in self.folders]
        documents = [json.loads(f.read_text(encoding="utf-8")) for f in files if f.is_file()]
        if documents:
            gather(documents, self.folders[0].parent, str(config.format), bool(config.pictures))


def gather(documents: list[dict[str, Any]], folder: Path, chosen: str, pictures: bool) -> None:
    """Write and print the comparison of several profiles."""
    from hybridsim.profiler.comparison import comparison_document

    document = comparison_document(documents, failed_jobs=FAILED_JOBS)
    write_comparison(document, folder, pictures)
    show_comparison(document, folder, chosen)


def write_comparison(document: dict[str, Any], folder: Path, pictures: bool) -> None:
    """Write a comparison, its rows and its picture into a run's folder."""
    from hybridsim.report import comparison, files

    files.write_json(folder / "comparison.json", document)
    files.write_table(folder, "comparison", comparison.flat_rows(document))
    if pictures:
        from hybridsim.report.pictures import comparison_picture

        comparison_picture(folder / "comparison.png", document["rows"])


def show_comparison(document: dict[str, Any], folder: Path, chosen: str) -> None:
    """Print a comparison."""
    from hybridsim.report import comparison, files, tables

    if chosen == "json":
        print(files.json_text(document))
    else:
        tables.print_report(comparison.comparison_report(document))
        log.info("comparison written to %s", folder)
