"""How far trainings are: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self, final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hybridsim.train.trainer import Look

LINE_EVERY_S = 15.0


@final
class TrainingProgress:
    """Shows each population's steps, its best validation score, and the time that is left."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._shown = self._bar.add_task("training", total=None)
        self._name, self._began, self._last = "", time.monotonic(), 0.0
        self._first = 0

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

    def look(self, look: Look) -> None:
        """Show a validation."""
        if look.task != self._name or look.step <= self._first:
            self._name, self._first, self._began = look.task, look.step, time.monotonic()
            self._bar.reset(self._shown, total=look.steps)
        models = f"{look.training} model" + ("" if look.training == 1 else "s")
        text = f"{look.task}: best {look.best:.3f}, {models} in training"
        done = look.step if look.training else look.steps
        self._bar.update(self._shown, completed=done, total=look.steps, description=text)
        now = time.monotonic()
        if self._bar.disable and now - self._last > LINE_EVERY_S:
            self._last = now
            print(
                f"step {look.step} of {look.steps}{self._left(look, now)}; {text}", file=sys.stderr
            )

    def _left(self, look: Look, now: float) -> str:
        steps = look.step - self._first
        if steps <= 0:
            return ""
        return f", about {(now - self._began) / steps * (look.steps - look.step):.0f} s left"
