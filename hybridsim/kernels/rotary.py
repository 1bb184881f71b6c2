"""Rotary position encoding in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

NUMBERS = 2048  # that one program turns at most, where a head is no wider


@triton.jit
def turn_pairs(
    given, made, frequencies, place, pair, inside, factor,
    PAIRS: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Write pairs of channels, turned by place times frequency; `inside` says which there are."""
    frequency = tl.load(frequencies + pair, mask=pair < PAIRS, other=0.0).to(tl.float32)
    angle = place.to(tl.float32) * frequency
    cos, sin = tl.cos(angle) * factor, tl.sin(angle) * factor
    one = 2 * pair if INTERLEAVED else pair
    two = one + 1 if INTERLEAVED else one + PAIRS
    left = tl.load(given + one, mask=inside, other=0.0).to(tl.float32)
    right = tl.load(given + two, mask=inside, other=0.0).to(tl.float32)
    tl.store(made + one, left * cos - right * sin, mask=inside)
    tl.store(made + two, left * sin + right * cos, mask=inside)


@triton.jit(do_not_specialize=["tokens", "first"])
def _kernel(
    x, frequencies, position, out, tokens, first, batch_stride, token_stride, head_stride, factor,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, PAIRS: tl.constexpr, HEAD_BLOCK: tl.constexpr,
    PAIRS_PADDED: tl.constexpr, REST_PADDED: tl.constexpr, INTERLEAVED: tl.constexpr,
    ON_DEVICE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    batch, token = row // tokens, row % tokens
    head = tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)[:, None]
    pair = tl.arange(0, PAIRS_PADDED)[None, :]
    place = first + token
    if ON_DEVICE:
        place += tl.load(position)
    given = x + batch * batch_stride + token * token_stride + head * head_stride
    made = out + (row * HEADS + head) * WIDTH
    inside = (head < HEADS) & (pair < PAIRS)
    turn_pairs(given, made, frequencies, place, pair, inside, factor, PAIRS, INTERLEAVED)
    if REST_PADDED > 0:
        rest = 2 * PAIRS + tl.arange(0, REST_PADDED)[None, :]
        beside = (head < HEADS) & (rest < WIDTH)
        tl.store(made + rest, tl.load(given + rest, mask=beside, other=0.0), mask=beside)


def rotate(
    x: Float[Tensor, "B T H K"],
    frequencies: Float[Tensor, " pairs"],
    past: int | Tensor,
    factor: float,
    *,
    interleaved: bool,
) -> Float[Tensor, "B T H K"]:
    """Return x with its first channels turned by position times frequency, as nn.rope does.

    Args:
        x: its channels contiguous.
        frequencies: of the pairs.
        past: the first token's position, on the device where it changes in a graph.
        factor: on the turned channels.
        interleaved: pairs are neighbours, else the halves of the turned channels.
    """
    batch, tokens, heads, width = x.shape
    if x.stride(3) != 1:
        x = x.contiguous()
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    pairs, on_device = frequencies.shape[0], isinstance(past, Tensor)
    together = max(1, min(triton.next_power_of_2(heads), NUMBERS // triton.next_power_of_2(width)))
    rest = width - 2 * pairs
    _kernel[(batch * tokens, triton.cdiv(heads, together))](
        x, frequencies, past if on_device else None, out, tokens, 0 if on_device else past,
        x.stride(0), x.stride(1), x.stride(2), factor,
        HEADS=heads, WIDTH=width, PAIRS=pairs, HEAD_BLOCK=together,
        PAIRS_PADDED=triton.next_power_of_2(pairs),
        REST_PADDED=triton.next_power_of_2(rest) if rest else 0,
        INTERLEAVED=interleaved, ON_DEVICE=on_device, num_warps=4,
    )  # fmt: skip
    return out
