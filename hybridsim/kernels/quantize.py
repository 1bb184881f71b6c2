"""Rows of activations in fp8, each with its own scale, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hybridsim.dtypes import FP8_MAX, FP8_SMALLEST_SCALE

FP8 = torch.float8_e4m3fn


@triton.jit
def _kernel(
    x, out, scales, row_stride, LARGEST: tl.constexpr, SMALLEST_SCALE: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, WIDTH, BLOCK):
        at = start + channel
        part = tl.load(x + row * row_stride + at, mask=at < WIDTH, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(part))
    scale = tl.maximum(tl.max(largest, 0) / LARGEST, SMALLEST_SCALE)
    tl.store(scales + row, scale)
    for start in range(0, WIDTH, BLOCK):
        at = start + channel
        part = tl.load(x + row * row_stride + at, mask=at < WIDTH, other=0.0).to(tl.float32)
        part = tl.minimum(tl.maximum(part / scale, -LARGEST), LARGEST)
        tl.store(out + row * WIDTH + at, part.to(out.dtype.element_ty), mask=at < WIDTH)


def quantize_rows(x: Float[Tensor, "*rows K"]) -> tuple[Tensor, Float[Tensor, "*rows"]]:
    """Return fp8 rows and one float32 scale each, as nn.quantize.quantize_rows."""
    rows = x.reshape(-1, x.shape[-1])
    assert rows.stride(1) == 1, "channels must be contiguous"
    width = rows.shape[1]
    out = torch.empty(x.shape, dtype=FP8, device=x.device)
    scales = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    block = min(triton.next_power_of_2(width), 8192)
    _kernel[(rows.shape[0],)](
        rows, out, scales, rows.stride(0), LARGEST=FP8_MAX, SMALLEST_SCALE=FP8_SMALLEST_SCALE,
        WIDTH=width, BLOCK=block, num_warps=max(1, min(block // 512, 8)),
    )  # fmt: skip
    return out, scales
