"""The closed forms' nodes evaluated in Python, to compare with what made them and with a page."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
    "**": operator.pow,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}


def evaluate(nodes: Sequence[Sequence[Any]], place: int, inputs: Mapping[str, int]) -> Any:
    word, *operands = nodes[place]
    if word == "integer":
        return int(operands[0])
    if word == "float":
        return operands[0]
    if word == "input":
        return inputs[operands[0]]
    if word == "choice":
        condition, holds, fails = operands
        return evaluate(nodes, holds if evaluate(nodes, condition, inputs) else fails, inputs)
    values = [evaluate(nodes, at, inputs) for at in operands]
    return math.floor(values[0]) if word == "floor" else OPERATORS[word](*values)
