"""Costs of many patterns of one spec, fast: everything but the pattern is computed once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment, op_cost
from hybridsim.cost.roofline import op_time
from hybridsim.errors import unknown
from hybridsim.graph import Op, layer_ops, outer_ops
from hybridsim.hardware import Hardware
from hybridsim.spec.pattern import expand_pattern
from hybridsim.spec.schema import ModelSpec
from hybridsim.steps import decode, prefill


@dataclass(frozen=True, slots=True)
class PatternPoint:
    """Costs of one pattern at one context and batch size, as in the full profile.

    All figures are of the whole batch, but for `kv_bytes_per_token` and `state_bytes`, which are of
    one sequence.
    """

    parameters: int
    active_parameters: int
    kv_bytes_per_token: int
    state_bytes: int
    cache_bytes: int
    prefill_flops: int
    prefill_bytes: float
    prefill_latency_s: float
    decode_flops: int
    decode_bytes: float
    decode_latency_s: float


class PatternCosts:
    """Evaluates layer patterns of one spec.

    Every figure is a sum over layers, and a layer's share depends on its two letters only: the
    shares are computed when a pair of letters is first seen.

    Args:
        spec: gives everything but the layer pattern.
        context_tokens: prompt of the prefill, and cache of the decode step.
        batch_size: sequences.
        deployment: dtypes and conventions; logits at the last position, as served.
        hardware: the device of the modelled times.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        context_tokens: int,
        batch_size: int,
        deployment: Deployment,
        hardware: Hardware,
    ) -> None:
        self.spec = spec
        self.context_tokens = context_tokens
        self.batch_size = batch_size
        self.deployment = replace(deployment, conventions=SERVED)
        self.hardware = hardware
        self._outer = self._sum(outer_ops(spec))
        self._layers: dict[tuple[str, str], tuple[float, ...]] = {}
        self._ffn_letters = spec.ffn_letters

    def evaluate(self, layer_pattern: str) -> PatternPoint:
        """Return the costs with another layer pattern.

        Raises:
            SpecError: the pattern is wrong, has another length or a letter the spec lacks.
        """
        letters = layer_pattern
        if len(letters) != self.spec.num_layers or not letters.isalpha():
            letters = expand_pattern(layer_pattern, self.spec.num_layers)
        rows = [(self._outer, 1)]
        for pair, times in Counter(zip(letters, self._ffn_letters, strict=True)).items():
            row = self._layers.get(pair)
            if row is None:
                row = self._layers[pair] = self._layer(*pair)
            rows.append((row, times))
        columns = zip(*[row if n == 1 else [n * x for x in row] for row, n in rows], strict=True)
        return PatternPoint(*map(sum, columns))

    def _layer(self, letter: str, ffn_letter: str) -> tuple[float, ...]:
        if letter not in {**self.spec.mixers, **self.spec.ffns, **self.spec.parallel}:
            raise unknown(
                "layer_pattern", letter, [*self.spec.mixers, *self.spec.parallel], "letter"
            )
        return self._sum(layer_ops(self.spec, letter, ffn_letter))

    def _sum(self, ops: Counter[Op]) -> tuple[float, ...]:
        rows = [[n * figure for figure in self._op(op)] for op, n in ops.items()]
        return tuple(map(sum, zip(*rows, strict=True)))

    def _op(self, op: Op) -> tuple[float, ...]:
        """Return one op's share of every field of PatternPoint, in their order."""
        cost, dtypes = op_cost(op), self.deployment.dtypes
        cache = cost.cache(dtypes)
        kept = cache.kv_bytes(self.context_tokens) + cache.state_bytes
        times = [
            op_time(op, step(self.context_tokens), self.batch_size, self.deployment, self.hardware)
            for step in (prefill, decode)
        ]
        return (
            cost.parameters,
            cost.active_parameters,
            cache.bytes_per_token if cache.window_tokens is None else 0,
            cache.state_bytes,
            self.batch_size * kept,
            *(figure for t in times for figure in (t.flops, t.moved_bytes, t.latency_s)),
        )
