"""FLOPs by fvcore, with our rule for every operator."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from fvcore.nn import FlopCountAnalysis

from hybridsim.conventions import FlopConventions, FlopRule
from hybridsim.counters.operators import check_known, flop_rules
from hybridsim.counters.pieces import model_pieces
from hybridsim.graph import ModelGraph
from hybridsim.steps import Step


def count_fvcore(
    graph: ModelGraph, step: Step, conventions: FlopConventions, batch_size: int = 1
) -> int:
    """Return the FLOPs of a step as fvcore counts them on the compiled model.

    fvcore's own rules are replaced: it takes a multiply-add for one FLOP and knows neither
    attention, grouped products nor our operators. Every distinct layer is traced once.

    Raises:
        UncountedOperatorError: the model uses an operator that no rule covers.
    """
    return sum(
        piece.times * sum(count_module(piece.module, (piece.input,), conventions).values())
        for piece in model_pieces(graph, step, batch_size, conventions)
    )


def count_module(
    module: torch.nn.Module, inputs: tuple[Any, ...], conventions: FlopConventions
) -> Counter[str]:
    """Return the FLOPs of one call by operator."""
    analysis = FlopCountAnalysis(module, inputs)
    analysis.clear_op_handles()
    handles = {name: _handle(rule, conventions) for name, rule in flop_rules().items()}
    analysis.set_op_handle(**handles)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.tracer_warnings("none")
    logging.getLogger("fvcore.nn.jit_analysis").setLevel(logging.ERROR)
    with torch.no_grad():
        by_operator = Counter({str(n): int(f) for n, f in analysis.by_operator().items()})
        check_known(analysis.unsupported_ops())
    return by_operator


def _handle(rule: FlopRule, conventions: FlopConventions) -> Callable[[list[Any], list[Any]], int]:
    """Return the rule as fvcore calls it: with the traced values of inputs and outputs."""

    def count(inputs: list[Any], outputs: list[Any]) -> int:
        return rule([_value(v) for v in inputs], _value(outputs[0]), conventions)

    return count


def _value(value: Any) -> Any:
    """Return a traced tensor's shape, or a constant itself."""
    if value.type().kind() == "TensorType":
        return tuple(value.type().sizes())
    return value.toIValue()
