"""How far a search is: a bar on a terminal, a line now and then elsewhere; on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
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

from search.records import Tried

LINE_EVERY_S = 15.0


class SearchProgress:
    """Shows proposals as they are evaluated, and the hypervolume so far.

    Args:
        total: proposals of the study.
        hypervolume: of finished trials.
    """

    def __init__(self, total: int, hypervolume: Callable[[list[Tried]], float]) -> None:
        self.total, self._hypervolume = total, hypervolume
        self._began = self._last = time.monotonic()
        self._before: int | None = None
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("searching"),
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

    def told(self, found: list[Tried]) -> None:
        """Show how far the study is."""
        done = min(self.total, sum(one.fidelity == 0 and not one.baseline for one in found))
        longer = sum(one.fidelity > 0 for one in found)
        now = time.monotonic()
        if self._before is None:
            self._before = done - 1
        if self._bar.disable and now - self._last <= LINE_EVERY_S:
            return
        self._last = now
        text = f"hypervolume {self._hypervolume(found):.4f}"
        text += f", {longer} longer trainings" if longer else ""
        self._bar.update(self._task, completed=done, description=text)
        if self._bar.disable:
            left_s = (now - self._began) / max(1, done - self._before) * (self.total - done)
            print(f"{done}/{self.total} trials, about {left_s:.0f} s left; {text}", file=sys.stderr)
