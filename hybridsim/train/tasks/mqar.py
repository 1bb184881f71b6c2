"""Multi-query associative recall."""

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
class MultiQueryRecall(Task):
    """Key-value pairs, then every key once more: say its value.

    With V tokens, keys are in [1, V/2) and values in [V/2, V), each at most once a sequence. The
    pairs stand first, `num_passes` times over. What follows is (T - context) / 2 slots of two
    tokens; each key is asked at the start of a slot of its own, slots g = 1, 2, ... being drawn
    without replacement with p(g) ~ g^(a - 1). All else is blank, or any token.

        num_pairs=2, length=16:   5 14 3 9 | 3 0 0 0 5 0 ...    targets: 9 at the 3, 14 at the 5

    Source: Zoology, arXiv 2312.04927, and its generator (multiquery_ar.py, d88d6f5), the same law.
        Ours has blanks by default where theirs has random tokens, as in the recipe that
        docs/proxy_tasks.md names.

    Attributes:
        num_pairs: pairs; fewer than V/2, and 2 pairs (passes + 1) tokens must fit.
        num_passes: how often the pairs are shown.
        power_a: exponent a; near 0 queries gather behind the context, 1 spreads them evenly.
        random_non_queries: whether unasked places hold random tokens.
    """

    kind: ClassVar[str] = "mqar"
    stresses: ClassVar[str] = "exact recall of many pairs: the size of the state"
    source: ClassVar[str] = "Zoology, arXiv 2312.04927"

    vocab_size: int = 256
    length: int = 128
    num_pairs: int = 32
    num_passes: int = 1
    power_a: float = 0.01
    random_non_queries: bool = False

    def _check(self) -> None:
        require_positive(num_pairs=self.num_pairs, num_passes=self.num_passes, power_a=self.power_a)
        require_at_least(4, vocab_size=self.vocab_size)
        for key, value in (("vocab_size", self.vocab_size), ("length", self.length)):
            if value % 2:
                raise bad_value(key, value, "must be even")
        if self.num_pairs >= self.vocab_size // 2:
            half = self.vocab_size // 2
            raise bad_value("num_pairs", self.num_pairs, f"must be below vocab_size / 2 = {half}")
        require_at_least(self.context_length + 2 * self.num_pairs, length=self.length)

    @property
    def context_length(self) -> int:
        """Tokens before the first query."""
        return 2 * self.num_pairs * self.num_passes

    @property
    def chance(self) -> float:
        """2 / V: a value of V / 2."""
        return 2 / self.vocab_size

    @property
    def guess(self) -> float:
        """1 / num_pairs: one of the values shown."""
        return 1 / self.num_pairs

    @property
    def sequence_bits(self) -> float:
        half, n = self.vocab_size // 2, self.num_pairs
        return math.log2(math.perm(half - 1, n)) + math.log2(math.perm(half, n))

    def curriculum(self, progress: float) -> MultiQueryRecall:
        """Return a task of 4 pairs up to all, its length in proportion."""
        pairs = eased(self.num_pairs, 4, progress)
        length = 2 * -(-self.length * pairs // (2 * self.num_pairs))
        return replace(self, num_pairs=pairs, length=length)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        half, n = self.vocab_size // 2, self.num_pairs
        keys, values = 1 + draws.distinct(n, half - 1), half + draws.distinct(n, half)
        tokens, targets = blanks(draws, self.length)
        tokens[:, : self.context_length] = interleaved(keys, values).repeat(1, self.num_passes)
        queries = query_places(draws, n, self.context_length, self.length, self.power_a)
        tokens.scatter_(1, queries, keys)
        targets.scatter_(1, queries, values)
        if self.random_non_queries:
            noise = draws.integers(self.vocab_size, self.length)
            tokens = torch.where(tokens == 0, noise, tokens)
        return Batch(tokens, targets, targets)
