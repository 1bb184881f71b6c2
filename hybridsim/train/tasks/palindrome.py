"""Palindromes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws


@final
@dataclass(frozen=True)
class Palindrome(Task):
    """Random tokens, a mark, then the same tokens backwards.

    With V tokens, V - 1 is the mark, 0 the blank, all others are drawn with replacement. n = T / 2
    tokens are asked for, each where the one said before it is read.

        vocab_size=10, length=8:   4 1 7 2 9 2 7 1    targets from the mark on: 2 7 1 4

    Source: Kimi Linear, arXiv 2510.26692, section 5.1, which gives the lengths (256 to 2,048) but
        not the vocabulary; 64 is our choice.
    """

    kind: ClassVar[str] = "palindrome"
    stresses: ClassVar[str] = "exact copying, last in first out"
    source: ClassVar[str] = "Kimi Linear, arXiv 2510.26692, section 5.1"

    vocab_size: int = 64
    length: int = 256

    def _check(self) -> None:
        require_at_least(4, vocab_size=self.vocab_size)

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
        return self.length // 2 * math.log2(self.num_symbols)

    def curriculum(self, progress: float) -> Palindrome:
        """Return a task of 16 tokens up to all."""
        return replace(self, length=eased(self.length, 16, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        n = self.length // 2
        symbols = 1 + draws.integers(self.num_symbols, n)
        backwards = symbols.flip(1)
        tokens, targets = blanks(draws, self.length)
        tokens[:, :n] = symbols
        tokens[:, n] = self.vocab_size - 1
        tokens[:, n + 1 : 2 * n] = backwards[:, :-1]
        targets[:, n : 2 * n] = backwards
        return Batch(tokens, targets, targets)
