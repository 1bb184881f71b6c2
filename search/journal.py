"""The study file: Optuna's journal, appended to without waiting for the disk at every record."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from filelock import FileLock
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from hybridsim.errors import HybridsimError

SYNC_EVERY_S = 1.0
START_ANEW = "move the study's folder away and start anew"


class JournalFile(BaseJournalBackend):
    """A journal that many processes of one machine may write to.

    Optuna's own backend waits for the disk after each of a trial's parameters, some 4 ms each. Here
    a record is with the operating system when the call returns, so that no killed process loses
    one, and on the disk within about a second. A record that a full disk cut short is taken back.
    The kernel holds the lock for a process: one that is killed leaves it free at once.

    Args:
        path: the file, made where it is missing.

    Raises:
        HybridsimError: a line of the file is no record.
    """

    def __init__(self, path: Path) -> None:
        check_journal(path)
        self._path = path
        self._lock = FileLock(f"{path}.lock")
        self._file = JournalFileBackend(str(path))
        self._synced_at = 0.0

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return self._file.read_logs(log_number_from)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._lock, self._path.open("r+b") as file:
            end = _whole_records_end(file)
            file.truncate(end)
            file.seek(end)
            try:
                file.write(text.encode())
                file.flush()
            except OSError:
                os.truncate(self._path, end)
                raise
            self._sync(file.fileno())

    def _sync(self, descriptor: int) -> None:
        now = time.monotonic()
        if now - self._synced_at > SYNC_EVERY_S:
            os.fsync(descriptor)
            self._synced_at = now


def _whole_records_end(file: Any) -> int:
    """Return where the last whole record ends; what follows is of a write that was cut short."""
    end: int = file.seek(0, os.SEEK_END)
    size = 1
    while end:
        size = min(end, 2 * size)
        file.seek(end - size)
        found: int = file.read(size).rfind(b"\n")
        if found >= 0:
            return end - size + found + 1
        if size == end:
            return 0
    return 0


def check_journal(path: Path) -> None:
    """Raise HybridsimError where a line of a journal is no record.

    A last line without its end is of a write that is not over, or was cut short: it counts for
    nothing.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n") and not _is_record(line):
                raise HybridsimError(
                    f"study file {path}: line {number} is not a record of a study;"
                    " remove that line, or {START_ANEW}"
                )


def _is_record(line: bytes) -> bool:
    try:
        return "op_code" in json.loads(line)
    except (ValueError, TypeError):
        return False
