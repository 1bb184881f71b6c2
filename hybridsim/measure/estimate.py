"""Times of blocks from a device's rows, each with its origin and a 90 % interval. No torch.

    measured       a row at that very point
    interpolated   between rows of the block (`surface`)
    extrapolated   outside them
    modelled       the block has no rows of that phase: the roofline of its ops

A block without rows whose relatives have some, blocks that differ in numbers of heads alone, is
interpolated between them or extrapolated from them (`relatives`).

Intervals are conformal: rows are taken away (one by one, then all of a context, all of a batch, all
of a block that has relatives), estimated from the others, and the quantile of the errors of their
logarithms is the half-width. Errors outside the rows are taken per factor of two. What was measured
differs from the next measurement as repetitions of the same point do.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

from hybridsim.cost.roofline import MODELLED
from hybridsim.dtypes import Dtypes
from hybridsim.measure.block import Block
from hybridsim.measure.point import PHASES, Model, Point, key_dtypes, pieces
from hybridsim.measure.relatives import between, kinship
from hybridsim.measure.store import OK, Row, Session, Store
from hybridsim.measure.surface import Surface, Value

MEASURED, INTERPOLATED, EXTRAPOLATED = "measured", "interpolated", "extrapolated"
PROVENANCES = (MEASURED, INTERPOLATED, EXTRAPOLATED, MODELLED)  # the strongest first
# What was left out to see how far an estimate is off.
REPETITION, ROW, BATCH, CONTEXT, HEADS = LEFT_OUT = (
    "repetition",
    "row",
    "batch",
    "context",
    "heads",
)
COVERAGE = 0.9
# Least half-widths of logarithms where too few errors are known for a quantile.
ASSUMED_ERRORS = {MEASURED: 0.05, INTERPOLATED: 0.15, EXTRAPOLATED: 0.3}


def weakest(provenances: Iterable[str]) -> str:
    """Return the provenance of a sum of times: that of its least certain part."""
    return max(provenances, key=PROVENANCES.index)


@dataclass(frozen=True)
class Estimate:
    """A time.

    Attributes:
        latency_s: the time.
        low_s, high_s: its 90 % interval; None where nothing is known to draw it from.
        provenance: "measured", "interpolated", "extrapolated" or "modelled".
        backends: what ran in the rows that it is from; empty where it is modelled.
    """

    latency_s: float
    low_s: float | None = None
    high_s: float | None = None
    provenance: str = MODELLED
    backends: frozenset[str] = frozenset()


def total(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """Return the weighted sum of times.

    Errors of blocks go together: clocks, temperature, a version of a library. So the bounds add
    up, as if all erred alike, which is the widest that the interval of a sum can be.
    """
    return Estimate(
        latency_s=sum(n * part.latency_s for n, part in parts),
        low_s=_bound((n, part.low_s) for n, part in parts),
        high_s=_bound((n, part.high_s) for n, part in parts),
        provenance=weakest(part.provenance for _, part in parts),
        backends=frozenset().union(*(part.backends for _, part in parts)),
    )


def _bound(parts: Iterable[tuple[float, float | None]]) -> float | None:
    found = 0.0
    for n, bound in parts:
        if bound is None:
            return None
        found += n * bound
    return found


@dataclass(frozen=True)
class Residual:
    """How far an estimate was off from a row that it did not know.

    Attributes:
        block: signature.
        phase: "prefill" or "decode".
        provenance: of the estimate.
        row_s: the row's time.
        estimate_s: the estimate.
        octaves: see surface.Value.
        resolution_s: how well times are known whatever their size.
        left_out: the row itself was a "repetition"; or the "row", all rows of its "batch" or
            "context", or of its block ("heads").
    """

    block: str
    phase: str
    provenance: str
    row_s: float
    estimate_s: float
    octaves: float = 0.0
    resolution_s: float = 0.0
    left_out: str = ROW

    @property
    def group(self) -> tuple[str, str, bool]:
        """What errors are pooled by: provenance, phase, whether other blocks' rows were used."""
        return self.provenance, self.phase, self.left_out == HEADS

    @property
    def error(self) -> float:
        """The row's time over the estimate, less 1."""
        return self.row_s / self.estimate_s - 1.0

    @property
    def score(self) -> float:
        """The size of the error as `interval` counts it, per factor of two outside the rows."""
        known = (self.row_s + self.resolution_s) / (self.estimate_s + self.resolution_s)
        return abs(math.log(known)) / max(1.0, self.octaves)


