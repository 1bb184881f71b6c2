"""Linear layers of few rows: any number of them that do not wait for each other, in one launch.

A matrix times one to four vectors is bound by the bytes of the matrix, and a narrow one by its own
launch. A program here holds some outputs of one layer and reads their weights once, the next tile
already on its way while one is multiplied.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import MOST_ROWS
from hybridsim.kernels.parts import programs_at_once

PER_MULTIPROCESSOR = 4  # programs that should run on each: their loads are what is in flight
OUTPUTS = (16, 8, 4)  # of a program, the most that still fill the device
TILE, LEAST_TILE = 4096, 2048  # weights that a program reads at once: for one row, for several


@triton.jit
def _weights(weight, output, channel, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr):
    """Return a tile [1, outputs, channels] of a layer's weights."""
    inside = (output < OUTPUTS) & (channel < INPUTS)
    return tl.load(weight + output.to(tl.int64) * INPUTS + channel, mask=inside, other=0.0)


@triton.jit
def _linear(
    x, weight, bias, out, rows, block,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write some outputs of one layer. All tiles have three axes, so that one layout fits all."""
    row = tl.arange(0, ROWS)[:, None, None]
    output = block * OUTPUT_BLOCK + tl.arange(0, OUTPUT_BLOCK)[None, :, None]
    channel = tl.arange(0, CHANNELS)[None, None, :]
    total = tl.zeros((ROWS, OUTPUT_BLOCK, CHANNELS), tl.float32)
    tile = _weights(weight, output, channel, OUTPUTS, INPUTS)
    for start in range(0, INPUTS, CHANNELS):
        at = start + channel
        next_tile = _weights(weight, output, at + CHANNELS, OUTPUTS, INPUTS)
        given = tl.load(x + row * INPUTS + at, mask=(row < rows) & (at < INPUTS), other=0.0)
        total += tile.to(tl.float32) * given.to(tl.float32)
        tile = next_tile
    product = tl.sum(total, 2, keep_dims=True)
    inside = (row < rows) & (output < OUTPUTS)
    if bias is not None:
        product += tl.load(bias + output, mask=output < OUTPUTS, other=0.0).to(tl.float32)
    tl.store(out + row * OUTPUTS + output, product, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _kernel(
    inputs, weights, biases, outs, INPUTS, OUTPUTS, FIRST_BLOCKS, rows,
    ROWS: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    for i in tl.static_range(len(OUTPUTS)):
        if (block >= FIRST_BLOCKS[i]) & (block < FIRST_BLOCKS[i + 1]):
            _linear(
                inputs[i], weights[i], biases[i], outs[i], rows, block - FIRST_BLOCKS[i],
                INPUTS[i], OUTPUTS[i], ROWS, OUTPUT_BLOCK, CHANNELS,
            )  # fmt: skip


def _first_blocks(outputs: Sequence[int], size: int) -> tuple[int, ...]:
    """Return where each layer's blocks of outputs begin, and after them where the last ends."""
    first = [0]
    for count in outputs:
        first.append(first[-1] + triton.cdiv(count, size))
    return tuple(first)


def _constants(numbers: Sequence[int]) -> tuple[tl.constexpr, ...]:
    """Return numbers as constants one by one: a constant tuple would not survive `ahead`'s JSON."""
    return tuple(tl.constexpr(number) for number in numbers)


def linears(
    inputs: Sequence[Float[Tensor, "*axes I"]],
    weights: Sequence[Float[Tensor, "O I"]],
    biases: Sequence[Tensor | None],
) -> tuple[Tensor, ...]:
    """Return x W^T + b for each x, W and b, as torch.nn.functional.linear, summed in float32.

    Args:
        inputs: [..., I] each, of as many rows, at most MOST_ROWS, in one dtype.
        weights: contiguous, of as many or other inputs and outputs each.
        biases: [O] each, or None.
    """
    rows = inputs[0].numel() // inputs[0].shape[-1]
    assert rows <= MOST_ROWS, f"{rows} rows, at most {MOST_ROWS}"
    assert all(weight.is_contiguous() for weight in weights), "weights must be contiguous"
    xs = tuple(x.contiguous() for x in inputs)
    outs = tuple(
        torch.empty(*x.shape[:-1], weight.shape[0], dtype=x.dtype, device=x.device)
        for x, weight in zip(xs, weights, strict=True)
    )
    counts = tuple(weight.shape[0] for weight in weights)
    wanted = programs_at_once(xs[0].device, PER_MULTIPROCESSOR)
    block = next((n for n in OUTPUTS if _first_blocks(counts, n)[-1] >= wanted), OUTPUTS[-1])
    widths, padded = tuple(x.shape[-1] for x in xs), triton.next_power_of_2(rows)
    channels = max(TILE // padded, LEAST_TILE) // block
    first_blocks = _first_blocks(counts, block)
    _kernel[(first_blocks[-1],)](
        xs, tuple(weights), tuple(biases), outs,
        _constants(widths), _constants(counts), _constants(first_blocks), rows,
        ROWS=padded, OUTPUT_BLOCK=block,
        CHANNELS=min(channels, triton.next_power_of_2(max(widths))), num_warps=4,
    )  # fmt: skip
    return outs
