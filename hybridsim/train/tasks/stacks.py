"""Many independent stacks."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import last_marked

PUSH, POP, FIRST_STACK = 1, 2, 3


@final
@dataclass(frozen=True)
class Stacks(Task):
    """Pushes to and pops from many stacks, each last in first out: say what a pop gives.

    An operation is three tokens, push or pop, stack, element; the target of a pop is its element,
    where the stack is read. Stacks and elements are drawn with replacement; each operation pushes
    or pops with equal odds, and pushes where the stack is empty. The last operation is on the stack
    of the one before it, and pops it unless it is empty: every sequence has a pop.

        push a 5, push b 9, push a 6, pop a 6, pop b 9    targets: 6 at the third a, 9 at the last b

    Source: Kimi Linear, arXiv 2510.26692, section 5.1 (64 stacks). Elements, odds and the number
        of operations are not given there: ours are the rest of the vocabulary, 1 : 1, and T / 3.

    Attributes:
        num_stacks: stacks.
    """

    kind: ClassVar[str] = "stacks"
    stresses: ClassVar[str] = "tracking many states that change"
    source: ClassVar[str] = "Kimi Linear, arXiv 2510.26692, section 5.1"

    vocab_size: int = 128
    length: int = 384
    num_stacks: int = 64

    def _check(self) -> None:
        require_at_least(1, num_stacks=self.num_stacks)
        require_at_least(FIRST_STACK + self.num_stacks + 2, vocab_size=self.vocab_size)
        require_at_least(6, length=self.length)

    @property
    def num_elements(self) -> int:
        """Tokens that may be pushed."""
        return self.vocab_size - FIRST_STACK - self.num_stacks

    @property
    def num_operations(self) -> int:
        """Pushes and pops."""
        return self.length // 3

    @property
    def chance(self) -> float:
        """One element of all."""
        return 1 / self.num_elements

    @property
    def sequence_bits(self) -> float:
        stacks = (self.num_operations - 1) * math.log2(self.num_stacks)
        return stacks + self.num_operations / 2 * math.log2(self.num_elements)

    def curriculum(self, progress: float) -> Stacks:
        """Return a task of 16 operations up to all."""
        return replace(self, length=eased(self.length, 48, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        n = self.num_operations
        stacks = draws.integers(self.num_stacks, n)
        stacks[:, -1] = stacks[:, -2]
        depths, is_push = _walks(stacks, draws.coins(0.5, n))
        # Pops of one level of one stack alternate with its pushes.
        level = stacks * (n + 1) + depths + (~is_push).long()
        pushed = draws.integers(self.num_elements, n)
        elements = pushed.gather(1, last_marked(level, is_push))
        return self._batch(draws, stacks, is_push, elements)

    def _batch(self, draws: Draws, stacks: Tensor, is_push: Tensor, elements: Tensor) -> Batch:
        tokens, targets = blanks(draws, self.length)
        used = 3 * self.num_operations
        words = FIRST_STACK + self.num_stacks + elements
        verbs = torch.where(is_push, PUSH, POP)
        operations = torch.stack([verbs, FIRST_STACK + stacks, words], dim=2)
        tokens[:, :used] = operations.flatten(1)
        places = targets[:, 1:used:3]
        places.copy_(words.where(~is_push, places))
        return Batch(tokens, targets, targets)


def _walks(stacks: Tensor, is_up: Tensor) -> tuple[Tensor, Tensor]:
    """Return each stack's depth after every operation, and whether it was a push, [B, N] each.

    The absolute value of a symmetric walk is the depth of a stack that is pushed to when empty and
    else pushed to or popped with equal odds. The last step is towards zero where it can be.
    """
    n = stacks.shape[1]
    places = (stacks * n + torch.arange(n, device=stacks.device)).sort(dim=1).values
    ordered, places = places // n, places % n
    steps = torch.where(is_up, 1, -1).gather(1, places)
    total = steps.cumsum(dim=1)
    is_first = torch.ones_like(is_up)
    is_first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    order = torch.arange(n, device=stacks.device).expand_as(stacks)
    head = torch.where(is_first, order, 0).cummax(dim=1).values
    walk = total - (total - steps).gather(1, head)
    walk = torch.empty_like(walk).scatter_(1, places, walk)
    steps = torch.empty_like(steps).scatter_(1, places, steps)
    before = walk - steps
    last = before[:, -1:]
    walk = torch.cat([walk[:, :-1], torch.where(last == 0, 1, last.abs() - 1)], dim=1)
    return walk.abs(), walk.abs() > before.abs()
