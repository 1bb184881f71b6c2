"""Pointers followed several hops."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar, final

import torch
from torch import Tensor

from hybridsim.components import require_at_least
from hybridsim.errors import bad_value
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task, blanks, eased
from hybridsim.train.tasks.draws import Draws

MAX_NAMES = 1 << 16


@final
@dataclass(frozen=True)
class PointerChase(Task):
    """The edges of one directed cycle in random order, then: where does one get from here in k
    hops?

    Nodes are named by `name_tokens` tokens of [1, M]. An edge is two names; a query is the mark of
    k hops (token M + k), a name, and the answer's name, of which every token is a target. k is
    drawn from [min_hops, max_hops]; k = 1 is plain recall.

        M=5, max_hops=2:   4 2 | 1 4 | 2 5 | 5 1 | 7 1 2 | 6 5 1    targets: 2 at the 1, 1 at the 5

    Source: Depo, Physics of Language Models 4.1 (zhuzeyuan/PhysicsLM4 211b28f): cycles of 75 to 375
        nodes, 8 or 16 hops, names of 1 to 2 of 50 tokens or 5 to 7 of 3, the number of nodes drawn
        anew. Here sizes are fixed, so that difficulty is a setting, and small by default.

    Attributes:
        num_nodes: nodes of the cycle.
        min_hops: fewest hops asked for.
        max_hops: most hops asked for.
        num_queries: queries.
        name_vocab_size: tokens M of names.
        name_tokens: tokens of a name.
    """

    kind: ClassVar[str] = "pointer_chase"
    stresses: ClassVar[str] = "several steps of recall, one on the result of another: depth"
    source: ClassVar[str] = "Depo, Physics of Language Models 4.1"

    vocab_size: int = 64
    length: int = 64
    num_nodes: int = 16
    min_hops: int = 1
    max_hops: int = 4
    num_queries: int = 8
    name_vocab_size: int = 48
    name_tokens: int = 1

    def _check(self) -> None:
        require_at_least(2, num_nodes=self.num_nodes, name_vocab_size=self.name_vocab_size)
        require_at_least(
            1,
            min_hops=self.min_hops,
            num_queries=self.num_queries,
            name_tokens=self.name_tokens,
        )
        require_at_least(self.min_hops, max_hops=self.max_hops)
        require_at_least(1 + self.name_vocab_size + self.max_hops, vocab_size=self.vocab_size)
        names = self.name_vocab_size**self.name_tokens
        if names > MAX_NAMES:
            raise bad_value(
                "name_tokens", self.name_tokens, f"{names} names; at most {MAX_NAMES} can be drawn"
            )
        if self.num_nodes > names:
            raise bad_value("num_nodes", self.num_nodes, f"must be at most {names}, the names")
        require_at_least(self.used_length, length=self.length)

    @property
    def used_length(self) -> int:
        """Tokens of edges and queries."""
        return 2 * self.num_nodes * self.name_tokens + self.num_queries * (2 * self.name_tokens + 1)

    @property
    def chance(self) -> float:
        """One token of all that names are made of."""
        return 1 / self.name_vocab_size

    @property
    def guess(self) -> float:
        """One of the nodes shown, where a name is one token; else `chance`."""
        return 1 / self.num_nodes if self.name_tokens == 1 else self.chance

    @property
    def sequence_bits(self) -> float:
        names = math.perm(self.name_vocab_size**self.name_tokens, self.num_nodes)
        return math.log2(names) + math.log2(math.factorial(self.num_nodes - 1))

    def curriculum(self, progress: float) -> PointerChase:
        """Return a task of one hop up to all."""
        hops = eased(self.max_hops, 1, progress)
        return replace(self, min_hops=min(self.min_hops, hops), max_hops=hops)

    def _generate(self, draws: Draws, split: Split) -> Batch:
        n, w, asked = self.num_nodes, self.name_tokens, self.num_queries
        names = self._spelled(draws.distinct(n, self.name_vocab_size**w))
        order = draws.permutation(n)
        edges = torch.stack([order, (order + 1) % n], dim=2).flatten(1)
        hops = self.min_hops + draws.integers(self.max_hops - self.min_hops + 1, asked)
        starts = draws.integers(n, asked)
        query = _named(names, starts).unflatten(1, (asked, w))
        answer = _named(names, (starts + hops) % n).unflatten(1, (asked, w))
        marks = self.name_vocab_size + hops[:, :, None]
        said = torch.full_like(marks, IGNORED).expand(-1, -1, w)
        tokens, targets = blanks(draws, self.length)
        tokens[:, : 2 * n * w] = _named(names, edges)
        asking = torch.cat([marks, query, answer], dim=2).flatten(1)
        tokens[:, 2 * n * w : self.used_length] = asking
        # The answer's first token is the output where the query's last one is read.
        wanted = torch.cat([said, answer, said[:, :, :1]], dim=2).flatten(1)
        targets[:, 2 * n * w : self.used_length] = wanted
        return Batch(tokens, targets, targets)

    def _spelled(self, numbers: Tensor) -> Tensor:
        """Return the tokens of each node's name, [B, N, name_tokens]."""
        size = self.name_vocab_size
        digits = [numbers // size**i % size for i in range(self.name_tokens)]
        return 1 + torch.stack(digits, dim=2)


def _named(names: Tensor, nodes: Tensor) -> Tensor:
    """Return the names of nodes [B, M] one behind the other, [B, M * name_tokens]."""
    places = nodes[:, :, None].expand(-1, -1, names.shape[2])
    return names.gather(1, places).flatten(1)
