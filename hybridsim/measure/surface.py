"""A block's time over batch and context, from a few measured ones: monotone and exact at them.

Between neighbouring rows a time is launch + work / rate, with the launch and the rate that the
rows give: it moves from one to the other as the closed form does (`Model.work`). Over both axes at
once that is a bilinear form in two coordinates, one of the batch and one of the context, so that a
time that falls neither along rows nor along columns of the grid falls nowhere. No torch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2, sqrt

Shape = Callable[[int, int], float]
# Beyond the rows a time grows at the rate of the outermost two, within these powers of the work.
SLOWEST_GROWTH, FASTEST_GROWTH = 0.5, 1.5


@dataclass(frozen=True)
class Value:
    """A time on a surface.

    Attributes:
        latency_s: the time.
        octaves: how far outside the rows, in factors of two of batch and context; 0 between them.
    """

    latency_s: float
    octaves: float


def octaves_between(a: int, b: int) -> float:
    """Return the distance of two sizes in factors of two."""
    return abs(log2(max(a, 1) / max(b, 1)))


class Axis:
    """One axis of the grid: the sizes that have rows, and the closed form along it.

    Args:
        sizes: ascending.
        shape: the closed form of a size, the other axis fixed.
    """

    def __init__(self, sizes: Sequence[int], shape: Callable[[int], float]) -> None:
        self.sizes = list(sizes)
        self.shape = shape
        self.shapes = [shape(size) for size in sizes]

    def clamped(self, size: int) -> int:
        """Return the nearest size within the rows'."""
        return min(max(size, self.sizes[0]), self.sizes[-1])

    def cell(self, size: int) -> tuple[int, int, float]:
        """Return the two nodes next to a size, and its place: 0 at the first, 1 at the second.

        Outside the rows the outermost two, and a place below 0 or above 1.
        """
        if len(self.sizes) == 1:
            return 0, 0, 0.0
        low = min(max(bisect_right(self.sizes, size) - 1, 0), len(self.sizes) - 2)
        return low, low + 1, self.place(size, low, low + 1)

    def place(self, size: int, low: int, high: int) -> float:
        """Return where the closed form of a size stands between those of two nodes."""
        width = self.shapes[high] - self.shapes[low]
        if width > 1e-6 * self.shapes[low]:
            return (self.shape(size) - self.shapes[low]) / width
        # The closed form sees no difference: evenly in factors of two.
        first, last, here = (log2(max(n, 1)) for n in (self.sizes[low], self.sizes[high], size))
        return (here - first) / (last - first) if last > first else 0.0

    def between(self, values: Sequence[float], size: int) -> float:
        """Return the value at a size from those at the nodes, linear in the closed form."""
        low, high, place = self.cell(size)
        return (1 - place) * values[low] + place * values[high]


