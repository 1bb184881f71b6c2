"""In-context recall of keys and values of several tokens."""

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
from hybridsim.train.tasks.layout import first_same

MAX_MOTIF = 4


@final
@dataclass(frozen=True)
class FuzzyRecall(Task):
    """In-context recall where a key, and a value, is one to three tokens in a row.

    With V tokens, the last is the blank; of the others one half makes keys, one half values. A
    motif has 1 to `motif_tokens` different tokens, each size equally often. Pairs follow one
    another until no longest pair and one more fits; the last pair repeats a key. Every token of the
    value of a repeated key is a target, the first one where the key ends.

        vocab_size=9, motif_tokens=2:   1 3 5 7 | 2 4 | 1 3 5 7 8 8    targets: 5 at the 3, 7 at the
        5

    Source: MAD, arXiv 2403.17844 (mad-lab 0f49a45, multi-query). There the keys held out have the
        longest size only, and blanks stand in front; ours have the same law in both splits.

    Attributes:
        motif_tokens: longest key and longest value.
    """

    kind: ClassVar[str] = "fuzzy_recall"
    stresses: ClassVar[str] = "recall by keys that are put together from several tokens"
    source: ClassVar[str] = "MAD, arXiv 2403.17844"

    vocab_size: int = 17
    length: int = 128
    motif_tokens: int = 3

    def _check(self) -> None:
        if not 1 <= self.motif_tokens <= MAX_MOTIF:
            raise bad_value("motif_tokens", self.motif_tokens, f"must be in [1, {MAX_MOTIF}]")
        require_at_least(2 * max(2, self.motif_tokens) + 1, vocab_size=self.vocab_size)
        require_at_least(4 * self.motif_tokens, length=self.length)
        if self.vocab_size > 4096:
            raise bad_value("vocab_size", self.vocab_size, "must be at most 4096")

    @property
    def num_symbols(self) -> int:
        """Tokens that keys are made of, and as many for values."""
        return (self.vocab_size - 1) // 2

    @property
    def chance(self) -> float:
        """One symbol of all that values are made of."""
        return 1 / self.num_symbols

    @property
    def sequence_bits(self) -> float:
        sizes = range(1, self.motif_tokens + 1)
        same = sum(1 / math.perm(self.num_symbols, size) for size in sizes) / len(sizes) ** 2
        fewest_pairs = self.length // (2 * self.motif_tokens) - 1
        return -fewest_pairs * math.log2(same)

    def curriculum(self, progress: float) -> FuzzyRecall:
        """Return a task of a few pairs up to all."""
        return replace(self, length=eased(self.length, 8 * self.motif_tokens, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        m, slots = self.motif_tokens, self.length // 2
        key_sizes, value_sizes = 1 + draws.integers(m, slots), 1 + draws.integers(m, slots)
        keys, values = self._motifs(draws, slots), self._motifs(draws, slots)
        # A key has the value that came with it first.
        first = first_same(_motif_ids(keys, key_sizes, self.num_symbols))
        ends = (key_sizes + value_sizes.gather(1, first)).cumsum(dim=1)
        # Behind the pairs that leave room for it, one more repeats the key of one of them.
        count = (ends <= self.length - 2 * m).sum(dim=1, keepdim=True)
        order = torch.arange(slots, device=draws.device).expand_as(ends)
        source = order.scatter(1, count, draws.integers(1 << 20, 1) * count >> 20)
        first = first.gather(1, source)
        is_shown, is_repeated = order <= count, first < order
        pairs = _Pairs(
            torch.cat([_rows(keys, source), self.num_symbols + _rows(values, first)], dim=2),
            key_sizes.gather(1, source),
            value_sizes.gather(1, first),
        )
        return self._batch(draws, pairs, is_shown, is_shown & is_repeated)

    def _motifs(self, draws: Draws, slots: int) -> Tensor:
        """Return different symbols in random order, [B, slots, motif_tokens]."""
        motifs: list[Tensor] = []
        for i in range(self.motif_tokens):
            symbol = draws.integers(self.num_symbols - i, slots)
            for taken in torch.stack(motifs).sort(dim=0).values if motifs else ():
                symbol = symbol + (symbol >= taken).long()
            motifs.append(symbol)
        return torch.stack(motifs, dim=2)

    def _batch(self, draws: Draws, pairs: _Pairs, is_shown: Tensor, is_asked: Tensor) -> Batch:
        """Return the pairs shown, one behind the other, the values asked for as targets."""
        m, nowhere = self.motif_tokens, self.length  # one place more, for what is not shown
        tokens, targets = blanks(draws, self.length + 1)
        tokens += self.vocab_size - 1
        sizes = pairs.key_sizes + pairs.value_sizes
        starts = sizes.cumsum(dim=1) - sizes
        for i in range(m):
            at = (starts + i).where(is_shown & (i < pairs.key_sizes), nowhere)
            tokens.scatter_(1, at, pairs.tokens[:, :, i])
            value, at = pairs.tokens[:, :, m + i], starts + pairs.key_sizes + i
            is_there = i < pairs.value_sizes
            tokens.scatter_(1, at.where(is_shown & is_there, nowhere), value)
            targets.scatter_(1, (at - 1).where(is_asked & is_there, nowhere), value)
        tokens, targets = tokens[:, :-1].contiguous(), targets[:, :-1].contiguous()
        return Batch(tokens, targets, targets)


@final
@dataclass(frozen=True)
class _Pairs:
    """Pairs of motifs: tokens [B, N, 2 m], key then value, of which the first `sizes` [B, N]
    count."""

    tokens: Tensor
    key_sizes: Tensor
    value_sizes: Tensor


def _rows(motifs: Tensor, source: Tensor) -> Tensor:
    """Return motifs[b, source[b, n]], [B, N, m]."""
    return motifs.gather(1, source[:, :, None].expand_as(motifs))


def _motif_ids(motifs: Tensor, sizes: Tensor, num_symbols: int) -> Tensor:
    """Return one number for each motif's first `sizes` symbols, [B, N]."""
    ids = torch.zeros_like(sizes)
    for i in range(motifs.shape[2]):
        ids = ids * (num_symbols + 1) + (motifs[:, :, i] + 1).where(i < sizes, 0)
    return ids
