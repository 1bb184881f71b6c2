"""Modules whose weights are held in fp8, one scale an output, made of modules that hold them wide.

Products take activations that are rounded to fp8 as they come, one scale a row (W8A8). Where torch
has no such product, on CPUs, both are widened first, which gives the same numbers.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.kernels.choice import REFERENCE, note, on_gpu
from hybridsim.nn.quantize import quantize_rows

ALIGNMENT = 16  # inputs and outputs of torch's scaled products are whole multiples


def is_aligned(inputs: int, outputs: int) -> bool:
    """Whether torch's scaled products take such a matrix."""
    return inputs % ALIGNMENT == 0 and outputs % ALIGNMENT == 0


class Fp8Linear(nn.Module):
    """x W^T + b with W in fp8, a scale an output, and x rounded to fp8, a scale a row.

    The weight is called `codes`, so that whoever reads `weight` finds none, and not numbers that
    lack their scales.

    Args:
        wide: the layer whose weight is rounded.
    """

    def __init__(self, wide: nn.Linear) -> None:
        super().__init__()
        codes, scales = quantize_rows(wide.weight.detach())
        self.codes = nn.Parameter(codes, requires_grad=False)  # [outputs, inputs]
        self.register_buffer("scales", scales)
        self.bias = wide.bias
        self.scales: Tensor

    def forward(self, x: Float[Tensor, "*rows I"]) -> Float[Tensor, "*rows O"]:
        rows, scales = quantize_rows(x.reshape(-1, x.shape[-1]))
        out = scaled_product(rows, scales, self.codes, self.scales, x.dtype)
        out = out if self.bias is None else out + self.bias
        return out.view(*x.shape[:-1], -1)


def scaled_product(
    rows: Tensor, row_scales: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return rows [N, I] times codes [O, I] transposed, both in fp8 with their scales: [N, O]."""
    if not on_gpu(rows):
        note("fp8_linear", REFERENCE)
        wide = rows.float() * row_scales[:, None]
        return (wide @ (codes.float() * scales[:, None]).T).to(dtype)
    note("fp8_linear", "torch _scaled_mm, rows")
    return torch._scaled_mm(
        rows,
        codes.T,
        scale_a=row_scales[:, None],
        scale_b=scales[None, :],
        out_dtype=dtype,
        use_fast_accum=True,
    )


class Fp8Embedding(nn.Module):
    """A table of embeddings in fp8, a scale a row.

    Args:
        wide: the table that is rounded.
    """

    def __init__(self, wide: nn.Embedding) -> None:
        super().__init__()
        codes, scales = quantize_rows(wide.weight.detach())
        self.codes = nn.Parameter(codes, requires_grad=False)  # [vocabulary, width]
        self.register_buffer("scales", scales)
        self.scales: Tensor
        self.dtype = wide.weight.dtype

    def forward(self, tokens: Tensor) -> Tensor:
        note("fp8_embedding", "torch, widened")
        rows = self.codes.view(torch.uint8)[tokens].view(self.codes.dtype)
        return (rows.float() * self.scales[tokens][..., None]).to(self.dtype)
