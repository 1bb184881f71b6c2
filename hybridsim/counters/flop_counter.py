"""FLOPs by torch's own counter: with our operators whole, or decomposed into torch's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from hybridsim.conventions import FULL_SQUARE, FlopConventions, FlopRule
from hybridsim.counters.operators import check_known, flop_rules
from hybridsim.counters.pieces import Piece, model_pieces
from hybridsim.graph import ModelGraph
from hybridsim.mixers import MIXERS
from hybridsim.steps import Step

# The products whose FLOPs torch counts itself, as ours does.
COUNTED_BY_TORCH = frozenset(
    f"aten::{name}" for name in ("linear", "matmul", "mm", "bmm", "addmm", "baddbmm")
)


def count_flop_counter(
    graph: ModelGraph, step: Step, conventions: FlopConventions, batch_size: int = 1
) -> int:
    """Return the FLOPs of a step as torch counts them, our operators by our rules.

    Raises:
        UncountedOperatorError: the model uses an operator that no rule covers.
    """
    names = [name for name in flop_rules() if name not in COUNTED_BY_TORCH]
    return _total(graph, step, batch_size, names, conventions, torch.inference_mode)


def count_decomposed(graph: ModelGraph, step: Step, batch_size: int = 1) -> int:
    """Return the FLOPs of a step with our operators taken apart into torch's matrix products.

    Nothing of ours decides the count but the rule for grouped products, of which torch counts none,
    and the rules of installed packages for operators that cannot be taken apart. Every score is
    charged and no triangular solve is, nor a selective scan: compare with FULL_SQUARE closed forms.

    Raises:
        UncountedOperatorError: the model uses an operator that no rule covers.
    """
    of_plugins = (name for entry in MIXERS.plugins.values() for name in entry.flop_rules)
    names = ["aten::_grouped_mm", *of_plugins]
    return _total(graph, step, batch_size, names, FULL_SQUARE, torch.no_grad)


def _total(
    graph: ModelGraph,
    step: Step,
    batch_size: int,
    names: list[str],
    conventions: FlopConventions,
    mode: Callable[[], AbstractContextManager[Any]],
) -> int:
    total, rules = 0, flop_rules()
    for piece in model_pieces(graph, step, batch_size, conventions):
        # A mixer's operators exist once its module is imported, which building the piece did.
        mapping = {
            packet: _mapped(rules[name], conventions)
            for name in names
            if (packet := _packet(name)) is not None
        }
        total += piece.times * _count(piece, mapping, mode)
    return total


def _count(
    piece: Piece,
    mapping: dict[Any, Callable[..., int]],
    mode: Callable[[], AbstractContextManager[Any]],
) -> int:
    audit = _OperatorAudit()
    counter = FlopCounterMode(display=False, custom_mapping=mapping)
    # The audit stands inside: it sees what the counter's own decompositions leave.
    with mode(), counter, audit:
        piece.module(piece.input)
    check_known(audit.names)
    return int(counter.get_total_flops())


def _packet(name: str) -> Any:
    """Return the operator of a name such as `aten::bmm`, None where it is not registered."""
    namespace, _, operator = name.partition("::")
    return getattr(getattr(torch.ops, namespace), operator, None)


def _mapped(rule: FlopRule, conventions: FlopConventions) -> Callable[..., int]:
    """Return the rule as torch's counter calls it: tensors as shapes, the result's beside them."""

    def count(*args: Any, out_shape: Any = None, **kwargs: Any) -> int:
        return rule([*args, *kwargs.values()], tuple(out_shape), conventions)

    return count


class _OperatorAudit(TorchDispatchMode):
    """Notes the name of every operator that runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))
