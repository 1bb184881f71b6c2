"""One token's step of the short causal convolution, with its state, in one launch."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.activation import activate

COLUMNS = 256  # channels of a program


@triton.jit
def _step_kernel(
    x, state, weight, bias, out, row_stride,
    CHANNELS: tl.constexpr, SIZE: tl.constexpr, COLUMNS: tl.constexpr,
    ACTIVATION: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = channel < CHANNELS
    kept = state + batch * (SIZE - 1) * CHANNELS + channel
    taps = weight + channel * SIZE
    newest = tl.load(x + batch * row_stride + channel, mask=inside, other=0.0)
    tap = tl.load(taps + SIZE - 1, mask=inside, other=0.0).to(tl.float32)
    total = tap * newest.to(tl.float32)
    for age in tl.static_range(SIZE - 1):
        column = tl.load(kept + age * CHANNELS, mask=inside, other=0.0)
        tap = tl.load(taps + age, mask=inside, other=0.0).to(tl.float32)
        total += tap * column.to(tl.float32)
        if age > 0:
            tl.store(kept + (age - 1) * CHANNELS, column, mask=inside)
    if SIZE > 1:
        tl.store(kept + (SIZE - 2) * CHANNELS, newest, mask=inside)
    if HAS_BIAS:
        total += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + batch * CHANNELS + channel, activate(total, ACTIVATION), mask=inside)


def short_conv_step(
    x: Float[Tensor, "B C"],
    state: Float[Tensor, "B kept C"],
    weight: Float[Tensor, "C W"],
    bias: Float[Tensor, " C"] | None = None,
    activation: str = "silu",
) -> Float[Tensor, "B C"]:
    """Return act(sum_i weight[:, i] x_{t - W + 1 + i} + bias) and move the state on, in place.

    Args:
        x: the new token's channels.
        state: the W - 1 columns before it, oldest first, which are those up to it afterwards.
        weight: W taps a channel.
        bias: one number a channel.
        activation: one of activation.SUPPORTED without a gate.
    """
    batch, channels = x.shape
    assert x.stride(1) == 1, "channels must be contiguous"
    assert state.is_contiguous(), "the state must be contiguous"
    assert weight.is_contiguous(), "the taps must be contiguous"
    out = torch.empty(batch, channels, dtype=x.dtype, device=x.device)
    _step_kernel[(triton.cdiv(channels, COLUMNS), batch)](
        x, state, weight, bias, out, x.stride(0),
        CHANNELS=channels, SIZE=weight.shape[1], COLUMNS=COLUMNS,
        ACTIVATION=activation, HAS_BIAS=bias is not None, num_warps=4,
    )  # fmt: skip
    return out
