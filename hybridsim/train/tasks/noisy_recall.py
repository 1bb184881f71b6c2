"""In-context recall between noise."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, final

from hybridsim.components import require_at_least
from hybridsim.errors import bad_value
from hybridsim.train.tasks.base import Batch, Split, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.pair_stream import SHORTEST, PairStream


@final
@dataclass(frozen=True)
class NoisyRecall(PairStream):
    """In-context recall between noise: some pairs are two tokens of a vocabulary of their own.

    As `in_context_recall` with keys and values in [0, V - N), noise in [V - N, V). Each pair but
    the last is noise with a probability; one at least is not.

        vocab_size=12, noise_vocab_size=4, length=10:   2 7 9 10 0 5 8 8 2 7    7 at the second 2

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45).

    Attributes:
        noise_vocab_size: tokens N of noise.
        noise_fraction: probability that a pair is noise.
    """

    kind: ClassVar[str] = "noisy_recall"
    stresses: ClassVar[str] = "recall that leaves out what need not be kept"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"

    vocab_size: int = 32
    length: int = 128
    noise_vocab_size: int = 16
    noise_fraction: float = 0.2

    def _check(self) -> None:
        require_at_least(SHORTEST, length=self.length)
        require_at_least(1, noise_vocab_size=self.noise_vocab_size)
        require_at_least(self.noise_vocab_size + 4, vocab_size=self.vocab_size)
        if not 0 <= self.noise_fraction < 1:
            raise bad_value("noise_fraction", self.noise_fraction, "must be in [0, 1)")

    @property
    def pair_vocab_size(self) -> int:
        return self.vocab_size - self.noise_vocab_size

    @property
    def noise_share(self) -> float:
        return self.noise_fraction

    def curriculum(self, progress: float) -> NoisyRecall:
        """Return a task of 16 tokens up to all."""
        return replace(self, length=eased(self.length, 16, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        is_noise = draws.coins(self.noise_fraction, self.num_pairs)
        is_noise[:, -1] = False
        is_noise.scatter_(1, draws.integers(self.num_pairs - 1, 1), False)
        keys, values = self._pairs(draws, is_noise)
        noise = self.pair_vocab_size + draws.integers(self.noise_vocab_size, 2, self.num_pairs)
        keys, values = keys.where(~is_noise, noise[:, 0]), values.where(~is_noise, noise[:, 1])
        return self._batch(draws, keys, values, is_noise)
