"""How far a search is: a bar on a terminal, a line now and then elsewhere; on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable

from hybridsim.progress import LongWork, new_bar
from search.records import Tried


class SearchProgress(LongWork):
    """Shows proposals as they are evaluated, and the hypervolume so far.

    Args:
        total: proposals of the study.
        hypervolume: of finished trials.
    """

    def __init__(self, total: int, hypervolume: Callable[[list[Tried]], float]) -> None:
        super().__init__(new_bar("searching"), total=total)
        self.total, self._hypervolume = total, hypervolume
        self._before: int | None = None

    def told(self, found: list[Tried]) -> None:
        """Show how far the study is."""
        done = min(self.total, sum(one.fidelity == 0 and not one.baseline for one in found))
        longer = sum(one.fidelity > 0 for one in found)
        now = time.monotonic()
        if self._before is None:
            self._before = done - 1
        if self._bar.disable and not self._is_due(now):
            return
        text = f"hypervolume {self._hypervolume(found):.4f}"
        text += f", {longer} longer trainings" if longer else ""
        self._bar.update(self._task, completed=done, description=text)
        if self._bar.disable:
            left_s = (now - self._began) / max(1, done - self._before) * (self.total - done)
            self._print(f"{done}/{self.total} trials, about {left_s:.0f} s left; {text}", now)
