"""Closed forms as data: a number that remembers how it was made runs through the Python functions.

The functions stay the only place of a formula. Where one decides by such a number, both ways are
followed, and the result is a choice. What comes out is a list of nodes, each an operation on
earlier ones, that any language with integers of any size and IEEE doubles evaluates to the same
figure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Node = tuple[Any, ...]

INTEGER, FLOAT, INPUT, FLOOR, CHOICE = "integer", "float", "input", "floor", "choice"
COMPARISONS = ("<", "<=", ">", ">=", "==", "!=")


class Undecided(Exception):
    """No error: the way followed so far says nothing about a decision, here it parts."""

    def __init__(self, condition: int) -> None:
        self.condition = condition


class Forms:
    """The nodes of several closed forms; equal ones are kept once.

    A node is one of

        ("integer", text), ("float", number), ("input", name)
        ("floor", node)
        (operator, node, node)          + - * / // % **, and the comparisons
        ("choice", condition, node where it holds, node where not)

    where operands are positions of earlier nodes. Integers are exact, `/` and whatever meets a
    float is a double, `//` and `%` round down: Python's rules.
    """

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._places: dict[Node, int] = {}
        self._decided: dict[int, bool] = {}

    def add(self, *node: Any) -> int:
        """Return the position of a node."""
        if node not in self._places:
            self._places[node] = len(self.nodes)
            self.nodes.append(node)
        return self._places[node]

    def place(self, value: object) -> int:
        """Return the position of a plain or traced number.

        Raises:
            TypeError: it is neither.
        """
        if isinstance(value, Traced):
            return value.node
        if isinstance(value, int):
            return self.add(INTEGER, str(int(value)))
        if isinstance(value, float):
            return self.add(FLOAT, value)
        raise TypeError(f"{value!r} is no number")

    def decide(self, condition: int) -> bool:
        """Return whether a condition holds on the way that is followed.

        Raises:
            Undecided: nothing is known about it.
        """
        if condition not in self._decided:
            raise Undecided(condition)
        return self._decided[condition]

    def trace(self, function: Callable[..., Any], *inputs: str) -> int:
        """Return the position of what `function` computes from the inputs of these names.

        It is called once for each way through its decisions, and must have no other effect.
        """
        return self._follow(function, inputs, {})

    def _follow(
        self, function: Callable[..., Any], inputs: tuple[str, ...], decided: dict[int, bool]
    ) -> int:
        self._decided = decided
        try:
            # New objects every time: a cache in between must not carry over from another way.
            return self.place(function(*(Traced(self, self.add(INPUT, name)) for name in inputs)))
        except Undecided as fork:
            condition = fork.condition
        holds, fails = (
            self._follow(function, inputs, {**decided, condition: answer})
            for answer in (True, False)
        )
        return holds if holds == fails else self.add(CHOICE, condition, holds, fails)


class Traced:
    """A number of which only the making is known; equal to nothing but by a decision."""

    def __init__(self, forms: Forms, node: int) -> None:
        self.forms = forms
        self.node = node

    def _made(self, operator: str, left: object, right: object) -> Traced:
        forms = self.forms
        return Traced(forms, forms.add(operator, forms.place(left), forms.place(right)))

    def __add__(self, other: object) -> Traced:
        return self._made("+", self, other)

    def __radd__(self, other: object) -> Traced:
        return self._made("+", other, self)

    def __sub__(self, other: object) -> Traced:
        return self._made("-", self, other)

    def __rsub__(self, other: object) -> Traced:
        return self._made("-", other, self)

    def __neg__(self) -> Traced:
        return self._made("-", 0, self)

    def __floor__(self) -> Traced:
        return Traced(self.forms, self.forms.add(FLOOR, self.node))

    def __mul__(self, other: object) -> Traced:
        return self._made("*", self, other)

    def __rmul__(self, other: object) -> Traced:
        return self._made("*", other, self)

    def __truediv__(self, other: object) -> Traced:
        return self._made("/", self, other)

    def __rtruediv__(self, other: object) -> Traced:
        return self._made("/", other, self)

    def __floordiv__(self, other: object) -> Traced:
        return self._made("//", self, other)

    def __rfloordiv__(self, other: object) -> Traced:
        return self._made("//", other, self)

    def __mod__(self, other: object) -> Traced:
        return self._made("%", self, other)

    def __rmod__(self, other: object) -> Traced:
        return self._made("%", other, self)

    def __divmod__(self, other: object) -> tuple[Traced, Traced]:
        return self // other, self % other

    def __rdivmod__(self, other: object) -> tuple[Traced, Traced]:
        return other // self, other % self

    def __pow__(self, other: object) -> Traced:
        return self._made("**", self, other)

    def __rpow__(self, other: object) -> Traced:
        return self._made("**", other, self)

    def __lt__(self, other: object) -> Traced:
        return self._made("<", self, other)

    def __le__(self, other: object) -> Traced:
        return self._made("<=", self, other)

    def __gt__(self, other: object) -> Traced:
        return self._made(">", self, other)

    def __ge__(self, other: object) -> Traced:
        return self._made(">=", self, other)

    def __eq__(self, other: object) -> Traced:  # type: ignore[override]
        return self._made("==", self, other)

    def __ne__(self, other: object) -> Traced:  # type: ignore[override]
        return self._made("!=", self, other)

    def __hash__(self) -> int:
        return id(self)

    def __bool__(self) -> bool:
        if self.forms.nodes[self.node][0] in COMPARISONS:
            return self.forms.decide(self.node)
        return bool(self != 0)
