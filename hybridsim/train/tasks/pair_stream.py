"""What in-context recall with noise and without it share."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from hybridsim.train.tasks.base import Batch, Task, blanks
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import first_same, interleaved

SHORTEST = 6  # tokens: a pair, another, and one of the two keys again


@dataclass(frozen=True)
class PairStream(Task):
    """A stream of pairs whose keys come again: say the value of every key seen before."""

    @property
    def num_keys(self) -> int:
        """Keys, and as many values."""
        return self.pair_vocab_size // 2

    @property
    def num_pairs(self) -> int:
        """Pairs of the sequence, noise counted."""
        return self.length // 2

    @property
    @abstractmethod
    def pair_vocab_size(self) -> int:
        """Tokens that keys and values share; those above are noise."""

    @property
    @abstractmethod
    def noise_share(self) -> float:
        """Probability that a pair is noise."""

    @property
    def chance(self) -> float:
        """One value of all."""
        return 1 / self.num_keys

    @property
    def sequence_bits(self) -> float:
        noise, noise_vocab = self.noise_share, max(1, self.vocab_size - self.pair_vocab_size)
        same = (1 - noise) ** 2 / self.num_keys + noise**2 / noise_vocab**2
        return -(self.num_pairs - 2) * math.log2(same)

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
