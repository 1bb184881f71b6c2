"""Selective copying."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import BLANK, Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws


@final
@dataclass(frozen=True)
class SelectiveCopy(Task):
    """Tokens scattered among blanks, a copy mark, then blanks: say the tokens in order.

    With V tokens, 0 is the blank, V - 1 the mark, the rest is copied, drawn with replacement to
    places that are equally likely. The answer is not fed back: every answer place reads a blank.

        vocab_size=8, num_copied=2, length=8:   0 5 0 0 3 7 0 0    targets: 5, 3 at the last two

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45), after Mamba's task. There each blank falls
        before a random token to copy; here all placings are equally likely.

    Attributes:
        num_copied: tokens to copy.
    """

    kind: ClassVar[str] = "selective_copy"
    stresses: ClassVar[str] = "keeping what matters in order, by position and not by key"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"

    vocab_size: int = 16
    length: int = 256
    num_copied: int = 16

    def _check(self) -> None:
        require_at_least(4, vocab_size=self.vocab_size)
        require_at_least(1, num_copied=self.num_copied)
        require_at_least(2 * self.num_copied + 1, length=self.length)

    @property
    def num_symbols(self) -> int:
        """Tokens that may be copied."""
        return self.vocab_size - 2

    @property
    def chance(self) -> float:
        """One symbol of all."""
        return 1 / self.num_symbols

    @property
    def sequence_bits(self) -> float:
        places = math.comb(self.length - self.num_copied - 1, self.num_copied)
        return self.num_copied * math.log2(self.num_symbols) + math.log2(places)

    def curriculum(self, progress: float) -> SelectiveCopy:
        """Return a task of 4 tokens up to all, the length in proportion."""
        copied = eased(self.num_copied, 4, progress)
        length = max(2 * copied + 1, self.length * copied // self.num_copied)
        return replace(self, num_copied=copied, length=length)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        n = self.num_copied
        tokens, targets = blanks(draws, self.length)
        symbols = 1 + draws.integers(self.num_symbols, n)
        places = draws.distinct(n, self.length - n - 1).sort(dim=1).values
        tokens.scatter_(1, places, symbols)
        tokens[:, -n - 1] = self.vocab_size - 1
        tokens[:, -n:] = BLANK
        targets[:, -n:] = symbols
        return Batch(tokens, targets, targets)
