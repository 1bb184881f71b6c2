"""Numbers in fp8: index keys with a scale a block, rows with one scale each, caches with none."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.dtypes import FP8_MAX, FP8_SMALLEST_SCALE, INDEX_SCALE_BLOCK
from hybridsim.kernels.choice import choose

FP8 = torch.float8_e4m3fn


def saturated(x: Tensor) -> Tensor:
    """Return x in fp8 without a scale, what is out of its range at its ends.

    As keys and values are cached by engines that were given no scales of a calibration.
    """
    return x.clamp(-FP8_MAX, FP8_MAX).to(FP8)


def quantize_rows(x: Float[Tensor, "*rows K"]) -> tuple[Tensor, Float[Tensor, "*rows"]]:
    """Return fp8 rows and one float32 scale each: the largest of a row is the format's largest."""
    kernel = choose("quantize_rows", x)
    if kernel is not None:
        found: tuple[Tensor, Tensor] = kernel(x)
        return found
    scales = _scale(x)
    return saturated(x.float() / scales[..., None]), scales


def quantize(
    keys: Float[Tensor, "B T K"],
) -> tuple[Tensor, Float[Tensor, "B T blocks"]]:
    """Return fp8 keys and one float32 scale per 128 channels (the last block may be shorter).

    Source: DeepSeek-V3.2's released inference code.
    """
    scales = torch.stack([_scale(part) for part in keys.split(INDEX_SCALE_BLOCK, dim=-1)], dim=-1)
    return (keys.float() / _per_channel(scales, keys.shape[-1])).to(FP8), scales


def dequantize(keys: Tensor, scales: Float[Tensor, "B T blocks"]) -> Float[Tensor, "B T K"]:
    """Return float32 keys."""
    return keys.float() * _per_channel(scales, keys.shape[-1])


def _scale(part: Tensor) -> Tensor:
    return (part.float().abs().amax(dim=-1) / FP8_MAX).clamp(min=FP8_SMALLEST_SCALE)


def _per_channel(scales: Tensor, width: int) -> Tensor:
    return scales.repeat_interleave(INDEX_SCALE_BLOCK, dim=-1)[..., :width]
