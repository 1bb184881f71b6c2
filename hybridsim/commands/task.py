"""How a command's work ends when the user's input is wrong."""

from __future__ import annotations

import functools
import logging
import math
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from hybridsim import config
from hybridsim.errors import HybridsimError
from hybridsim.hydra_errors import explain

log = logging.getLogger(__name__)

FAILED_JOBS: list[str] = []  # one line for each job of a sweep that failed
HYDRA_FOLDER = ".hydra"  # Hydra's record of the config, in each run's folder
FAILURE_FILE = "failure.txt"  # that line in the job's folder: the job may run in another process


def guarded(work: Callable[[DictConfig], float | None]) -> Callable[[DictConfig], float | None]:
    """Return the work with one line for a mistake of the user's.

    A run ends there, with exit code 1. A job of a sweep returns NaN, which sweepers take for a
    failed trial, and the sweep goes on: nothing already computed is lost, and the exit code tells.
    A bug of ours keeps its traceback either way. A run that wrote nothing leaves no folder.
    """

    @functools.wraps(work)
    def run(cfg: DictConfig) -> float | None:
        try:
            with _no_empty_folder():
                return work(cfg)
        except (HybridsimError, OmegaConfBaseException) as error:
            line = explain(error, {}) or str(error)
        except Exception as error:
            if not config.is_multirun():
                raise
            log.exception("job %s met a bug", HydraConfig.get().job.num)
            line = repr(error)
        if not config.is_multirun():
            sys.exit(f"hybridsim {HydraConfig.get().job.name}: {line}")
        FAILED_JOBS.append(f"job {HydraConfig.get().job.num}: {line}")
        Path(config.output_dir(), FAILURE_FILE).write_text(line, encoding="utf-8")
        log.error("job %s failed: %s", HydraConfig.get().job.num, line)
        return math.nan

    return run


@contextmanager
def _no_empty_folder() -> Iterator[None]:
    """Remove a run's folder at its end where all it has is the config.

    A search writes to its study's folder, a mistake of the user's writes nothing.
    """
    try:
        yield
    finally:
        folder = Path(config.output_dir())
        if not config.is_multirun() and [p.name for p in folder.iterdir()] == [HYDRA_FOLDER]:
            shutil.rmtree(folder)


def failure_of(folder: Path) -> str | None:
    """Return why the job of a sweep with this folder failed, None where it did not."""
    file = folder / FAILURE_FILE
    return file.read_text(encoding="utf-8") if file.is_file() else None


def require(fields: dict[str, Any], key: str, what: str) -> Any:
    """Return a field that has no default.

    Raises:
        HybridsimError: it was not given.
    """
    if fields[key] is None:
        raise HybridsimError(f"{key}: missing; give {what}")
    return fields[key]


def write_new(path: Path, text: str, overwrite: bool) -> None:
    """Write a file that the user named.

    Raises:
        HybridsimError: it is there and may not be replaced, or its folder is not.
    """
    if path.exists() and not overwrite:
        raise HybridsimError(f"output={path}: is there already; overwrite=true replaces it")
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise HybridsimError(f"output={path}: cannot be written ({error.strerror})") from None
