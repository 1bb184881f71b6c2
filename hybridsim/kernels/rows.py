"""Rows that stand apart, brought together: the sum over a token's experts."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

COLUMNS = 1024  # channels of a program


@triton.jit
def _sum_kernel(
    rows, places, weights, out,
    TOP: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < WIDTH
    total = tl.zeros((COLUMNS,), tl.float32)
    for choice in tl.static_range(TOP):
        place = tl.load(places + token * TOP + choice)
        weight = tl.load(weights + token * TOP + choice)
        row = tl.load(rows + place * WIDTH + column, mask=inside, other=0.0)
        total += weight * row.to(tl.float32)
    tl.store(out + token * WIDTH + column, total, mask=inside)


def sum_of_rows(
    rows: Float[Tensor, "M D"], places: Int[Tensor, "N k"], weights: Float[Tensor, "N k"]
) -> Float[Tensor, "N D"]:
    """Return sum_j weights[n, j] rows[places[n, j]], summed in float32.

    Args:
        rows: contiguous rows.
        places: int64, which rows each sum takes.
        weights: in float32.
    """
    tokens, top = places.shape
    width = rows.shape[1]
    assert rows.is_contiguous(), "rows must be contiguous"
    out = torch.empty(tokens, width, dtype=rows.dtype, device=rows.device)
    columns = min(COLUMNS, triton.next_power_of_2(width))
    _sum_kernel[(tokens, triton.cdiv(width, columns))](
        rows, places.contiguous(), weights.contiguous(), out,
        TOP=top, WIDTH=width, COLUMNS=columns, num_warps=4,
    )  # fmt: skip
    return out
