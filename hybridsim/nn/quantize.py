"""Scaled fp8 storage of index keys, as in DeepSeek-V3.2's released inference code."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.dtypes import INDEX_SCALE_BLOCK

FP8 = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8).max
SMALLEST_SCALE = 1e-4 / FP8_MAX


def quantize(
    keys: Float[Tensor, "B T K"],
) -> tuple[Tensor, Float[Tensor, "B T blocks"]]:
    """Return fp8 keys and one float32 scale per 128 channels (the last block may be shorter)."""
    scales = torch.stack([_scale(part) for part in keys.split(INDEX_SCALE_BLOCK, dim=-1)], dim=-1)
    return (keys.float() / _per_channel(scales, keys.shape[-1])).to(FP8), scales


def dequantize(keys: Tensor, scales: Float[Tensor, "B T blocks"]) -> Float[Tensor, "B T K"]:
    """Return float32 keys."""
    return keys.float() * _per_channel(scales, keys.shape[-1])


def _scale(part: Tensor) -> Tensor:
    return (part.float().abs().amax(dim=-1) / FP8_MAX).clamp(min=SMALLEST_SCALE)


def _per_channel(scales: Tensor, width: int) -> Tensor:
    return scales.repeat_interleave(INDEX_SCALE_BLOCK, dim=-1)[..., :width]