def interval(latency_s: float, half_width: float, resolution_s: float) -> tuple[float, float]:
    """Return the bounds of a time that is `half_width` off in log(time + resolution).

    Relative for long times, absolute for those near the resolution.
    """
    low, high = ((latency_s + resolution_s) * math.exp(w) for w in (-half_width, half_width))
    return max(0.0, low - resolution_s), high - resolution_s


def conformal_quantile(scores: Sequence[float], coverage: float = COVERAGE) -> float | None:
    """Return the score that one more is below with at least that probability.

    The ceil((n + 1) coverage)-th smallest of n (Vovk, Gammerman and Shafer, Algorithmic Learning
    in a Random World, 2005, ch. 2); None where n is too small for one.
    """
    rank = math.ceil((len(scores) + 1) * coverage)
    return sorted(scores)[rank - 1] if rank <= len(scores) else None


class Table:
    """The rows of one block in one phase with one skew of routing.

    Args:
        block: the block.
        rows: with a time; repetitions of a point apart.
        repeats: further rows of the same points.
        model: the closed form at the rates of the rows' session.
        resolution_s: how well times are known whatever their size.
    """

    def __init__(
        self,
        block: Block,
        rows: Sequence[Row],
        repeats: Sequence[Row],
        model: Model,
        resolution_s: float = 0.0,
    ) -> None:
        self.block, self.model, self.resolution_s = block, model, resolution_s
        self.rows = {(row.batch, row.context): row for row in rows}
        self.repeats = list(repeats)
        self.phase, self.skew = rows[0].phase, rows[0].skew

    @property
    def times(self) -> dict[tuple[int, int], float]:
        """Seconds by (batch, context)."""
        return {key: _time(row) for key, row in self.rows.items()}

    def shape_s(self, batch: int, context: int) -> float:
        """Return the closed form at a point, launches included."""
        point = Point(self.phase, batch, context, self.skew)
        return self.model.work(self.block, point).shape_s

    def surface(self, without: Iterable[tuple[int, int]] = ()) -> Surface:
        """Return the surface through the rows, some of them left out."""
        left_out = set(without)
        times = {key: time for key, time in self.times.items() if key not in left_out}
        return Surface(times, self.shape_s)

    @cached_property
    def whole(self) -> Surface:
        """The surface through all rows."""
        return self.surface()

    @property
    def backends(self) -> frozenset[str]:
        """What ran."""
        return frozenset().union(*map(_backends, self.rows.values()))

    def residuals(self) -> list[Residual]:
        """Return the errors at rows that were left out, and between repetitions."""
        found = [
            self._residual(_time(row), Value(self._first(row), 0.0), REPETITION)
            for row in self.repeats
        ]
        for group, left_out in self._groups().items():
            if len(group) == len(self.rows):
                continue
            surface = self.surface(group)
            found += [self.residual(key, surface.at(*key), left_out) for key in group]
        return found

    def residual(self, key: tuple[int, int], value: Value, left_out: str) -> Residual:
        """Return how far a value is off from a row."""
        return self._residual(_time(self.rows[key]), value, left_out)

    def _first(self, repeat: Row) -> float:
        return _time(self.rows[repeat.batch, repeat.context])

    def _residual(self, row_s: float, value: Value, left_out: str) -> Residual:
        inside = MEASURED if left_out == REPETITION else INTERPOLATED
        return Residual(
            self.block.signature,
            self.phase,
            EXTRAPOLATED if value.octaves else inside,
            row_s,
            value.latency_s,
            value.octaves,
            self.resolution_s,
            left_out,
        )

    def _groups(self) -> dict[tuple[tuple[int, int], ...], str]:
        """Return what is left out together: each row, each batch, each context."""
        groups: dict[tuple[tuple[int, int], ...], str] = {(key,): ROW for key in self.rows}
        for axis, name in enumerate((BATCH, CONTEXT)):
            for size in sorted({key[axis] for key in self.rows}):
                groups.setdefault(tuple(key for key in self.rows if key[axis] == size), name)
        return groups


def _time(row: Row) -> float:
    assert row.latency_s is not None
    return row.latency_s


def _backends(row: Row) -> frozenset[str]:
    return frozenset(row.backend.split("; ")) - {""}


