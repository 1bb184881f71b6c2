"""Before anything is timed: the kernels of all planned points, compiled side by side.

A block's first step at a kind of point compiles its kernels, and flash-linear-attention's tries up
to forty configurations of each: minutes of a GPU that waits. Here the steps are traced on the meta
device, and many processes compile what they would launch (kernels/ahead.py). Which configuration is
taken is decided later, on the device, at a prompt of full length (`tune`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import torch
from torch import nn

from hybridsim import kernels
from hybridsim.dtypes import Dtypes
from hybridsim.kernels import ahead, tuning
from hybridsim.measure.block import Block
from hybridsim.measure.plan import Task
from hybridsim.measure.point import PASS_TOKENS, PREFILL, Point
from hybridsim.measure.subject import build_block, make_subject


def representatives(tasks: Iterable[Task]) -> dict[Block, list[Point]]:
    """Return points whose kernels are those of all tasks, by block.

    Of each block, phase and batch the shortest context and the longest: what lies between cuts its
    work as one of them.
    """
    groups: dict[tuple[Block, str, int], list[Point]] = {}
    for task in tasks:
        key = (task.block, task.point.phase, task.point.batch)
        groups.setdefault(key, []).append(task.point)
    found: dict[Block, list[Point]] = {}
    for (block, *_), points in groups.items():
        ordered = sorted(points, key=lambda point: point.context)
        found.setdefault(block, []).extend(dict.fromkeys((ordered[0], ordered[-1])))
    return found


def trace(points: dict[Block, list[Point]], dtypes: Dtypes) -> None:
    """Run every block at its points on the meta device."""
    for block, wanted in points.items():
        module = build_block(block, "meta", dtypes.weights)
        for point in wanted:
            # No shape function, or what Triton cannot write down: compiled at its first use.
            with suppress(RuntimeError, NotImplementedError, TypeError, ValueError):
                make_subject(module, block, point, fp8_cache=dtypes.kv == "fp8").run()


def warm_up(
    tasks: Sequence[Task],
    dtypes: Dtypes,
    told: Callable[[int, int], None] = lambda compiled, known: None,
) -> tuple[int, int]:
    """Compile the kernels of these tasks; return how many were, of how many.

    Does nothing where there is no Triton. Later uses in this process then tune briefly, and compile
    what is left in threads.

    Args:
        tasks: what will be timed.
        dtypes: number formats.
        told: called with the numbers so far; from other threads.
    """
    if not kernels.available() or not tasks:
        return 0, 0
    tuning.compile_side_by_side()
    tuning.tune_briefly()
    points = representatives(tasks)
    return ahead.compile_all(lambda: trace(points, dtypes), ahead.num_workers(), told)


def tune(module: nn.Module, block: Block) -> None:
    """Run a prompt of full length once, so that kernels are tuned for work, not for launches.

    Only recurrent mixers have kernels that tune themselves, once for all lengths: at whichever they
    meet first. Where such a prompt does not fit, that is a shorter one.
    """
    if not block.has_state:
        return
    try:
        make_subject(module, block, Point(PREFILL, 1, PASS_TOKENS)).run()
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
