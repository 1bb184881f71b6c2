"""Memorisation of facts in the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import interleaved


@final
@dataclass(frozen=True)
class Memorization(Task):
    """Keys, each followed by a mark at which its value must be said; the context says nothing.

    With V tokens, V - 1 is the mark, keys are the first half of the rest, values the second. The
    facts, one value a key and no value twice, are the same in every sequence, seed and split: what
    is held out are sequences, not facts.

        vocab_size=9, length=6:   2 8 0 8 2 8    targets at the marks, say 5, 7, 5

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45), where 256 sequences are all there is to train
        on.

    Attributes:
        facts_seed: which facts.
    """

    kind: ClassVar[str] = "memorization"
    stresses: ClassVar[str] = "facts in the weights: feed-forwards and width, no mixer"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"

    vocab_size: int = 256
    length: int = 32
    facts_seed: int = 0

    def _check(self) -> None:
        require_at_least(5, vocab_size=self.vocab_size)
        require_at_least(0, facts_seed=self.facts_seed)

    @property
    def num_facts(self) -> int:
        """Keys, and as many values."""
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        """One value of all."""
        return 1 / self.num_facts

    @property
    def sequence_bits(self) -> float:
        return self.length // 2 * math.log2(self.num_facts)

    def curriculum(self, progress: float) -> Memorization:
        """Return a task of 8 tokens up to all."""
        return replace(self, length=eased(self.length, 8, progress))

    def facts(self, device: torch.device | str = "cpu") -> Tensor:
        """Return the value of each key, [num_facts]."""
        path = ("facts", self.facts_seed, self.num_facts)
        return self.num_facts + Draws(path, 0, 1, device).permutation(self.num_facts)[0]

    def _generate(self, draws: Draws, split: Split) -> Batch:
        asked = self.length // 2
        keys = draws.integers(self.num_facts, asked)
        marks = torch.full_like(keys, self.vocab_size - 1)
        tokens, targets = blanks(draws, self.length)
        tokens[:, : 2 * asked] = interleaved(keys, marks)
        targets[:, 1 : 2 * asked : 2] = self.facts(draws.device)[keys]
        return Batch(tokens, targets, targets)
