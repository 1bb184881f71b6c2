"""The time of a model's step: the sum over the blocks of its graph. No torch."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from functools import cached_property, lru_cache

from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import op_time
from hybridsim.graph import ModelGraph, Op
from hybridsim.hardware import Hardware
from hybridsim.measure.block import Block, graph_blocks
from hybridsim.measure.estimate import COVERAGE, BlockTimes, Estimate, total
from hybridsim.measure.point import PHASES, Point
from hybridsim.measure.store import device_store
from hybridsim.options import option_names, read_option

FEW_ROWS = 20  # below which nothing is said about blocks without rows


def device_times(hardware: Hardware, deployment: Deployment) -> BlockTimes | None:
    """Return the times of blocks that rows of this very device give; None where there are none.

    Rows are of one device as it is: for several, or with a rate that was changed, times are
    modelled.
    """
    store = device_store(hardware.name)
    if not store.rows or hardware.num_devices != 1 or not _is_as_listed(hardware):
        return None
    if hardware.name == "cpu":
        # Every machine is another one.
        others = [s for s in store.sessions.values() if s.title not in hardware.title]
        store = store.without_sessions({session.id for session in others})
    times = BlockTimes(store, deployment.dtypes)
    return times if times.num_rows else None


def _is_as_listed(hardware: Hardware) -> bool:
    """Whether no rate was changed."""
    if hardware.name not in option_names("hardware"):
        return True
    listed = read_option("hardware", hardware.name)
    given = {"peak_flops": hardware.peak_flops, "bandwidth": hardware.bandwidth_bytes_per_s}
    wanted = {"peak_flops": listed["peak_flops"], "bandwidth": listed["bandwidth_bytes_per_s"]}
    return all(not wanted[key] or wanted[key] == given[key] for key in given)


class ModelTimes:
    """Times of a model's steps on a device.

    Args:
        graph: the model.
        deployment: how it is served; logits are those of the last position.
        hardware: the device.
        blocks: what its rows give; None models everything.
    """

    def __init__(
        self,
        graph: ModelGraph,
        deployment: Deployment,
        hardware: Hardware,
        blocks: BlockTimes | None,
    ) -> None:
        self.deployment = replace(deployment, conventions=SERVED)
        self.hardware, self.blocks = hardware, blocks
        ops = {name: op for name, op, _ in graph.nodes()}
        self._nodes = [(block, names) for block, names in graph_blocks(graph)]
        self._ops = {block: Counter(ops[n] for n in names) for block, names in self._nodes}
        self._counts = Counter(block for block, _ in self._nodes)
        self._layers = [graph.dag.nodes[names[0]]["layer"] for _, names in self._nodes]
        self._of_block = lru_cache(maxsize=65536)(self._estimate)

    def estimate(self, phase: str, batch_size: int, context_tokens: int) -> Estimate:
        """Return the time of a prefill of, or of a decode step after, `context_tokens` each."""
        point = self._point(phase, batch_size, context_tokens)
        return total([(n, self._of_block(block, point)) for block, n in self._counts.items()])

    def by_layer(
        self, phase: str, batch_size: int, context_tokens: int
    ) -> dict[int | None, Estimate]:
        """Return the time of each layer, and of what is outside the layers under None."""
        point = self._point(phase, batch_size, context_tokens)
        parts: dict[int | None, list[tuple[float, Estimate]]] = {}
        for layer, (block, _) in zip(self._layers, self._nodes, strict=True):
            parts.setdefault(layer, []).append((1, self._of_block(block, point)))
        return {layer: total(found) for layer, found in parts.items()}

    def shares(
        self, phase: str, batch_size: int, context_tokens: int
    ) -> dict[str, tuple[float, str]]:
        """Return by node what its modelled time is to be multiplied with, and the provenance.

        A block's time is shared out over its nodes in proportion to their modelled times.
        """
        point = self._point(phase, batch_size, context_tokens)
        found = {}
        for block, names in self._nodes:
            estimate = self._of_block(block, point)
            factor = estimate.latency_s / self._modelled_s(self._ops[block], point)
            found.update(dict.fromkeys(names, (factor, estimate.provenance)))
        return found

    def _point(self, phase: str, batch_size: int, context_tokens: int) -> Point:
        return Point(phase, batch_size, context_tokens, self.deployment.routing_skew)

    def _estimate(self, block: Block, point: Point) -> Estimate:
        found = None if self.blocks is None else self.blocks.estimate(block, point)
        if found is not None:
            return found
        latency_s = self._modelled_s(self._ops[block], point)
        low, high = self._slower[point.phase]
        if low is None or high is None:
            return Estimate(latency_s)
        return Estimate(latency_s, latency_s * min(1.0, low), latency_s * max(1.0, high))

    def _modelled_s(self, ops: Counter[Op], point: Point) -> float:
        times = [
            (n, op_time(op, point.step, point.batch, self.deployment, self.hardware).latency_s)
            for op, n in ops.items()
        ]
        return sum(n * time for n, time in times)

    @cached_property
    def _slower(self) -> dict[str, tuple[float | None, float | None]]:
        """Return how much slower than their roofline the device's blocks are, by phase.

        The bounds between which 90 % of the rows lie; none where there are few.
        """
        return {phase: self._slowness(phase) for phase in PHASES}

    def _slowness(self, phase: str) -> tuple[float | None, float | None]:
        tables = [] if self.blocks is None else self.blocks.tables()
        ratios = sorted(
            latency_s / self._modelled_s(table.block.ops, Point(phase, *key, table.skew))
            for table in tables
            if table.phase == phase
            for key, latency_s in table.times.items()
        )
        if len(ratios) < FEW_ROWS:
            return None, None
        outside = math.floor(len(ratios) * (1 - COVERAGE) / 2)
        return ratios[outside], ratios[-1 - outside]
