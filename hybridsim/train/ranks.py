"""Rank correlations. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean


def kendall_tau(a: Sequence[float], b: Sequence[float], tie: float = 0.0) -> float:
    """Return Kendall's tau-b of paired values; NaN where one side has no order at all.

    Args:
        a, b: paired values.
        tie: differences up to this are ties. Scores at the ceiling differ in the third digit by
            chance alone.
    """
    pairs = [(i, j) for i in range(len(a)) for j in range(i)]
    signs_a = [_sign(a[i] - a[j], tie) for i, j in pairs]
    signs_b = [_sign(b[i] - b[j], tie) for i, j in pairs]
    ordered = math.sqrt(sum(map(abs, signs_a)) * sum(map(abs, signs_b)))
    agreement = sum(x * y for x, y in zip(signs_a, signs_b, strict=True))
    return agreement / ordered if ordered else math.nan


def _sign(difference: float, tie: float) -> int:
    return 0 if abs(difference) <= tie else (1 if difference > 0 else -1)


def spearman(a: Sequence[float], b: Sequence[float], tie: float = 0.0) -> float:
    """Return Spearman's correlation, ties sharing their mean rank; NaN without order.

    Args:
        a, b: paired values.
        tie: differences up to this are ties, see `kendall_tau`.
    """
    first, second = ranks(a, tie), ranks(b, tie)
    x, y = _centred(first), _centred(second)
    spread = math.sqrt(sum(v * v for v in x) * sum(v * v for v in y))
    return sum(v * w for v, w in zip(x, y, strict=True)) / spread if spread else math.nan


def _centred(values: Sequence[float]) -> list[float]:
    middle = fmean(values)
    return [value - middle for value in values]


def ranks(values: Sequence[float], tie: float = 0.0) -> list[float]:
    """Return the rank of each value, from 1: one more than those below it, and half of its ties."""
    return [
        sum(other < value - tie for other in values)
        + (1 + sum(abs(other - value) <= tie for other in values)) / 2
        for value in values
    ]
