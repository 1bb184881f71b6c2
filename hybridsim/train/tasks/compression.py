"""Compression of a sequence into its last hidden state."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, final

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task, eased
from hybridsim.train.tasks.draws import Draws


@final
@dataclass(frozen=True)
class Compression(Task):
    """Random tokens and a mark: all tokens must be read off the hidden state at the mark.

    With V tokens, V - 1 is the mark, the last position; all others are drawn with replacement. The
    target at position t < T - 1 is the token there, and what is scored at it is a decoder's answer
    from the hidden state at position T - 1 and the number t alone (`reads_at = "last"`): an output
    at position t itself would only have to repeat its input. MAD's decoder adds a sinusoid of t to
    the state and applies an MLP of two layers; ours is in hybridsim/train/decoder.py.

        vocab_size=8, length=6:   3 0 6 6 1 7    targets: 3 0 6 6 1 -

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45), which also scores the mark itself.
    """

    kind: ClassVar[str] = "compression"
    stresses: ClassVar[str] = "how much one hidden state can be made to hold"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"
    reads_at: ClassVar[Literal["each", "last"]] = "last"

    vocab_size: int = 16
    length: int = 32

    def _check(self) -> None:
        require_at_least(3, vocab_size=self.vocab_size)

    @property
    def chance(self) -> float:
        """One token of all but the mark."""
        return 1 / (self.vocab_size - 1)

    @property
    def sequence_bits(self) -> float:
        return (self.length - 1) * math.log2(self.vocab_size - 1)

    def curriculum(self, progress: float) -> Compression:
        """Return a task of 8 tokens up to all."""
        return replace(self, length=eased(self.length, 8, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        tokens = draws.integers(self.vocab_size - 1, self.length)
        tokens[:, -1] = self.vocab_size - 1
        targets = tokens.clone()
        targets[:, -1] = IGNORED
        return Batch(tokens, targets, targets)
