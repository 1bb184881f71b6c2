"""How far trainings are: a bar on a terminal, a line now and then elsewhere, on standard error."""

from __future__ import annotations

import time
from typing import final

from hybridsim.progress import LongWork, new_bar
from hybridsim.train.trainer import Look


@final
class TrainingProgress(LongWork):
    """Shows the steps of all trainings, a task's best validation score, and the time left."""

    def __init__(self) -> None:
        super().__init__(new_bar(), "training")
        self._last = 0.0  # the first look is shown at once
        self._first, self._steps = 0, 0

    def look(self, look: Look) -> None:
        """Show a validation."""
        if look.steps != self._steps or look.step <= self._first:
            self._steps, self._first, self._began = look.steps, look.step, time.monotonic()
            self._bar.reset(self._task, total=look.steps)
        models = f"{look.training} model" + ("" if look.training == 1 else "s")
        text = f"{look.task}: best {look.best:.3f}, {models} in training"
        self._bar.update(self._task, completed=look.step, total=look.steps, description=text)
        now = time.monotonic()
        if self._is_due(now):
            self._print(f"step {look.step} of {look.steps}{self._left(look, now)}; {text}", now)

    def _left(self, look: Look, now: float) -> str:
        steps = look.step - self._first
        if steps <= 0:
            return ""
        return f", about {(now - self._began) / steps * (look.steps - look.step):.0f} s left"
