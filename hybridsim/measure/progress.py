"""How far compiling and measuring are: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hybridsim.measure.plan import Task
from hybridsim.measure.store import OK, Row
from hybridsim.progress import LongWork, new_bar


@contextmanager
def compile_progress() -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many kernels are compiled, of how many so far."""
    began = time.monotonic()
    last = [0, 0]
    with new_bar("compiling kernels") as bar:
        shown = bar.add_task("", total=None)

        def told(compiled: int, known: int) -> None:
            last[:] = compiled, known
            bar.update(shown, completed=compiled, total=known)

        yield told
    if bar.disable and last[1]:
        seconds = time.monotonic() - began
        print(f"{last[0]} of {last[1]} kernels compiled in {seconds:.0f} s", file=sys.stderr)


class MeasureProgress(LongWork):
    """Shows tasks as they are done, on standard error."""

    def __init__(self, total: int) -> None:
        super().__init__(new_bar("measuring"), total=total)
        self.total = total
        self.counts: Counter[str] = Counter()

    def done(self, task: Task, row: Row) -> None:
        """Show a finished task."""
        self.counts[row.status] += 1
        text = f"{row.part} {row.phase} batch {row.batch} context {row.context}: {_result(row)}"
        self._bar.update(self._task, advance=1, description=text)
        now = time.monotonic()
        if self._is_due(now) or (self._bar.disable and row.status != OK):
            count = self.counts.total()
            left = (now - self._began) / count * (self.total - count)
            self._print(f"{count}/{self.total}, about {left:.0f} s left; {text}", now)


def _result(row: Row) -> str:
    if row.latency_s is None:
        return f"{row.status} {row.note}".strip()
    spread = "" if row.spread is None else f" +- {row.spread:.1%}"
    return f"{row.latency_s * 1e6:,.0f} us{spread}"
