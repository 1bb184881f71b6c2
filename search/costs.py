"""Costs of every placement of a spec: a layer's share depends on its letter alone. No torch.

So all placements with as many layers of each letter cost the same, and are one class: 28 classes
stand for the 2^27 placements of two mixers in 27 layers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.errors import SpecError, bad_value
from hybridsim.graph import Op, build_graph, layer_ops, outer_ops
from hybridsim.hardware import Hardware
from hybridsim.measure.estimate import BlockTimes, Estimate, total
from hybridsim.measure.model_times import ModelTimes
from hybridsim.profiler.serving import Serving
from hybridsim.spec.pattern import NOTHING
from hybridsim.spec.schema import ModelSpec

Counts = tuple[int, ...]


class PlacementCosts:
    """Costs of one spec whose free layers take letters as they come.

    Args:
        spec: gives everything but the letters of the free layers.
        letters: that a free layer may have.
        free: which layers are free, from 0.
        deployment: how it is served.
        hardware: the device.
        blocks: what the device's rows give; None models every time.

    Raises:
        SpecError: a letter's cost would depend on where it stands.
    """

    def __init__(
        self,
        spec: ModelSpec,
        letters: str,
        free: Sequence[int],
        deployment: Deployment,
        hardware: Hardware,
        blocks: BlockTimes | None = None,
    ) -> None:
        check_separable(spec, letters)
        self.spec, self.letters, self.deployment, self.hardware = (
            spec,
            letters,
            deployment,
            hardware,
        )
        rest = _rest(spec, frozenset(free), letters)
        inventory = _inventory(spec, [*rest, *((letter, NOTHING) for letter in letters)])
        self._slots = len(rest)
        self._rest_ops = outer_ops(spec)
        for pair in rest:
            self._rest_ops.update(layer_ops(inventory, *pair))
        self._slot_ops = [layer_ops(inventory, letter, NOTHING) for letter in letters]
        times = ModelTimes(build_graph(inventory), deployment, hardware, blocks)
        self._by_layer = lru_cache(maxsize=65536)(times.by_layer)
        self._parts = lru_cache(maxsize=65536)(self._parts_of)

    def model_costs(self, counts: Counts) -> ModelCosts:
        """Return the closed forms of the placements with as many layers of each letter."""
        ops: Counter[Op] = Counter(self._rest_ops)
        for n, slot in zip(counts, self._slot_ops, strict=True):
            if n:
                for op, times in slot.items():
                    ops[op] += n * times
        return ModelCosts(ops)

    def serving(self, counts: Counts) -> Serving:
        """Return how those placements are served."""
        return Serving(
            self.model_costs(counts),
            self.deployment,
            self.hardware,
            self.spec.native_context,
            _ClassTimes(self, counts),
        )

    def estimate(
        self, counts: Counts, phase: str, batch_size: int, context_tokens: int
    ) -> Estimate:
        """Return the time of a step of those placements."""
        rest, slots = self._parts(phase, batch_size, context_tokens)
        used = [(n, slot) for n, slot in zip(counts, slots, strict=True) if n]
        return total([(1, rest), *used])

    def _parts_of(
        self, phase: str, batch_size: int, context_tokens: int
    ) -> tuple[Estimate, list[Estimate]]:
        by_layer = self._by_layer(phase, batch_size, context_tokens)
        rest = [
            (1, part) for layer, part in by_layer.items() if layer is None or layer < self._slots
        ]
        slots = [by_layer[self._slots + index] for index in range(len(self.letters))]
        return total(rest), slots


class _ClassTimes:
    """Times of the placements of one class."""

    def __init__(self, costs: PlacementCosts, counts: Counts) -> None:
        self._costs, self._counts = costs, counts

    def estimate(self, phase: str, batch_size: int, context_tokens: int) -> Estimate:
        return self._costs.estimate(self._counts, phase, batch_size, context_tokens)


def check_separable(spec: ModelSpec, letters: str) -> None:
    """Raise SpecError where a letter cannot stand anywhere at the same cost."""
    if len({spec.layer_norms(letter) for letter in letters}) > 1:
        raise bad_value("space.letters", letters, "they place their norms differently")
    for letter in letters:
        for part in spec.layer_mixers(letter):
            if spec.mixers[part].borrows is not None:
                raise SpecError(
                    f"space.letters={letters}: {part} shares a selection of an earlier layer,"
                    " so it cannot stand anywhere"
                )


def _rest(spec: ModelSpec, free: frozenset[int], letters: str) -> list[tuple[str, str]]:
    """Return what stays as it is, as layers: pinned layers, and free layers' feed-forwards."""
    made = []
    for index, (letter, ffn) in enumerate(zip(spec.layer_letters, spec.ffn_letters, strict=True)):
        if index not in free:
            made.append((letter, ffn))
        elif ffn != NOTHING:
            made.append((ffn, NOTHING))
    return made


def _inventory(spec: ModelSpec, layers: list[tuple[str, str]]) -> ModelSpec:
    """Return a model of these layers; feed-forwards alone have the free layers' norms."""
    norms = spec.layer_norms(layers[-1][0])
    alone = {letter: norms for letter, _ in layers if letter in spec.ffns}
    return replace(
        spec,
        num_layers=len(layers),
        layer_pattern="".join(letter for letter, _ in layers),
        ffn_pattern="".join(ffn for _, ffn in layers),
        norm_placement={**alone, **spec.norm_placement},
        full_twin=None,
    )
