"""Language modelling on a stochastic grammar with dependencies of any length."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import ClassVar, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task, eased
from hybridsim.train.tasks.draws import Draws
from hybridsim.train.tasks.layout import last_marked

OPEN, CLOSE, FIRST_TYPE = 1, 2, 3
FOLLOWED = 0.5  # how often the second word of two is the one that follows the first


@final
@dataclass(frozen=True)
class GrammarModelling(Task):
    """The next token of a made language: nested phrases of several types, with words in them.

    A bracket is two tokens, OPEN or CLOSE and a type, and up to `max_words` words follow it.
    Brackets open or close with equal odds, and open where nothing is open; the second one closes
    the first. An opening type is drawn with replacement; a closing one is that of the phrase it
    closes, however long ago it was opened: the depth is the absolute value of a random walk, and
    the odds that a phrase is longer than n brackets fall as n^(-1/2). Words are drawn by Zipf's
    law, in an order of frequency that the innermost open phrase sets; the second of two words is,
    half the time, the one that follows the first in a fixed cycle.

        OPEN a w w OPEN b w CLOSE b w w w CLOSE a w    scored: b and a, where the CLOSE before is
        read

    Every next token is a target. Scored are the types that close, the only ones that the past
    decides; the loss is over all, as language modelling has it.

    Source: ours. Brackets of several types are Dyck languages (Hewitt et al., arXiv 2010.07515),
        words given a topic and a word before are what n-grams see of a text.

    Attributes:
        num_types: types of phrases.
        max_words: most words behind a bracket; every number up to it is equally likely.
        language_seed: which words a type prefers, and which follows which.
    """

    kind: ClassVar[str] = "grammar"
    stresses: ClassVar[str] = "language modelling: local statistics and nested agreement"
    source: ClassVar[str] = "hybridsim, after Dyck languages (arXiv 2010.07515)"

    vocab_size: int = 128
    length: int = 256
    num_types: int = 8
    max_words: int = 4
    language_seed: int = 0

    def _check(self) -> None:
        require_at_least(2, num_types=self.num_types)
        require_at_least(0, max_words=self.max_words, language_seed=self.language_seed)
        require_at_least(FIRST_TYPE + self.num_types + 2, vocab_size=self.vocab_size)
        require_at_least(4 + self.max_words, length=self.length)

    @property
    def num_words(self) -> int:
        """Tokens that are words."""
        return self.vocab_size - FIRST_TYPE - self.num_types

    @property
    def chance(self) -> float:
        """One type of all."""
        return 1 / self.num_types

    @property
    def sequence_bits(self) -> float:
        # At least so many brackets are whole; half of them at least open.
        fewest = self.length // (2 + self.max_words)
        return fewest * (math.log2(self.max_words + 1) + math.log2(self.num_types) / 2)

    def curriculum(self, progress: float) -> GrammarModelling:
        """Return a task of a quarter of the length up to all."""
        least = max(4 + self.max_words, self.length // 4)
        return replace(self, length=eased(self.length, least, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        places = self.length + 1  # the last token is only a target
        brackets = -(-places // 2)
        is_open, types, topics = self._phrases(draws, brackets)
        sizes = 2 + draws.integers(self.max_words + 1, brackets)
        bracket, offset = _split_places(sizes, places)
        words = self._words(draws, topics.gather(1, bracket), offset)
        verbs = torch.where(is_open, OPEN, CLOSE).gather(1, bracket)
        named = (FIRST_TYPE + types).gather(1, bracket)
        text = torch.where(offset == 0, verbs, torch.where(offset == 1, named, words))
        tokens, targets = text[:, :-1], text[:, 1:]
        return Batch(tokens, targets, targets.where(tokens == CLOSE, IGNORED))

    def _phrases(self, draws: Draws, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return for each bracket whether it opens, its type, and the innermost type behind it.

        `num_types` stands for no open phrase. [B, N] each.
        """
        steps = torch.where(draws.coins(0.5, count), 1, -1)
        steps[:, 1] = -steps[:, 0]
        walk = steps.cumsum(dim=1)
        depths = walk.abs()
        is_open = depths > (walk - steps).abs()
        drawn = draws.integers(self.num_types, count)
        opener = last_marked(depths, is_open)
        topics = drawn.gather(1, opener.clamp(min=0)).where(depths > 0, self.num_types)
        types = drawn.clone()
        types[:, 1:] = torch.where(is_open[:, 1:], drawn[:, 1:], topics[:, :-1])
        return is_open, types, topics

    def _words(self, draws: Draws, topics: Tensor, offset: Tensor) -> Tensor:
        """Return the word that each place would hold, [B, T]."""
        by_rank, follower = _language(
            self.language_seed, self.num_types, self.num_words, draws.device
        )
        ranks = draws.choices([1 / (rank + 1) for rank in range(self.num_words)], offset.shape[1])
        words = by_rank[topics, ranks]
        # The second of each two words behind a bracket may follow the first.
        follows = follower[words[:, :-1]]
        is_second = (offset[:, 1:] >= 3) & (offset[:, 1:] % 2 == 1)
        is_follower = is_second & draws.coins(FOLLOWED, offset.shape[1] - 1)
        second = torch.where(is_follower, follows, words[:, 1:])
        words = torch.cat([words[:, :1], second], dim=1)
        return FIRST_TYPE + self.num_types + words


def _split_places(sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return for each place which piece it lies in and how far, pieces having sizes [B, N]."""
    starts = sizes.cumsum(dim=1) - sizes
    marks = torch.zeros((sizes.shape[0], length + 1), dtype=sizes.dtype, device=sizes.device)
    marks.scatter_(1, starts.clamp(max=length), 1)
    piece = marks[:, :length].cumsum(dim=1) - 1
    offset = torch.arange(length, device=sizes.device) - starts.gather(1, piece)
    return piece, offset


@lru_cache(maxsize=8)
def _language(
    seed: int, num_types: int, num_words: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return words by frequency for each type and for none, [types + 1, W], and followers [W]."""
    draws = Draws(("grammar", seed, num_words), 0, num_types + 2, device)
    orders = draws.permutation(num_words)
    cycle, follower = orders[-1], torch.empty_like(orders[-1])
    follower[cycle] = cycle.roll(-1)
    return orders[:-1], follower
