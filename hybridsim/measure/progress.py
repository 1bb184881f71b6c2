"""How far compiling and measuring are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


def _bar(title: str) -> Progress:
    """Return a bar on standard error, which shows nothing where that is no terminal."""
    console = Console(stderr=True)
    return Progress(
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def compile_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many kernels are compiled, of how many so far."""
    began = time.monotonic()
    last = [0, 0]
    with _bar("compiling kernels") as bar:
        shown = bar.add_task("", total=None)

        def told(compiled: int, known: int) -> None:
            last[:] = compiled, known
            bar.update(shown, completed=compiled, total=known)

        yield told
    if bar.disable and last[1]:
        seconds = time.monotonic() - began
        print(f"{last[0]} of {last[1]} kernels compiled in {seconds:.0f} s", file=sys.stderr)


class MeasureProgress:
    """Shows tasks as they are done, on standard error."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.counts: Counter[str] = Counter()
        self._began = self._last = time.monotonic()
        self._bar = _bar("measuring")
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
