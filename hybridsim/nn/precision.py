"""Where half precision would lose too much."""

from __future__ import annotations

import torch
from torch import Tensor


def wide(x: Tensor) -> Tensor:
    """Return x in float32, or as it is where it is wider."""
    return x if x.dtype == torch.float64 else x.float()
