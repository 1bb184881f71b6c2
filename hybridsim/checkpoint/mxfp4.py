"""Weights stored in mxfp4: four bits a number, in blocks of 32 that share a power of two.

Source: OCP Microscaling Formats v1.0, sections 5.3.3 and 5.4.1. A number is e2m1 (a sign, two bits
of exponent, one of mantissa), a scale e8m0 (an exponent alone, biased by 127).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

METHOD = "mxfp4"  # what config.json calls it
BLOCKS, SCALES = "_blocks", "_scales"  # ends of the names of a packed tensor's two parts
BIAS = 127
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NUMBERS = (*_POSITIVE, *(-number for number in _POSITIVE))  # by their four bits


def packed_names(stored: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Return, for each tensor stored as blocks and scales, the names of the two."""
    names = set(stored)
    plain = (name.removesuffix(BLOCKS) for name in names if name.endswith(BLOCKS))
    return {name: (name + BLOCKS, name + SCALES) for name in plain if name + SCALES in names}


def dequantize(
    blocks: UInt8[Tensor, "E O groups bytes"], scales: UInt8[Tensor, "E O groups"]
) -> Float[Tensor, "E I O"]:
    """Return the numbers in bfloat16, which holds them exactly, inputs before outputs.

    Memory beyond the result: one expert's numbers in float32.

    Args:
        blocks: two numbers a byte, the first in its lower half.
        scales: one a block.
    """
    experts, outputs = blocks.shape[:2]
    found = torch.empty(experts, outputs, 2 * blocks[0, 0].numel(), dtype=torch.bfloat16)
    for expert in range(experts):
        found[expert] = _numbers(blocks[expert], scales[expert])
    return found.mT


def _numbers(
    blocks: UInt8[Tensor, "O groups bytes"], scales: UInt8[Tensor, "O groups"]
) -> Float[Tensor, "O I"]:
    codes = torch.stack((blocks & 15, blocks >> 4), dim=-1).flatten(-2)  # [O, groups, block]
    numbers = torch.tensor(NUMBERS, dtype=torch.float32)[codes.int()]
    return torch.ldexp(numbers, scales.int()[..., None] - BIAS).flatten(-2)
