"""Needles in a haystack."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import put, shuffled_groups, statement_starts

NEEDLE, ASK, FIRST_KEY = 1, 2, 3


@final
@dataclass(frozen=True)
class Needle(Task):
    """Keys with values of several tokens anywhere in noise; at the end some keys are asked for.

    A needle is NEEDLE, key, then `value_tokens` digits. A query is ASK, key, and the digits of the
    key's values in the order they stood in; every digit is a target, the first one where the key is
    read. The tokens but three are a third keys, a third digits, a third noise. Sweep `length`:
    the needles stay, the noise grows.

        ... NEEDLE k 7 1 ... NEEDLE m 3 3 ... ASK k 7    targets: 7 at the k, 1 at the last 7

    Source: RULER, arXiv 2404.06654 (c3f5e3b): single needles are the defaults; `num_keys` above
        `num_queries` gives multi-key, `num_values` multi-value, `num_queries` multi-query.
        There values have 7 digits and the haystack may be an essay; ours is random tokens.

    Attributes:
        num_keys: keys of the haystack.
        num_values: needles of each key.
        num_queries: keys that are asked for.
        value_tokens: digits of a value.
    """

    kind: ClassVar[str] = "needle"
    stresses: ClassVar[str] = "one association kept over a long distance, among what is not one"
    source: ClassVar[str] = "RULER, arXiv 2404.06654"

    vocab_size: int = 128
    length: int = 256
    num_keys: int = 1
    num_values: int = 1
    num_queries: int = 1
    value_tokens: int = 4

    def _check(self) -> None:
        require_at_least(
            1,
            num_keys=self.num_keys,
            num_values=self.num_values,
            num_queries=self.num_queries,
            value_tokens=self.value_tokens,
        )
        require_at_least(self.num_queries, num_keys=self.num_keys)
        require_at_least(FIRST_KEY + 3 * max(2, self.num_keys), vocab_size=self.vocab_size)
        require_at_least(self.needle_length + self.query_length, length=self.length)

    @property
    def num_symbols(self) -> int:
        """Tokens that are keys, and as many digits; the rest are noise."""
        return (self.vocab_size - FIRST_KEY) // 3

    @property
    def needle_length(self) -> int:
        """Tokens of all needles."""
        return self.num_keys * self.num_values * (2 + self.value_tokens)

    @property
    def query_length(self) -> int:
        """Tokens of all queries; the last digit of an answer is not read."""
        return self.num_queries * (1 + self.num_values * self.value_tokens)

    @property
    def chance(self) -> float:
        """One digit of all."""
        return 1 / self.num_symbols

    @property
    def guess(self) -> float:
        """One of the digits shown: the right place, or another with the same digit."""
        right = 1 / (self.num_keys * self.num_values * self.value_tokens)
        return right + (1 - right) / self.num_symbols

    @property
    def sequence_bits(self) -> float:
        noise = self.length - self.needle_length - self.query_length
        symbols = noise + self.num_keys * (self.num_values * self.value_tokens)
        return symbols * math.log2(self.num_symbols)

    def curriculum(self, progress: float) -> Needle:
        """Return a task of a quarter of the noise up to all."""
        least = self.needle_length + self.query_length
        return replace(self, length=eased(self.length, max(least, self.length // 4), progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        keys = FIRST_KEY + draws.distinct(self.num_keys, self.num_symbols)
        needles, first_digit = self.num_keys * self.num_values, FIRST_KEY + self.num_symbols
        digits = first_digit + draws.integers(self.num_symbols, needles, self.value_tokens)
        stack, first_noise = self.length - self.query_length, first_digit + self.num_symbols
        tokens, targets = blanks(draws, self.length)
        tokens[:, :stack] = first_noise + draws.integers(self.vocab_size - first_noise, stack)
        key, rank = shuffled_groups(draws, self.num_keys, self.num_values)
        starts = statement_starts(draws, needles, 2 + self.value_tokens, stack)
        order = (key * self.num_values + rank)[:, :, None].expand_as(digits)
        shown = digits.gather(1, order).unbind(dim=2)
        put(tokens, starts, torch.full_like(starts, NEEDLE), keys.gather(1, key), *shown)
        # Keys are in random order already: those asked for are the first.
        answers = digits.view(draws.count, self.num_keys, -1)[:, : self.num_queries]
        asked = keys[:, : self.num_queries, None]
        ask = torch.full_like(asked, ASK)
        tokens[:, stack:] = torch.cat([ask, asked, answers[:, :, :-1]], dim=2).flatten(1)
        nothing = torch.full_like(asked, IGNORED)
        targets[:, stack:] = torch.cat([nothing, answers], dim=2).flatten(1)
        return Batch(tokens, targets, targets)
