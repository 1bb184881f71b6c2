"""Batches of a task for many seeds, with what is scored gathered in front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor

from hybridsim.train.tasks import IGNORED

if TYPE_CHECKING:
    from hybridsim.train.tasks import Task

STEPS_AT_ONCE = 64  # batches drawn together


@final
@dataclass(frozen=True)
class Examples:
    """Sequences of several seeds and the places that matter.

    Attributes:
        tokens: [S, B, T].
        positions: [S, B, n], places with a target first; the same n for all.
        targets: [S, B, n], the targets there, IGNORED where a sequence has fewer than n.
        answers: [S, B, T], as the task gives them.
    """

    tokens: Tensor
    positions: Tensor
    targets: Tensor
    answers: Tensor


def gathered(targets: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return positions and targets [..., n] of the scored places of targets [..., T].

    Args:
        targets: IGNORED where nothing is scored.
        count: n; by default as many as the sequence with the most has.
    """
    ignored = targets == IGNORED
    if count is None:
        count = int((~ignored).sum(-1).max())
    positions = ignored.to(torch.uint8).argsort(dim=-1, stable=True)[..., :count].contiguous()
    return positions, targets.gather(-1, positions)


def held_out(
    task: Task, seeds: Sequence[int], size: int, index: int, device: torch.device
) -> Examples:
    """Return held-out sequences; another `index` has others."""
    batches = [task.sample(seed, index, size, device, "held_out") for seed in seeds]
    tokens = torch.stack([batch.tokens for batch in batches])
    answers = torch.stack([batch.answers for batch in batches])
    positions, targets = gathered(torch.stack([batch.targets for batch in batches]))
    return Examples(tokens, positions, targets, answers)


@final
class TrainingData:
    """The batches of a stage, drawn many steps at once.

    Args:
        task: the stage's version of the task.
        seeds: each has sequences of its own.
        batch_size: B.
        device: where they are drawn.
    """

    def __init__(
        self, task: Task, seeds: Sequence[int], batch_size: int, device: torch.device
    ) -> None:
        self.task = task
        self.seeds = list(seeds)
        self.batch_size = batch_size
        self.device = device
        self._block = -1
        self._tokens, self._targets, self._positions = (torch.empty(0) for _ in range(3))
        self._count: int | None = None

    def batch(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens [S, B, T], positions [S, B, n] and targets [S, B, n] of a step."""
        block, inside = divmod(step, STEPS_AT_ONCE)
        if block != self._block:
            self._draw(block)
        rows = slice(inside * self.batch_size, (inside + 1) * self.batch_size)
        return self._tokens[:, rows], self._positions[:, rows], self._targets[:, rows]

    def _draw(self, block: int) -> None:
        size = STEPS_AT_ONCE * self.batch_size
        batches = [self.task.sample(seed, block, size, self.device) for seed in self.seeds]
        self._tokens = torch.stack([batch.tokens for batch in batches])
        targets = torch.stack([batch.targets for batch in batches])
        if self._count is None:
            self._count = self._places(targets)
        self._positions, self._targets = gathered(targets, self._count)
        self._block = block

    def _places(self, targets: Tensor) -> int:
        """Return how many places to keep: those of the fullest sequence, and one in four more.

        A later block may have a fuller one; its surplus targets are left out of the loss.
        """
        most = int((targets != IGNORED).sum(-1).max())
        least = int((targets != IGNORED).sum(-1).min())
        return most if most == least else min(targets.shape[-1], most + most // 4)
