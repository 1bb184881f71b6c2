"""In-context recall, without noise and with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.errors import bad_value
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import first_same, interleaved


@dataclass(frozen=True)
class _PairStream(Task):
    """A stream of pairs whose keys come again: say the value of every key seen before."""

    @property
    def num_keys(self) -> int:
        """Keys, and as many values."""
        return self._pair_vocab // 2

    @property
    def num_pairs(self) -> int:
        """Pairs of the sequence, noise counted."""
        return self.length // 2

    @property
    def _pair_vocab(self) -> int:
        """Tokens that keys and values share."""
        return self.vocab_size

    @property
    def _noise_fraction(self) -> float:
        return 0.0

    @property
    def chance(self) -> float:
        """One value of all."""
        return 1 / self.num_keys

    @property
    def sequence_bits(self) -> float:
        noise, noise_vocab = self._noise_fraction, max(1, self.vocab_size - self._pair_vocab)
        same = (1 - noise) ** 2 / self.num_keys + noise**2 / noise_vocab**2
        return -(self.num_pairs - 2) * math.log2(same)

    def _check(self) -> None:
        require_at_least(6, length=self.length)

    def _pairs(self, draws: Draws, is_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of all pairs, the last key one that stood before, [B, N] each."""
        keys = draws.integers(self.num_keys, self.num_pairs)
        seen = torch.zeros((draws.count, self.num_keys + 1), dtype=torch.bool, device=draws.device)
        seen.scatter_(1, keys[:, :-1].where(~is_noise[:, :-1], self.num_keys), True)
        order = draws.permutation(self.num_keys)
        keys[:, -1] = order.where(seen[:, :-1], -1).argmax(dim=1)
        value_of = self.num_keys + draws.integers(self.num_keys, self.num_keys)
        return keys, value_of.gather(1, keys)

    def _batch(self, draws: Draws, keys: Tensor, values: Tensor, is_noise: Tensor) -> Batch:
        tokens, targets = blanks(draws, self.length)
        tokens[:, : 2 * self.num_pairs] = interleaved(keys, values)
        order = torch.arange(self.num_pairs, device=draws.device)
        # Noise is no key: every noise gets an id of its own.
        ids = keys.where(~is_noise, self.vocab_size + order)
        is_asked = (first_same(ids) < order) & ~is_noise
        places = targets[:, : 2 * self.num_pairs : 2]
        places.copy_(values.where(is_asked, places))
        return Batch(tokens, targets, targets)


@final
@dataclass(frozen=True)
class InContextRecall(_PairStream):
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
        super()._check()
        require_at_least(4, vocab_size=self.vocab_size)

    def curriculum(self, progress: float) -> InContextRecall:
        """Return a task of 16 tokens up to all."""
        return replace(self, length=eased(self.length, 16, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        is_noise = torch.zeros((draws.count, self.num_pairs), dtype=torch.bool, device=draws.device)
        return self._batch(draws, *self._pairs(draws, is_noise), is_noise)


@final
@dataclass(frozen=True)
class NoisyRecall(_PairStream):
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
        super()._check()
        require_at_least(1, noise_vocab_size=self.noise_vocab_size)
        require_at_least(self.noise_vocab_size + 4, vocab_size=self.vocab_size)
        if not 0 <= self.noise_fraction < 1:
            raise bad_value("noise_fraction", self.noise_fraction, "must be in [0, 1)")

    @property
    def _pair_vocab(self) -> int:
        return self.vocab_size - self.noise_vocab_size

    @property
    def _noise_fraction(self) -> float:
        return self.noise_fraction

    def curriculum(self, progress: float) -> NoisyRecall:
        """Return a task of 16 tokens up to all."""
        return replace(self, length=eased(self.length, 16, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        is_noise = draws.coins(self.noise_fraction, self.num_pairs)
        is_noise[:, -1] = False
        is_noise.scatter_(1, draws.integers(self.num_pairs - 1, 1), False)
        keys, values = self._pairs(draws, is_noise)
        noise = self._pair_vocab + draws.integers(self.noise_vocab_size, 2, self.num_pairs)
        keys, values = keys.where(~is_noise, noise[:, 0]), values.where(~is_noise, noise[:, 1])
        return self._batch(draws, keys, values, is_noise)