class BlockTimes:
    """Times of all blocks of a device that has rows.

    Args:
        store: the device's rows.
        dtypes: number formats; rows of others do not count.
    """

    def __init__(self, store: Store, dtypes: Dtypes) -> None:
        self.store, self.dtypes = store, dtypes
        self._formats = {s: key_dtypes(block, dtypes) for s, block in store.blocks.items()}
        self._tables = self._made_tables()

    def _made_tables(self) -> dict[tuple[str, str], dict[float, Table]]:
        """Return the tables by block and phase, then by skew."""
        groups: dict[tuple[str, str, float], list[Row]] = {}
        for row in self.store.rows.values():
            if row.status == OK and row.dtypes == self._formats.get(row.block):
                groups.setdefault((row.block, row.phase, row.skew), []).append(row)
        models: dict[str, Model] = {}
        tables: dict[tuple[str, str], dict[float, Table]] = {}
        for (signature, phase, skew), rows in groups.items():
            firsts = [row for row in rows if not row.repeat]
            points = {row.point for row in firsts}
            repeats = [row for row in rows if row.repeat and row.point in points]
            if not firsts:
                continue
            session = max((self.store.sessions[row.session] for row in firsts), key=_started)
            if session.id not in models:
                models[session.id] = Model(session.ceilings.hardware(), self.dtypes)
            model = models[session.id]
            block = self.store.blocks[signature]
            table = Table(block, firsts, repeats, model, self.resolution_s)
            tables.setdefault((signature, phase), {})[skew] = table
        return tables

    @cached_property
    def resolution_s(self) -> float:
        """How well times are known whatever their size: no better than what timing itself adds."""
        return max((session.timer_s for session in self.store.sessions.values()), default=0.0)

    @property
    def num_rows(self) -> int:
        """Rows that count."""
        return sum(len(t.rows) for tables in self._tables.values() for t in tables.values())

    @property
    def sessions(self) -> list[Session]:
        """The sessions of the rows that count, by time."""
        used = {
            row.session
            for tables in self._tables.values()
            for table in tables.values()
            for row in table.rows.values()
        }
        return sorted((self.store.sessions[s] for s in used), key=_started)

    def tables(self) -> list[Table]:
        """Return all tables."""
        return [table for tables in self._tables.values() for table in tables.values()]

    def estimate(self, block: Block, asked: Point) -> Estimate | None:
        """Return a block's time at a point, passes of a long prompt added up.

        None where it has no rows.
        """
        parts = [(n, self._estimate(block, point)) for n, point in pieces(block, asked)]
        known = [(n, part) for n, part in parts if part is not None]
        return total(known) if len(known) == len(parts) else None

    def _estimate(self, block: Block, point: Point) -> Estimate | None:
        tables = self._tables.get((block.signature, point.phase))
        if tables is None:
            return self._from_relatives(block, point)
        exact = tables.get(point.skew)
        row = exact.rows.get((point.batch, point.context)) if exact else None
        if row is not None:
            value = Value(_time(row), 0.0)
            return self._with_interval(value, (MEASURED, point.phase, False), _backends(row))
        value, backends = self._value(tables, point)
        return self._with_interval(value, (_outside(value), point.phase, False), backends)

    def _value(self, tables: Mapping[float, Table], point: Point) -> tuple[Value, frozenset[str]]:
        """Return a block's time from its rows, and what ran in them."""
        used = self._nearest_tables(tables, point.skew)
        values = [
            (weight, table, _at_skew(table, point, outside=len(used) == 1))
            for weight, table in used
        ]
        value = Value(
            sum(weight * value.latency_s for weight, _, value in values),
            max(value.octaves for *_, value in values),
        )
        return value, frozenset().union(*(table.backends for _, table, _ in values))

    def _from_relatives(self, block: Block, point: Point) -> Estimate | None:
        found = self._relatives_value(block, point)
        if found is None:
            return None
        value, backends = found
        return self._with_interval(value, (_outside(value), point.phase, True), backends)

    def _relatives_value(self, block: Block, point: Point) -> tuple[Value, frozenset[str]] | None:
        """Return a block's time from other blocks' rows; None where it has no relatives."""
        known = {}
        backends: frozenset[str] = frozenset()
        for signature in self._families.get(kinship(block), ()):
            tables = self._tables.get((signature, point.phase))
            if tables is None or signature == block.signature:
                continue
            value, ran = self._value(tables, point)
            model = next(iter(tables.values())).model
            known[model.work(self.store.blocks[signature], point).shape_s] = value
            backends |= ran
        if not known:
            return None
        return between(known, model.work(block, point).shape_s), backends

    @cached_property
    def _families(self) -> dict[str | None, list[str]]:
        """Return the signatures of the blocks that have rows, by their kinship."""
        found: dict[str | None, list[str]] = {}
        for signature in dict.fromkeys(signature for signature, _ in self._tables):
            found.setdefault(kinship(self.store.blocks[signature]), []).append(signature)
        found.pop(None, None)
        return found

    @staticmethod
    def _nearest_tables(tables: Mapping[float, Table], skew: float) -> list[tuple[float, Table]]:
        """Return the tables of the skews around a skew, with their weights."""
        below = max((s for s in tables if s <= skew), default=None)
        above = min((s for s in tables if s >= skew), default=None)
        if below is None or above is None or below == above:
            nearest = below if below is not None else above
            assert nearest is not None
            return [(1.0, tables[nearest])]
        weight = (skew - below) / (above - below)
        return [(1 - weight, tables[below]), (weight, tables[above])]

    def _with_interval(
        self, value: Value, group: tuple[str, str, bool], backends: frozenset[str]
    ) -> Estimate:
        half = self.half_width(*group) * max(1.0, value.octaves)
        low_s, high_s = interval(value.latency_s, half, self.resolution_s)
        return Estimate(value.latency_s, low_s, high_s, group[0], backends)

    @cached_property
    def residuals(self) -> list[Residual]:
        """Every error at rows that were left out."""
        own = [residual for table in self.tables() for residual in table.residuals()]
        return [*own, *self._relatives_residuals()]

    def _relatives_residuals(self) -> Iterator[Residual]:
        """Yield the errors at the rows of blocks that were left out as a whole."""
        for table in self.tables():
            for key in table.rows:
                point = Point(table.phase, *key, table.skew)
                found = self._relatives_value(table.block, point)
                if found is not None:
                    yield table.residual(key, found[0], HEADS)

    @cached_property
    def _half_widths(self) -> dict[tuple[str, str, bool], float]:
        groups = _grouped(self.residuals)
        return {
            group: _half_width(group[0], groups.get(group, []))
            for group in product(ASSUMED_ERRORS, PHASES, (False, True))
        }

    def half_width(self, provenance: str, phase: str, related: bool = False) -> float:
        """Return half the width of an `interval`; per octave if outside.

        Args:
            provenance: of the time.
            phase: "prefill" or "decode".
            related: whether it is from other blocks' rows.
        """
        return self._half_widths[provenance, phase, related]

    def coverage(self) -> list[dict[str, Any]]:
        """Return how the estimates and their intervals did on rows that were left out.

        A row counts as covered by an interval that was drawn without any row of its block.
        """
        found = []
        for (provenance, phase, related), residuals in sorted(_grouped(self.residuals).items()):
            widths = {
                block: _half_width(provenance, [r for r in residuals if r.block != block])
                for block in {r.block for r in residuals}
            }
            covered = [r.score <= widths[r.block] for r in residuals]
            errors = [abs(r.error) for r in residuals]
            found.append(
                {
                    "provenance": provenance,
                    "phase": phase,
                    "from_other_blocks": related,
                    "held_out": len(residuals),
                    "coverage": sum(covered) / len(covered),
                    "median_error": statistics.median(errors),
                    "half_width": self.half_width(provenance, phase, related),
                }
            )
        return found


def _at_skew(table: Table, point: Point, *, outside: bool) -> Value:
    """Return a table's time at a batch and context, for another skew of routing too.

    Outside the skews that have rows it moves as the closed form does, and is an octave away.
    """
    value = table.whole.at(point.batch, point.context)
    if not outside or table.skew == point.skew:
        return value
    shape_s = table.model.work(table.block, point).shape_s
    ratio = shape_s / table.shape_s(point.batch, point.context)
    return Value(value.latency_s * ratio, value.octaves + 1.0)


def _started(session: Session) -> str:
    return session.started


def _outside(value: Value) -> str:
    return EXTRAPOLATED if value.octaves else INTERPOLATED


def _grouped(residuals: Iterable[Residual]) -> dict[tuple[str, str, bool], list[Residual]]:
    groups: dict[tuple[str, str, bool], list[Residual]] = {}
    for residual in residuals:
        groups.setdefault(residual.group, []).append(residual)
    return groups


def _half_width(provenance: str, residuals: Iterable[Residual]) -> float:
    """Return the conformal half-width; an assumed one, if wider, where errors are too few."""
    scores = [residual.score for residual in residuals]
    found = conformal_quantile(scores)
    return found if found is not None else max([ASSUMED_ERRORS[provenance], *scores])
