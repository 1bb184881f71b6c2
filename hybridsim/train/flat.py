"""Stacked parameters as one flat vector, so that a step over all of them is a few launches.

A row is what one model has of one parameter. Rows of one shape lie one under another, in a block:
[rows, *shape]. Blocks lie in the order of what a step does with them: hidden matrices, which Muon
is for; all else that decays; the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

MATRICES, DECAYED, REST = range(3)  # the parts of the vector
# Each part is a multiple of this many numbers. A CPU computes the last few of a vector apart, and
# rounds them otherwise: so these are padding, and what a model gets does not hang on its place.
ALIGNMENT = 64


def part_of(name: str, shape: Sequence[int]) -> int:
    """Return the part of the vector for a parameter [models, ...].

    Weight decay is for matrices, not for vectors; Muon for those between hidden layers.
    """
    if len(shape) < 3:
        return REST
    hidden = name.startswith("layers.") and not name.endswith("conv1d.weight")
    return MATRICES if hidden and len(shape) == 3 else DECAYED


@final
@dataclass
class Block:
    """Parameters of one shape.

    Attributes:
        part: of the vector.
        shape: of a row.
        names: the parameters.
        counts: rows of each.
        start: where the block begins.
    """

    part: int
    shape: tuple[int, ...]
    names: list[str]
    counts: list[int]
    start: int = 0

    @property
    def size(self) -> int:
        return sum(self.counts) * math.prod(self.shape)

    def of(self, flat: Tensor) -> Tensor:
        """Return the block [rows, *shape] of a vector, a view."""
        return flat[self.start : self.start + self.size].view(-1, *self.shape)


@final
class Layout:
    """Where stacked parameters are in a flat vector.

    Args:
        shapes: of the parameters, [models, ...] each.
        models_of: the models on each one's first axis.
        device: of what is indexed.
    """

    def __init__(
        self,
        shapes: Mapping[str, Sequence[int]],
        models_of: Mapping[str, Sequence[int]],
        device: torch.device,
    ) -> None:
        self.names = list(shapes)
        self.blocks = _blocks(shapes)
        self.ends: list[int] = []  # of the parts
        self._sizes: list[int] = []  # of the blocks, and of the padding behind each part
        self._place()
        self.size = self.ends[-1]
        models = [i for block in self.blocks for name in block.names for i in models_of[name]]
        self._index(models, device)

    def _place(self) -> None:
        at = 0
        for part in (MATRICES, DECAYED, REST):
            for block in self.blocks_of(part):
                block.start = at
                at += block.size
                self._sizes.append(block.size)
            self._sizes.append(-at % ALIGNMENT)
            at += self._sizes[-1]
            self.ends.append(at)

    def _index(self, models: list[int], device: torch.device) -> None:
        """Note which row each number is in, and the rows of each model."""
        row_of, row = torch.zeros(self.size, dtype=torch.int32), 0  # (padding: any row will do)
        for block in self.blocks:
            rows = torch.arange(row, row + sum(block.counts), dtype=torch.int32)
            block.of(row_of).copy_(rows.view(-1, *[1] * len(block.shape)))
            row += len(rows)
        model_of = torch.tensor(models)
        self.row_of, self.model_of = row_of.to(device), model_of.to(device)
        # (A model's rows keep their order: its norm is the same to the bit in any company.)
        self._by_model = model_of.argsort(stable=True).to(device)
        counts = torch.bincount(model_of)
        self._offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)]).to(device)

    def blocks_of(self, part: int) -> list[Block]:
        """Return the blocks in a part of the vector."""
        return [block for block in self.blocks if block.part == part]

    def packed(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return parameters as a new vector."""
        first = next(iter(tensors.values()))
        flat = first.new_zeros(self.size)
        for name, own in self.views(flat).items():
            own.copy_(tensors[name])
        return flat

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parameters in a vector.

        Their gradients come back as one: a concatenation for each block, and one of all blocks.
        (By block, because gradients that are transposed are then not copied one by one before.)
        """
        parts = iter(flat.split(self._sizes))
        found: dict[str, Tensor] = {}
        for part in (MATRICES, DECAYED, REST):
            for block in self.blocks_of(part):
                rows = next(parts).view(-1, *block.shape)
                found.update(zip(block.names, rows.split(block.counts), strict=True))
            next(parts)  # padding
        return {name: found[name] for name in self.names}

    def rows(self, values: Mapping[str, Sequence[float]]) -> Tensor:
        """Return numbers given for each parameter's models, [rows]."""
        found = [x for block in self.blocks for name in block.names for x in values[name]]
        return torch.tensor(found, device=self.model_of.device)

    def of_rows(self, per_model: Tensor) -> Tensor:
        """Return each row's number of numbers [models]."""
        return per_model.index_select(0, self.model_of)

    def spread(self, per_row: Tensor) -> Tensor:
        """Return numbers [rows] beside every number of a vector."""
        return per_row.index_select(0, self.row_of)

    def norms(self, flat: Tensor) -> Tensor:
        """Return each model's norm, [models]; one that is not finite harms no other."""
        squares = flat.square()
        sums = torch.cat([block.of(squares).flatten(1).sum(1) for block in self.blocks])
        own = sums.index_select(0, self._by_model)
        # (Unsafe: offsets are not checked, which would wait for the device.)
        total: Tensor = torch.segment_reduce(own, "sum", offsets=self._offsets, unsafe=True)
        return total.sqrt()


def _blocks(shapes: Mapping[str, Sequence[int]]) -> list[Block]:
    """Return the blocks in an order that is a model's own, whatever company it is in."""
    found: dict[tuple[int, tuple[int, ...]], Block] = {}
    for name, (count, *shape) in shapes.items():
        key = part_of(name, shapes[name]), tuple(shape)
        block = found.setdefault(key, Block(*key, [], []))
        block.names.append(name)
        block.counts.append(count)
    return [found[key] for key in sorted(found)]
