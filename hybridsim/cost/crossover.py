"""From which context on a model is cheaper than its all-full twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hybridsim.conventions import SERVED
from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import step_time
from hybridsim.graph import MIXER, build_graph
from hybridsim.hardware import Hardware
from hybridsim.mixers import MixerSettings, mixer_cost
from hybridsim.spec.schema import ModelSpec
from hybridsim.steps import decode, prefill

SEARCHED_TOKENS = 1 << 27  # 134 M tokens: a crossover beyond is reported as none

DEFINITIONS = {
    "memory": "cache and state of one sequence",
    "decode_bytes": "cache and state that one sequence's decode step reads and writes",
    "prefill_flops": "FLOPs of a whole prefill, logits at the last position",
    "decode_latency": "modelled time of a decode step, weights included, at the first batch size",
    "prefill_latency": "modelled time of a whole prefill at the first batch size",
    "decode_bytes_with_weights": (
        "all bytes of a decode step, weights included, at the first batch size"
    ),
    "prefill_flops_mixing": "FLOPs of the token mixers alone, projections left out",
}


def crossover_tokens(
    spec: ModelSpec, deployment: Deployment, hardware: Hardware, batch_size: int = 1
) -> dict[str, int | None]:
    """Return, for each of DEFINITIONS, the context N beyond which the model is cheaper, in tokens.

    N is the last context at which the model costs at least as much as its twin: 0 where it is
    cheaper from the first token, None where it is its own twin or never gets cheaper (up to 134 M
    tokens). Costs that cross more than once count from the last crossing.
    """
    twin = spec.all_full_twin()
    if twin is None:
        return dict.fromkeys(DEFINITIONS)
    ours, theirs = (ModelCosts.of(build_graph(s)) for s in (spec, twin))
    return {
        name: last_crossing(
            lambda n, c=cost: c(theirs, n) - c(ours, n),  # type: ignore[misc]
            ripple=_chunk_size(spec) if name.startswith("prefill") else 0,
        )
        for name, cost in _costs(deployment, hardware, batch_size).items()
    }


def _costs(
    deployment: Deployment, hardware: Hardware, batch_size: int
) -> dict[str, Callable[[ModelCosts, int], float]]:
    dtypes = deployment.dtypes
    served = replace(deployment, conventions=SERVED)

    def decode_step(costs: ModelCosts, n: int) -> float:
        return step_time(costs.ops, decode(n), batch_size, served, hardware).latency_s

    def prefill_step(costs: ModelCosts, n: int) -> float:
        return step_time(costs.ops, prefill(n), batch_size, served, hardware).latency_s

    return {
        "memory": lambda costs, n: costs.cache_bytes(n, dtypes),
        "decode_bytes": lambda costs, n: costs.cache_traffic_bytes(decode(n), dtypes),
        "prefill_flops": lambda costs, n: costs.forward_flops(prefill(n), served.conventions),
        "decode_latency": decode_step,
        "prefill_latency": prefill_step,
        "decode_bytes_with_weights": lambda costs, n: costs.moved_bytes(
            decode(n), batch_size, served
        ),
        "prefill_flops_mixing": lambda costs, n: mixing_flops(costs, n, deployment),
    }


def mixing_flops(costs: ModelCosts, context_tokens: int, deployment: Deployment) -> int:
    """Return the FLOPs of a prefill between the mixers' projections."""
    step = prefill(context_tokens)
    return sum(
        n * mixer_cost(op.settings, op.hidden_size).core_flops(step, deployment.conventions)
        for op, n in costs.ops.items()
        if op.kind == MIXER and isinstance(op.settings, MixerSettings)
    )


def _chunk_size(spec: ModelSpec) -> int:
    """Return the largest chunk of the spec's mixers: prompts are padded to whole chunks."""
    return max((getattr(s, "chunk_size", 0) for s in spec.mixers.values()), default=0)


def last_crossing(saving: Callable[[int], float], ripple: int = 0) -> int | None:
    """Return the last n at which `saving(n)` is not above zero, None where that is the end.

    A grid of powers of two and their halves finds the last interval in which the sign changes;
    bisection finds a crossing in it.

    Args:
        saving: what the twin costs more.
        ripple: period of a sawtooth on it (padding to chunks), at its lowest one past each
            multiple. It makes several crossings of one; the last is looked for step by step.
    """
    grid = [1]
    while grid[-1] < SEARCHED_TOKENS:
        grid += [grid[-1] * 3 // 2, grid[-1] * 2] if grid[-1] > 1 else [2]
    if ripple:
        grid = sorted({*grid, *(n + 1 for n in grid), *range(1, 4 * ripple, ripple)})
    if saving(grid[-1]) <= 0:
        return None
    above = len(grid) - 1
    while above > 0 and saving(grid[above - 1]) > 0:
        above -= 1
    if above == 0:
        return 0
    low, high = grid[above - 1], grid[above]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if saving(middle) > 0 else (middle, high)
    return max(n for n in range(low, low + 2 * ripple + 1) if saving(n) <= 0)