class Surface:
    """Times of one block and phase.

    Args:
        times: seconds by (batch, context); at least one.
        shape: the closed form of (batch, context) in seconds, which never falls along either.
    """

    def __init__(self, times: Mapping[tuple[int, int], float], shape: Shape) -> None:
        self.times = dict(times)
        self.shape = shape
        batches, contexts = (sorted({key[i] for key in times}) for i in (0, 1))
        middle = contexts[len(contexts) // 2]
        self.batches = Axis(batches, lambda batch: shape(batch, middle))
        self.contexts = Axis(contexts, lambda context: shape(batches[0], context))
        self._fill()

    def _fill(self) -> None:
        """Give every node of the grid a time that falls along neither axis."""
        grid = [[self._node(b, c) for c in self.contexts.sizes] for b in self.batches.sizes]
        self._octaves = [[node.octaves for node in row] for row in grid]
        self._grid = monotone([[node.latency_s for node in row] for row in grid])

    def _node(self, batch: int, context: int) -> Value:
        found = self.times.get((batch, context))
        if found is not None:
            return Value(found, 0.0)
        between = [
            self._between(
                self.contexts, {c: t for (b, c), t in self.times.items() if b == batch}, context
            ),
            self._between(
                self.batches, {b: t for (b, c), t in self.times.items() if c == context}, batch
            ),
        ]
        known = [value for value in between if value is not None]
        value = Value(sum(known) / len(known), 0.0) if known else self._from_nearest(batch, context)
        lowest = max(self._rows(lambda b, c: b <= batch and c <= context), default=0.0)
        highest = min(self._rows(lambda b, c: b >= batch and c >= context), default=float("inf"))
        return Value(max(lowest, min(value.latency_s, highest)), value.octaves)

    def _rows(self, chosen: Callable[[int, int], bool]) -> list[float]:
        return [time for key, time in self.times.items() if chosen(*key)]

    @staticmethod
    def _between(axis: Axis, line: Mapping[int, float], size: int) -> float | None:
        """Return the time between the neighbours on a line of the grid, None without two."""
        below = max((n for n in line if n < size), default=None)
        above = min((n for n in line if n > size), default=None)
        if below is None or above is None:
            return None
        place = axis.place(size, axis.sizes.index(below), axis.sizes.index(above))
        return (1 - place) * line[below] + place * line[above]

    def _from_nearest(self, batch: int, context: int) -> Value:
        """Return the time of the nearest row times the ratio of the closed forms."""

        def distance(key: tuple[int, int]) -> float:
            return octaves_between(batch, key[0]) + octaves_between(context, key[1])

        nearest = min(sorted(self.times), key=distance)
        ratio = self.shape(batch, context) / self.shape(*nearest)
        return Value(self.times[nearest] * ratio, distance(nearest))

    def at(self, batch: int, context: int) -> Value:
        """Return the time at a point, measured or not."""
        b, c = self.batches.clamped(batch), self.contexts.clamped(context)
        latency_s = self._bilinear(b, c)
        if c != context:
            latency_s = self._beyond_contexts(b, context)
        if b != batch:
            # Far in both ways: as much more as each way by itself.
            latency_s *= self._beyond_batches(batch, c) / self._bilinear(b, c)
        octaves = octaves_between(batch, b) + octaves_between(context, c)
        return Value(latency_s, octaves + self._octaves_inside(b, c))

    def _beyond_contexts(self, batch: int, context: int) -> float:
        """Return the time at a context outside the rows', between the batches of the grid there."""
        edge = self.contexts.clamped(context)
        column = [
            beyond(self.contexts, row, context, self.shape(b, context) / self.shape(b, edge))
            for b, row in zip(self.batches.sizes, self._grid, strict=True)
        ]
        return self.batches.between(monotone([column])[0], batch)

    def _beyond_batches(self, batch: int, context: int) -> float:
        """Return the time at a batch outside the rows', between the contexts of the grid there."""
        edge = self.batches.clamped(batch)
        row = [
            beyond(self.batches, column, batch, self.shape(batch, c) / self.shape(edge, c))
            for c, column in zip(self.contexts.sizes, zip(*self._grid, strict=True), strict=True)
        ]
        return self.contexts.between(monotone([row])[0], context)

    def _octaves_inside(self, batch: int, context: int) -> float:
        corners = self._corners(batch, context)
        return max(self._octaves[i][k] for i, k, weight in corners if weight)

    def _bilinear(self, batch: int, context: int) -> float:
        return sum(weight * self._grid[i][k] for i, k, weight in self._corners(batch, context))

    def _corners(self, batch: int, context: int) -> list[tuple[int, int, float]]:
        i0, i1, u = self.batches.cell(batch)
        k0, k1, w = self.contexts.cell(context)
        return [
            (i0, k0, (1 - u) * (1 - w)),
            (i0, k1, (1 - u) * w),
            (i1, k0, u * (1 - w)),
            (i1, k1, u * w),
        ]


def beyond(axis: Axis, values: Sequence[float], size: int, growth: float) -> float:
    """Return the time at a size outside an axis.

    At the rate of the outermost two nodes, but within bounds; as the closed form from a single one.

    Args:
        axis: the axis.
        values: times at its nodes.
        size: the size.
        growth: the closed form at the size over that at the outermost node.
    """
    edge = values[0] if size < axis.sizes[0] else values[-1]
    if len(axis.sizes) == 1:
        return edge * growth
    bounds = sorted(edge * growth**power for power in (SLOWEST_GROWTH, FASTEST_GROWTH))
    return float(min(max(axis.between(values, size), bounds[0]), bounds[1]))


def monotone(grid: list[list[float]]) -> list[list[float]]:
    """Return the grid with no value below one before it; a grid that has none is left as it is.

    Between the largest so far and the smallest from there on, both of which never fall: their
    geometric mean.
    """
    largest = _running(grid, max)
    smallest = [row[::-1] for row in _running([row[::-1] for row in grid[::-1]], min)][::-1]
    return [
        [a if a == b else sqrt(a * b) for a, b in zip(*rows, strict=True)]
        for rows in zip(largest, smallest, strict=True)
    ]


def _running(grid: list[list[float]], choose: Callable[[float, float], float]) -> list[list[float]]:
    """Return at every node the choice over all nodes before it along both axes."""
    found: list[list[float]] = []
    for row in grid:
        line: list[float] = []
        for k, value in enumerate(row):
            before = [line[k - 1]] if k else []
            before += [found[-1][k]] if found else []
            for other in before:
                value = choose(value, other)
            line.append(value)
        found.append(line)
    return found
