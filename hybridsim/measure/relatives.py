"""Blocks that differ in numbers of heads alone, and times between them. No torch."""

from __future__ import annotations

import json
from collections.abc import Mapping

from hybridsim.measure.block import Block
from hybridsim.measure.surface import Surface, Value

HEAD_COUNTS = ("num_heads", "num_kv_heads", "num_v_heads", "index_num_heads")
WORK_UNIT_S = 1e-9


def kinship(block: Block) -> str | None:
    """Return what relatives have in common: everything but heads; None for a block without."""
    branches = block.description.get("branches", [])
    if not any(count in branch for branch in branches for count in HEAD_COUNTS):
        return None
    others = [{k: v for k, v in branch.items() if k not in HEAD_COUNTS} for branch in branches]
    return json.dumps(block.description | {"branches": others}, sort_keys=True)


def between(relatives: Mapping[float, Value], work_s: float) -> Value:
    """Return the time of a block from its relatives' at the same point.

    As between the rows of one block: launch + work / rate between two of them, bounded growth
    outside, in proportion to the work from a single one.

    Args:
        relatives: their times by the closed form of each.
        work_s: the closed form of the block.
    """
    sizes = {_size(work): value for work, value in relatives.items()}
    times = {(1, size): value.latency_s for size, value in sizes.items()}
    found = Surface(times, lambda _, size: size * WORK_UNIT_S).at(1, _size(work_s))
    furthest = max(value.octaves for value in sizes.values())
    return Value(found.latency_s, found.octaves + furthest)


def _size(work_s: float) -> int:
    return max(1, round(work_s / WORK_UNIT_S))
