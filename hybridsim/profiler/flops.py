"""The FLOPs of one pass three ways: closed form, fvcore, torch's counter."""

from __future__ import annotations

from typing import Any

from hybridsim.conventions import FULL_SQUARE, FlopConventions
from hybridsim.cost.model import ModelCosts
from hybridsim.graph import ModelGraph
from hybridsim.profiler.settings import FlopCountSettings
from hybridsim.steps import Step, decode, prefill


def flop_record(
    graph: ModelGraph, settings: FlopCountSettings, conventions: FlopConventions
) -> dict[str, Any]:
    """Return the FLOPs of a prefill, in the given conventions and as stock counters see it.

    `decode` is one token after the same prompt. `full_square` charges every score and no
    triangular solve; its counter takes our operators apart into torch's matrix products.
    """
    costs, step = ModelCosts.of(graph), prefill(settings.prompt_tokens)
    count = settings.count and conventions.linear_attention == "executed"
    return {
        "prompt_tokens": settings.prompt_tokens,
        "batch_size": 1,
        **_three_ways(graph, costs, step, conventions, count),
        "conventions": conventions.describe(),
        "full_square": {
            "closed_form": costs.forward_flops(step, FULL_SQUARE),
            "flop_counter": _decomposed(graph, step) if count else None,
        },
        "decode": _three_ways(graph, costs, decode(settings.prompt_tokens), conventions, count),
    }


def _three_ways(
    graph: ModelGraph, costs: ModelCosts, step: Step, conventions: FlopConventions, count: bool
) -> dict[str, int | None]:
    record: dict[str, int | None] = {
        "closed_form": costs.forward_flops(step, conventions),
        "fvcore": None,
        "flop_counter": None,
    }
    if count:
        # torch is needed from here on only
        from hybridsim.counters.flop_counter import count_flop_counter
        from hybridsim.counters.fvcore_count import count_fvcore

        record["fvcore"] = count_fvcore(graph, step, conventions)
        record["flop_counter"] = count_flop_counter(graph, step, conventions)
    return record


def _decomposed(graph: ModelGraph, step: Step) -> int:
    from hybridsim.counters.flop_counter import count_decomposed

    return count_decomposed(graph, step)
