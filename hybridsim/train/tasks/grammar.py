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
AGREEING = 3  # one word of so many takes its ending from the phrase


@final
@dataclass(frozen=True)
class GrammarModelling(Task):
    """The next token of a made language: words with endings, in nested phrases of several types.

    All is pairs of tokens. OPEN type begins a phrase and CLOSE type ends it, with equal odds, and a
    phrase begins where none is open; the second bracket closes the first. Inside phrases, up to
    `max_words` words follow a bracket, each with an ending that is one of the types again.

    - A word is drawn by Zipf's law, in an order of frequency that its phrase's type sets.
    - The ending of two words of three is the word's class: local, to be learnt by heart.
    - The ending of the third is the type of the innermost open phrase.
    - The type that closes is that of the phrase closed, however long ago it was opened: depth is
      the absolute value of a random walk, and the odds that a phrase outlasts n brackets fall as
      n^(-1/2).

        OPEN a  dog b  OPEN c  this c  CLOSE c  this a  CLOSE a     scored: b, c, c, a, a

    Every next token is a target. Scored are the endings and the types that close, all that the past
    decides: mostly local, as in a text. The loss is over all, as language modelling has it.

    Source: ours. Brackets of several types are Dyck languages (Hewitt et al., arXiv 2010.07515).

    Attributes:
        num_types: types of phrases, and of endings.
        max_words: most words behind a bracket; every number up to it is equally likely.
        language_seed: which words a type prefers.
    """

    kind: ClassVar[str] = "grammar"
    stresses: ClassVar[str] = "language modelling: local statistics, and nested agreement"
    source: ClassVar[str] = "hybridsim, after Dyck languages (arXiv 2010.07515)"

    vocab_size: int = 128
    length: int = 256
    num_types: int = 8
    max_words: int = 3
    language_seed: int = 0

    def _check(self) -> None:
        require_at_least(2, num_types=self.num_types)
        require_at_least(0, max_words=self.max_words, language_seed=self.language_seed)
        require_at_least(FIRST_TYPE + 2 * self.num_types, vocab_size=self.vocab_size)
        require_at_least(4 + 2 * self.max_words, length=self.length)

    @property
    def class_size(self) -> int:
        """Words of a class; there are as many classes as types."""
        return (self.vocab_size - FIRST_TYPE - self.num_types) // self.num_types

    @property
    def chance(self) -> float:
        """One type of all: types, classes and endings are equally frequent."""
        return 1 / self.num_types

    @property
    def sequence_bits(self) -> float:
        """Of all pairs of tokens but one, each at its most predictable."""
        weights = _zipf(self.num_types * self.class_size)
        same_word = sum(w**2 for w in weights) / sum(weights) ** 2
        same_bracket = (1 + 1 / self.num_types) / 4  # to open, with its type, or to close
        same = max(same_word, same_bracket, 1 / self.num_types)
        return -(self.length // 2 - 1) * math.log2(same)

    def curriculum(self, progress: float) -> GrammarModelling:
        """Return a task of a quarter of the length up to all."""
        least = max(4 + 2 * self.max_words, self.length // 4)
        return replace(self, length=eased(self.length, least, progress))

    def _generate(self, draws: Draws, split: Split) -> Batch:
        places = self.length + 1  # the last token is only a target
        brackets = -(-places // 2)
        is_open, types, topics = self._phrases(draws, brackets)
        words = draws.integers(self.max_words + 1, brackets).where(topics < self.num_types, 0)
        bracket, offset = _split_places(2 + 2 * words, places)
        verbs = torch.where(is_open, OPEN, CLOSE).gather(1, bracket)
        named = (FIRST_TYPE + types).gather(1, bracket)
        stems, endings = self._words(draws, topics.gather(1, bracket))
        heads = torch.where(offset == 0, verbs, stems)
        tails = torch.where(offset == 1, named, endings)
        text = torch.where(offset % 2 == 0, heads, tails)
        tokens, targets = text[:, :-1], text[:, 1:]
        is_decided = (offset[:, :-1] % 2 == 0) & (tokens != OPEN)
        return Batch(tokens, targets, targets.where(is_decided, IGNORED))

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

    def _words(self, draws: Draws, topics: Tensor) -> tuple[Tensor, Tensor]:
        """Return the word that would stand at each place, and the ending of the one before it."""
        size, count = self.class_size, self.num_types
        by_rank = _words_by_rank(self.language_seed, count, size, draws.device)
        ranks = draws.choices(_zipf(count * size), topics.shape[1])
        words = by_rank[topics.clamp(max=count - 1), ranks]
        is_agreeing = words % size % AGREEING == AGREEING - 1
        endings = FIRST_TYPE + torch.where(is_agreeing, topics, words // size)
        return FIRST_TYPE + count + words, endings.roll(1, dims=1)


def _zipf(count: int) -> tuple[float, ...]:
    return tuple(1 / rank for rank in range(1, count + 1))


def _split_places(sizes: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return for each place which piece it lies in and how far, pieces having sizes [B, N]."""
    starts = sizes.cumsum(dim=1) - sizes
    marks = torch.zeros((sizes.shape[0], length + 1), dtype=sizes.dtype, device=sizes.device)
    marks.scatter_(1, starts.clamp(max=length), 1)
    piece = marks[:, :length].cumsum(dim=1) - 1
    offset = torch.arange(length, device=sizes.device) - starts.gather(1, piece)
    return piece, offset


@lru_cache(maxsize=8)
def _words_by_rank(seed: int, num_types: int, class_size: int, device: torch.device) -> Tensor:
    """Return each type's words by frequency, [types, W]; word w has class w // class_size.

    Types are alike but for a turn of the classes: rank r of type t is a word of class t + r, and
    which one depends on r alone. So over all types every ending is equally frequent.
    """
    path = ("grammar", seed, num_types, class_size)
    orders = Draws(path, 0, num_types, device).permutation(class_size)
    ranks = torch.arange(num_types * class_size, device=device)
    types = torch.arange(num_types, device=device)[:, None]
    classes = (types + ranks) % num_types
    return classes * class_size + orders[ranks % num_types, ranks // num_types]
