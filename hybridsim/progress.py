"""How far long work is: a bar on a terminal, a line now and then elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_EVERY_S = 15.0


def new_bar(title: str = "") -> Progress:
    """Return a bar on standard error, which shows nothing where that is no terminal.

    Args:
        title: what stands before it, with how many of how many behind; by default the description
            stands before it.
    """
    console = Console(stderr=True)
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    described = TextColumn("{task.description}")
    columns: tuple[ProgressColumn, ...] = (described, BarColumn(), *times)
    if title:
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), *times, described)
    return Progress(*columns, console=console, disable=not console.is_terminal)


class LongWork:
    """A bar with one task, and the times of the lines in its place; subclasses say what to show.

    Args:
        bar: from `new_bar`.
        description: of its task.
        total: of its task, where it is known.
    """

    def __init__(self, bar: Progress, description: str = "", total: int | None = None) -> None:
        self._bar = bar
        self._task = bar.add_task(description, total=total)
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def _is_due(self, now: float) -> bool:
        """Whether a line should be printed in the bar's place."""
        return self._bar.disable and now - self._last > LINE_EVERY_S

    def _print(self, line: str, now: float) -> None:
        self._last = now
        print(line, file=sys.stderr)
