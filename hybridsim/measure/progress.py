"""How far a run of measurements is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from hybridsim.measure.plan import Task
from hybridsim.measure.store import OK, Row

LINE_EVERY_S = 15.0


class MeasureProgress:
    """Shows tasks as they are done, on standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.counts: Counter[str] = Counter()
        self._began = self._last = time.monotonic()
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("measuring"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total)

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

    def done(self, task: Task, row: Row) -> None:
        """Show a finished task."""
        self.counts[row.status] += 1
        text = f"{row.part} {row.phase} batch {row.batch} context {row.context}: {_result(row)}"
        self._bar.update(self._task, advance=1, description=text)
        now = time.monotonic()
        if self._bar.disable and (now - self._last > LINE_EVERY_S or row.status != OK):
            self._last = now
            count = self.counts.total()
            left = (now - self._began) / count * (self.total - count)
            print(f"{count}/{self.total}, about {left:.0f} s left; {text}", file=sys.stderr)


def _result(row: Row) -> str:
    if row.latency_s is None:
        return f"{row.status} {row.note}".strip()
    spread = "" if row.spread is None else f" +- {row.spread:.1%}"
    return f"{row.latency_s * 1e6:,.0f} us{spread}"
