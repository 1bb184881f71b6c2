"""Where half precision would lose too much."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is wider."""
    return x if x.dtype == torch.float64 else x.float()


def wide_zeros(x: Tensor, *shape: int) -> Tensor:
    """Return zeros of this shape in the dtype of `wide(x)`: a state before the first token."""
    # (torch.promote_types would stand in a trace as an operator.)
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    return x.new_zeros(shape, dtype=dtype)
