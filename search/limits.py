"""Limits of a space: which numbers of layers of each letter are feasible. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from hybridsim.cost.model import ModelCosts
from hybridsim.cost.roofline import fits
from hybridsim.graph import build_graph
from hybridsim.measure.point import PREFILL
from hybridsim.profiler.serving import Serving
from search.costs import Counts

if TYPE_CHECKING:
    from search.space import Space


class Limits:
    """The limits of a space, checked on classes of placements.

    Args:
        space: whose base, device and workload the limits are of.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self.settings = space.settings
        base = ModelCosts.of(build_graph(space.base))
        twin = space.base.all_full_twin()
        context = space.serve.workload.context_target
        dtypes = space.serve.deployment.dtypes
        full = base if twin is None else ModelCosts.of(build_graph(twin))
        self._parameters = base.parameters
        self._twin_cache_bytes = full.cache_bytes(context, dtypes)
        limits = space.settings.constraints
        sizes = (
            limits.parameters_within,
            limits.active_parameters_within,
            limits.cache_bytes_max,
            limits.cache_share_max,
        )
        self._limits_sizes = limits.fits or any(limit is not None for limit in sizes)
        self.refused: Counter[str] = Counter()

    def allow(self, options: tuple[int, ...], counts: Counts) -> bool:
        """Whether placements with these numbers of letters keep to every limit."""
        broken = next(self._broken(options, counts), None)
        if broken is not None:
            self.refused[broken] += 1
        return broken is None

    def why_empty(self) -> str:
        """Return which limits refused how many classes of placements."""
        return "refused by " + ", ".join(f"{key} ({n})" for key, n in self.refused.most_common())

    def _broken(self, options: tuple[int, ...], counts: Counts) -> Iterator[str]:
        """Yield the limits that are broken, cheap ones first."""
        settings, space = self.settings, self._space
        full = space.fixed_full_layers + sum(
            n
            for letter, n in zip(space.letters, counts, strict=True)
            if letter in space.full_letters
        )
        if full < settings.full_layers_min:
            yield f"full_layers_min={settings.full_layers_min}"
        if settings.full_layers_max is not None and full > settings.full_layers_max:
            yield f"full_layers_max={settings.full_layers_max}"
        limits = settings.constraints
        if self._limits_sizes:  # costing a class takes its time, and there may be many
            yield from self._broken_sizes(space.costs(options).model_costs(counts))
        if limits.ttft_s_max is not None or limits.tpot_s_max is not None:
            yield from self._broken_times(space.costs(options).serving(counts))

    def _broken_sizes(self, costs: ModelCosts) -> Iterator[str]:
        limits, serve = self.settings.constraints, self._space.serve
        context = serve.workload.context_target
        pairs = (
            ("parameters_within", costs.parameters.total, self._parameters.total),
            ("active_parameters_within", costs.parameters.active, self._parameters.active),
        )
        for key, ours, base in pairs:
            within = getattr(limits, key)
            if within is not None and abs(ours - base) > within * base:
                yield f"constraints.{key}={within}"
        cache_bytes = costs.cache_bytes(context, serve.deployment.dtypes)
        if limits.cache_bytes_max is not None and cache_bytes > limits.cache_bytes_max:
            yield f"constraints.cache_bytes_max={limits.cache_bytes_max}"
        share = limits.cache_share_max
        if share is not None and cache_bytes > share * self._twin_cache_bytes:
            yield f"constraints.cache_share_max={share}"
        together = serve.workload.concurrency
        if limits.fits and not fits(costs, context, together, serve.deployment, serve.hardware):
            yield (
                f"constraints.fits=true: {together} sequences of {context:,} tokens on"
                f" {serve.hardware.name}"
            )

    def _broken_times(self, serving: Serving) -> Iterator[str]:
        limits, workload = self.settings.constraints, self._space.serve.workload
        if limits.ttft_s_max is not None:
            first = serving.estimate(PREFILL, 1, workload.prompt_tokens)
            if first.latency_s > limits.ttft_s_max:
                yield f"constraints.ttft_s_max={limits.ttft_s_max}"
        if limits.tpot_s_max is not None:
            later = serving.mean_decode(workload)
            if later.latency_s > limits.tpot_s_max:
                yield f"constraints.tpot_s_max={limits.tpot_s_max}"
