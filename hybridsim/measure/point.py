"""Where a block is timed: phase, sequences, context, routing, formats. No torch.

A pass of a whole model takes at most PASS_TOKENS tokens of all sequences together, as an engine
that cuts long prompts into chunks does: sequences that are shorter go together, longer ones alone
and piece by piece. So what costs the same at every position (feed-forwards, recurrent and windowed
mixers) needs rows up to that many tokens only, and a prefill of a million is so many passes. Mixers
that look back without an end are timed over the whole context.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import op_time
from hybridsim.dtypes import Dtypes
from hybridsim.graph import HEAD, MIXER
from hybridsim.hardware import Hardware
from hybridsim.measure.block import Block
from hybridsim.steps import Step

PREFILL, DECODE = PHASES = ("prefill", "decode")
PASS_TOKENS = 32768  # of all sequences, in one pass of a prefill
LAUNCH_S = 2e-6  # of one op, in the shape of a time between rows


@dataclass(frozen=True, order=True)
class Point:
    """One thing to time.

    Attributes:
        phase: "prefill" or "decode".
        batch: sequences.
        context: prefill: tokens of each sequence; decode: tokens in the cache before the step, 0
            where they make no difference.
        skew: Zipf exponent of the experts' popularity; 0 is uniform, and where none are chosen.
    """

    phase: str
    batch: int
    context: int
    skew: float = 0.0

    @property
    def tokens(self) -> int:
        """New tokens of all sequences."""
        return self.batch * (self.context if self.phase == PREFILL else 1)

    @property
    def step(self) -> Step:
        """The step of one sequence; a state was there before a decode step."""
        if self.phase == PREFILL:
            return Step(self.context)
        return Step(1, max(self.context, 1))


def pieces(block: Block, asked: Point) -> list[tuple[int, Point]]:
    """Return the points whose times, each so often, add up to that of the block at a point."""
    skew = asked.skew if block.is_routed else 0.0
    if block.kind == HEAD:
        return [(1, Point(DECODE, asked.batch, 0))]
    if asked.phase == DECODE:
        context = asked.context if block.grows else min(asked.context, block.window)
        return [(1, _routed(Point(DECODE, asked.batch, context, skew)))]
    if block.kind != MIXER:
        return _passes(1, asked.batch * asked.context, skew)
    if asked.context <= PASS_TOKENS:
        together = PASS_TOKENS // asked.context
        groups = [(asked.batch // together, together), (1, asked.batch % together)]
        return [(n, Point(PREFILL, b, asked.context)) for n, b in groups if n and b]
    if block.grows:
        return [(asked.batch, Point(PREFILL, 1, asked.context))]
    return _passes(asked.batch, asked.context, 0.0)


def _passes(times: int, tokens: int, skew: float) -> list[tuple[int, Point]]:
    """Return `times` runs over `tokens` in passes of one sequence."""
    parts = [(times * (tokens // PASS_TOKENS), PASS_TOKENS), (times, tokens % PASS_TOKENS)]
    return [(n, _routed(Point(PREFILL, 1, size, skew))) for n, size in parts if n and size]


def _routed(point: Point) -> Point:
    """Return the point without a skew where it makes no difference: one token's experts differ."""
    return replace(point, skew=0.0) if point.tokens == 1 else point


def key_dtypes(block: Block, dtypes: Dtypes) -> str:
    """Return the formats that matter to a block, as rows are keyed by them."""
    parts = [dtypes.weights, dtypes.activations]
    if block.grows or block.window:
        parts.append(f"kv {dtypes.kv}")
    if block.has_state:
        parts.append(f"state {dtypes.state}")
    return " ".join(parts)


@dataclass(frozen=True)
class Ceilings:
    """What a device was seen to reach.

    Attributes:
        flops_per_s: of a large matrix product, by format.
        bytes_per_s: of a large copy, read and written bytes together, or read, whichever is larger.
    """

    flops_per_s: Mapping[str, float]
    bytes_per_s: float

    def hardware(self) -> Hardware:
        """Return a device with these rates."""
        return Hardware(
            name="measured",
            title="measured",
            peak_flops=dict(self.flops_per_s),
            memory_bytes=1.0,
            bandwidth_bytes_per_s=self.bytes_per_s,
        )


@dataclass(frozen=True)
class Work:
    """A block's work at a point and the least time for it on a device."""

    flops: float
    moved_bytes: float
    bound_s: float
    num_ops: int

    @property
    def shape_s(self) -> float:
        """A time that grows as the real one does: launches, and work at the device's rates."""
        return self.num_ops * LAUNCH_S + self.bound_s


class Model:
    """The closed form of blocks' times on a device: launch + work / rate.

    Args:
        hardware: rates, nominal or measured.
        dtypes: number formats.
    """

    def __init__(self, hardware: Hardware, dtypes: Dtypes) -> None:
        self.hardware = hardware
        self.dtypes = dtypes
        self.work = lru_cache(maxsize=65536)(self._work)

    def _work(self, block: Block, point: Point) -> Work:
        deployment = Deployment(self.dtypes, SERVED, point.skew)
        times = [
            (n, op_time(op, point.step, point.batch, deployment, self.hardware))
            for op, n in block.ops.items()
        ]
        return Work(
            flops=sum(n * t.flops for n, t in times),
            moved_bytes=sum(n * t.moved_bytes for n, t in times),
            bound_s=sum(n * t.latency_s for n, t in times),
            num_ops=sum(block.ops.values()),
        )
