"""One view of many trainings: the looks of all chunks as steps done of all steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

from hybridsim.train.trainer import Look


@final
class Overview:
    """Adds up the looks of chunks, whether they train one by one or beside each other.

    Args:
        steps: of each chunk, at most.
        on_look: called after every look, with the steps of all chunks, and the best score and the
            models in training of the look's task; None for nobody.
    """

    def __init__(self, steps: Sequence[int], on_look: Callable[[Look], None] | None) -> None:
        self._on_look = on_look
        self._steps = list(steps)
        self._done = [0] * len(self._steps)
        self._looks: dict[int, Look] = {}

    def look(self, number: int, look: Look) -> None:
        """Take in a look of a chunk."""
        self._looks[number] = look
        self._done[number] = look.step if look.training else look.steps
        if self._on_look is None:
            return
        alike = [other for other in self._looks.values() if other.task == look.task]
        self._on_look(
            Look(
                look.task,
                sum(self._done),
                sum(self._steps),
                max(other.best for other in alike),
                sum(other.training for other in alike),
            )
        )

    def end(self, number: int) -> None:
        """Take in that a chunk has ended, though it may have had nothing to look at."""
        self._done[number] = self._steps[number]
        if number in self._looks:
            self._looks[number] = replace(self._looks[number], training=0)
