"""Which points are worth measuring, the most valuable first. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hybridsim.cost.op import op_cost
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.graph import HEAD, MIXER
from hybridsim.measure.block import Block, model_blocks
from hybridsim.measure.point import DECODE, PASS_TOKENS, PREFILL, Point, pieces
from hybridsim.spec.schema import ModelSpec

SKEW = 1.0  # of the routing that is measured beside the uniform one
CONTEXTS = (4096, 16384, 65536, 262144, 1048576)
FINE_CONTEXTS = (1024, 2048, 8192, 32768, 131072, 524288)  # of the models that matter most
FEW_BATCHES, BATCHES = (1, 8, 32), (1, 2, 4, 8, 16, 32, 64, 128)
GROWING_BATCHES = (8, 32, 128)
SHORT_PROMPTS = ((32, 1024), (8, 4096), (2, 16384))  # sequences of one pass, and their tokens
USABLE_MEMORY = 0.92


@dataclass(frozen=True)
class Task:
    """A block to be timed at a point.

    Attributes:
        repeat: 0, or the number of an independent repetition, which shows how far times agree.
    """

    block: Block
    point: Point
    repeat: int = 0


def sweep_tasks(
    specs: Sequence[ModelSpec],
    fine: Sequence[ModelSpec],
    variants: Sequence[ModelSpec],
    dtypes: Dtypes,
    memory_bytes: float,
) -> list[Task]:
    """Return the tasks of a sweep: first what every profile asks for, then what refines it.

    Args:
        specs: whose blocks are measured.
        fine: of these, those with every power of two of contexts.
        variants: models with other head counts, of which only the mixers are new.
        dtypes: number formats.
        memory_bytes: of the device.
    """
    blocks = _distinct(specs)
    fine_blocks = set(_distinct(fine))
    others = [block for block in _distinct(variants) if block not in blocks]
    tiers = (
        [(b, core_points(b)) for b in blocks],
        [(b, fine_points(b)) for b in blocks if b in fine_blocks],
        [(b, batch_points(b, dtypes, memory_bytes)) for b in blocks],
        [(b, routing_points(b)) for b in blocks],
        [(b, core_points(b)) for b in others],
        [(b, long_points(b)) for b in blocks],
    )
    core, *finer = [[Task(b, p) for b, points in tier for p in points] for tier in tiers]
    again = [Task(block, point, 1) for block in blocks for point in core_points(block)[::3]]
    return list(dict.fromkeys([*core, *again, *(task for tier in finer for task in tier)]))


def _distinct(specs: Iterable[ModelSpec]) -> list[Block]:
    return list(dict.fromkeys(block for spec in specs for block in model_blocks(spec)))


def core_points(block: Block) -> list[Point]:
    """Return the points of one sequence, and of a few together where the context is no matter."""
    if block.kind == HEAD:
        return list(_decode(FEW_BATCHES, (0,)))
    prompts = [Point(PREFILL, 1, n) for n in (1024, *CONTEXTS) if n < PASS_TOKENS]
    prompts.append(Point(PREFILL, 1, PASS_TOKENS))
    if not block.grows:
        return _canonical(block, [*_decode(FEW_BATCHES, (block.window,)), *prompts])
    prompts += [Point(PREFILL, 1, n) for n in (65536, 262144)]
    return [*_decode((1,), (1024, *CONTEXTS)), *prompts]


def fine_points(block: Block) -> list[Point]:
    """Return every power of two from 1k to 1M that the core points leave out."""
    prompts = [Point(PREFILL, 1, n) for n in FINE_CONTEXTS if n <= PASS_TOKENS or block.grows]
    return _canonical(block, [*_decode((1,), FINE_CONTEXTS), *prompts])


def batch_points(block: Block, dtypes: Dtypes, memory_bytes: float) -> list[Point]:
    """Return decode steps of many sequences, and prompts that share a pass."""
    if not block.grows:
        points = list(_decode(BATCHES, (block.window,)))
    else:
        points = list(_decode(GROWING_BATCHES, (1024, *CONTEXTS)))
        points = [p for p in points if fits(block, p, dtypes, memory_bytes)]
        points += _largest(block, dtypes, memory_bytes)
    prompts = [Point(PREFILL, b, n) for b, n in SHORT_PROMPTS if block.kind == MIXER]
    prompts += [Point(PREFILL, 1, 8192)] if block.kind != HEAD else []
    return _canonical(block, [*points, *prompts])


def _largest(block: Block, dtypes: Dtypes, memory_bytes: float) -> list[Point]:
    """Return, for contexts at which the largest batch does not fit, the largest that does."""
    found = []
    for context in CONTEXTS:
        fitting = [
            b for b in BATCHES if fits(block, Point(DECODE, b, context), dtypes, memory_bytes)
        ]
        if fitting and fitting[-1] < BATCHES[-1]:
            found.append(Point(DECODE, fitting[-1], context))
    return found


def routing_points(block: Block) -> list[Point]:
    """Return points with skewed routing."""
    if not block.is_routed:
        return []
    prompts = [Point(PREFILL, 1, n, SKEW) for n in (4096, PASS_TOKENS)]
    return [*(Point(DECODE, b, 0, SKEW) for b in BATCHES[1:]), *prompts]


def long_points(block: Block) -> list[Point]:
    """Return the prompts of a million tokens that a block cannot take pass by pass."""
    return [Point(PREFILL, 1, CONTEXTS[-1])] if block.grows else []


def _decode(batches: Iterable[int], contexts: Iterable[int]) -> Iterator[Point]:
    contexts = tuple(contexts)
    return (Point(DECODE, batch, context) for batch in batches for context in contexts)


def _canonical(block: Block, points: Iterable[Point]) -> list[Point]:
    """Return the points that rows are kept for."""
    return list(dict.fromkeys(one for point in points for _, one in pieces(block, point)))


def needed_bytes(block: Block, point: Point, dtypes: Dtypes) -> float:
    """Return about how much memory a point needs: weights, cache, a prefill's activations."""
    ops = [(op_cost(op), n) for op, n in block.ops.items()]
    weights = bytes_of(block.parameters, dtypes.weights)
    tokens = point.step.total_tokens
    kept = sum(n * (c.cache(dtypes).kv_bytes(tokens) + c.cache(dtypes).state_bytes) for c, n in ops)
    widest = max(c.peak_elements_per_token for c, _ in ops)
    elements = point.tokens * (2 * block.hidden_size + widest)
    return weights + point.batch * kept + bytes_of(elements, dtypes.activations)


def fits(block: Block, point: Point, dtypes: Dtypes, memory_bytes: float) -> bool:
    """Return whether a device's memory holds a point; always where its size is not known (0)."""
    if not memory_bytes:
        return True
    return needed_bytes(block, point, dtypes) <= USABLE_MEMORY * memory_bytes
