"""The likeliest token of each row of logits, in two short launches."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

COLUMNS = 1024  # logits of a program


@triton.jit
def _best_kernel(
    logits, largest, places, row_stride,
    WIDTH: tl.constexpr, BLOCKS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    block, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    at = logits + row * row_stride + column
    value = tl.load(at, mask=column < WIDTH, other=float("-inf")).to(tl.float32)
    tl.store(largest + row * BLOCKS + block, tl.max(value, 0))
    tl.store(places + row * BLOCKS + block, block * COLUMNS + tl.argmax(value, 0))


@triton.jit
def _best_of_best_kernel(
    largest, places, out, WIDTH: tl.constexpr, BLOCKS: tl.constexpr, PADDED: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, PADDED)
    value = tl.load(largest + row * BLOCKS + block, mask=block < BLOCKS, other=float("-inf"))
    place = tl.load(places + row * BLOCKS + block, mask=block < BLOCKS, other=0)
    best = tl.sum(tl.where(block == tl.argmax(value, 0), place, 0), 0)
    # (Where all are NaN any will do that is a token.)
    tl.store(out + row, tl.minimum(best, WIDTH - 1).to(tl.int64))


def likeliest(logits: Float[Tensor, "*axes V"], out: Int[Tensor, "*axes"]) -> None:
    """Write each row's place of its largest number to `out`, the first where several are.

    Args:
        logits: each row contiguous.
        out: contiguous, in int64.
    """
    width = logits.shape[-1]
    rows = logits.reshape(-1, width)
    assert rows.stride(1) == 1, "logits must be contiguous"
    assert out.is_contiguous(), "tokens must be contiguous"
    count, blocks = rows.shape[0], triton.cdiv(width, COLUMNS)
    largest = torch.empty(count, blocks, dtype=torch.float32, device=logits.device)
    places = torch.empty(count, blocks, dtype=torch.int32, device=logits.device)
    _best_kernel[(blocks, count)](
        rows, largest, places, rows.stride(0),
        WIDTH=width, BLOCKS=blocks, COLUMNS=COLUMNS, num_warps=4,
    )  # fmt: skip
    _best_of_best_kernel[(count,)](
        largest, places, out,
        WIDTH=width, BLOCKS=blocks, PADDED=triton.next_power_of_2(blocks), num_warps=4,
    )  # fmt: skip
