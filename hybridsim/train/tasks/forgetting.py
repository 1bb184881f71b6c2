"""Associative recall with overwritten keys."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from hybridsim.components import require_at_least, require_positive
from hybridsim.errors import bad_value
from hybridsim.train.tasks.base import Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import interleaved, query_places


@final
@dataclass(frozen=True)
class ForgettingRecall(Task):
    """Multi-query recall in which some keys get a new value: the last one counts.

    Keys, values and queries as in `mqar`; between pairs and queries, `num_updates` of the keys, in
    random order, come with another value. A model that never overwrites scores
    1 - num_updates / num_pairs.

        num_pairs=2, num_updates=1, length=12:   5 14 3 9 | 5 11 | 3 0 5 0 0 0    9 at 3, 11 at 5

    Source: Zoology's forgetting_mqar.py. New values differ from all old ones of the sequence, there
        from one of them.

    Attributes:
        num_pairs: keys.
        num_updates: keys that are overwritten.
        power_a: exponent of the queries' law, see `mqar`.
    """

    kind: ClassVar[str] = "forgetting_recall"
    stresses: ClassVar[str] = "overwriting: the delta rule and gates against plain sums"
    source: ClassVar[str] = "Zoology, arXiv 2312.04927 (forgetting_mqar)"

    vocab_size: int = 256
    length: int = 128
    num_pairs: int = 16
    num_updates: int = 16
    power_a: float = 0.01

    def _check(self) -> None:
        require_positive(num_pairs=self.num_pairs, power_a=self.power_a)
        require_positive(num_updates=self.num_updates)
        if self.num_updates > self.num_pairs:
            raise bad_value(
                "num_updates", self.num_updates, f"must be at most num_pairs={self.num_pairs}"
            )
        require_at_least(2 * (self.num_pairs + self.num_updates) + 2, vocab_size=self.vocab_size)
        require_at_least(self.context_length + 2 * self.num_pairs, length=self.length)

    @property
    def context_length(self) -> int:
        """Tokens before the first query."""
        return 2 * (self.num_pairs + self.num_updates)

    @property
    def num_values(self) -> int:
        """Tokens that are values."""
        return self.vocab_size - self.vocab_size // 2

    @property
    def chance(self) -> float:
        """One value of all."""
        return 1 / self.num_values

    @property
    def guess(self) -> float:
        """One of the values shown, old or new."""
        return 1 / (self.num_pairs + self.num_updates)

    @property
    def sequence_bits(self) -> float:
        keys = math.perm(self.vocab_size // 2 - 1, self.num_pairs)
        values = math.perm(self.num_values, self.num_pairs + self.num_updates)
        return math.log2(keys) + math.log2(values)

    def curriculum(self, progress: float) -> ForgettingRecall:
        """Return a task of 4 pairs up to all, updates and length in proportion."""
        pairs = eased(self.num_pairs, 4, progress)
        updates = -(-self.num_updates * pairs // self.num_pairs)
        length = max(4 * pairs + 2 * updates, self.length * pairs // self.num_pairs)
        return replace(self, num_pairs=pairs, num_updates=updates, length=length)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        n, half = self.num_pairs, self.vocab_size // 2
        keys = 1 + draws.distinct(n, half - 1)
        shown = half + draws.distinct(n + self.num_updates, self.num_values)
        values, news = shown[:, :n], shown[:, n:]
        updated = draws.distinct(self.num_updates, n)
        tokens, targets = blanks(draws, self.length)
        context = [interleaved(keys, values), interleaved(keys.gather(1, updated), news)]
        tokens[:, : self.context_length] = torch.cat(context, dim=1)
        queries = query_places(draws, n, self.context_length, self.length, self.power_a)
        tokens.scatter_(1, queries, keys)
        targets.scatter_(1, queries, values.scatter(1, updated, news))
        return Batch(tokens, targets, targets)
