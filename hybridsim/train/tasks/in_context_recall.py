"""In-context recall."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import Batch, Split, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.pair_stream import SHORTEST, PairStream


@final
@dataclass(frozen=True)
class InContextRecall(PairStream):
    """Pairs of a key and its value, keys drawn with replacement: recall those seen before.

    With V tokens, keys are in [0, V/2), values in [V/2, V). Each sequence maps every key to a value
    drawn with replacement; the last key is always one that stood before. Few keys, often repeated:
    what `mqar` is not.

        vocab_size=8, length=10:   2 7 0 5 2 7 1 5 0 5    targets: 7 at the second 2, 5 at the 0

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45, multi-query). There training is on all tokens
        and the score on repeated keys; ours trains on what it scores, and the last value is in the
        input.
    """

    kind: ClassVar[str] = "in_context_recall"
    stresses: ClassVar[str] = "recall of few keys, asked while more is read"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"

    vocab_size: int = 16
    length: int = 128

    def _check(self) -> None:
        require_at_least(SHORTEST, length=self.length)
        require_at_least(4, vocab_size=self.vocab_size)

    @property
    def pair_vocab_size(self) -> int:
        return self.vocab_size

    @property
    def noise_share(self) -> float:
        return 0.0

    def curriculum(self, progress: float) -> InContextRecall:
        """Return a task of 16 tokens up to all."""
        return replace(self, length=eased(self.length, 16, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        is_noise = torch.zeros((draws.count, self.num_pairs), dtype=torch.bool, device=draws.device)
        return self._batch(draws, *self._pairs(draws, is_noise), is_noise)
