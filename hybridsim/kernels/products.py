"""Linear layers of few rows: any number of them that do not wait for each other, in one launch.

A matrix times one to four vectors is bound by the bytes of the matrix, and a narrow one by its own
launch. A program here holds some outputs of one layer and reads their weights once, the next tile
already on its way while one is multiplied. It reads all of its input anyway: what stands before the
layers (a norm) and after them (a gate's activation, an addition) costs no launch of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.activation import SUPPORTED, activate_gated
from hybridsim.kernels.arguments import Gate, Norm
from hybridsim.kernels.choice import MOST_ROWS
from hybridsim.kernels.parts import programs_at_once

PER_MULTIPROCESSOR = 4  # programs that should run on each: their loads are what is in flight
OUTPUTS = (16, 8, 4)  # of a program, the most that still fill the device
TILE, LEAST_TILE = 4096, 2048  # weights that a program reads at once: for one row, for several


@triton.jit
def _weights(weight, output, inside, channel, INPUTS: tl.constexpr):
    """Return a tile [1, outputs, channels] of a layer's weights."""
    seen = inside & (channel < INPUTS)
    return tl.load(weight + output.to(tl.int64) * INPUTS + channel, mask=seen, other=0.0)


@triton.jit
def linear_block(
    x, weight, bias, norm_weight, residual, out, rows, block, eps, gate_scale,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr, GATED: tl.constexpr, OFFSET: tl.constexpr,
    ACTIVATION: tl.constexpr, LIMIT: tl.constexpr,
    ROWS: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write some outputs of one layer. All tiles have three axes, so that one layout fits all.

    A gated layer has two rows of weights for each output, that of its gate OUTPUTS before the
    other; they stand side by side in a tile.
    """
    row = tl.arange(0, ROWS)[:, None, None]
    place = block * OUTPUT_BLOCK + tl.arange(0, OUTPUT_BLOCK)[None, :, None]
    if GATED:
        inside = place // 2 < OUTPUTS
        output = place // 2 + place % 2 * OUTPUTS
    else:
        inside = place < OUTPUTS
        output = place
    channel = tl.arange(0, CHANNELS)[None, None, :]
    total = tl.zeros((ROWS, OUTPUT_BLOCK, CHANNELS), tl.float32)
    squares = tl.zeros((ROWS, 1, CHANNELS), tl.float32)
    tile = _weights(weight, output, inside, channel, INPUTS)
    for start in range(0, INPUTS, CHANNELS):
        at = start + channel
        next_tile = _weights(weight, output, inside, at + CHANNELS, INPUTS)
        given = tl.load(x + row * INPUTS + at, mask=(row < rows) & (at < INPUTS), other=0.0)
        given = given.to(tl.float32)
        if norm_weight is not None:  # the root is the same for all channels, so it can wait
            squares += given * given
            scale = tl.load(norm_weight + at, mask=at < INPUTS, other=0.0).to(tl.float32)
            given *= scale + OFFSET
        total += tile.to(tl.float32) * given
        tile = next_tile
    product = tl.sum(total, 2, keep_dims=True)
    if norm_weight is not None:
        product *= tl.rsqrt(tl.sum(squares, 2, keep_dims=True) / INPUTS + eps)
    if bias is not None:
        product += tl.load(bias + output, mask=inside, other=0.0).to(tl.float32)
    if GATED:
        HALF: tl.constexpr = OUTPUT_BLOCK // 2
        gate, up = tl.split(tl.reshape(product, (ROWS, HALF, 2)))
        line = tl.arange(0, ROWS)[:, None]
        made = block * HALF + tl.arange(0, HALF)[None, :]
        value = activate_gated(gate * gate_scale, up, ACTIVATION, LIMIT)
        tl.store(out + line * OUTPUTS + made, value, mask=(line < rows) & (made < OUTPUTS))
    else:
        kept = (row < rows) & inside
        if residual is not None:
            added = tl.load(residual + row * OUTPUTS + output, mask=kept, other=0.0)
            product += added.to(tl.float32)
        tl.store(out + row * OUTPUTS + output, product, mask=kept)


@triton.jit
def _norm(
    x, weight, out, row, eps, WIDTH: tl.constexpr, PADDED: tl.constexpr, OFFSET: tl.constexpr
):
    """Write one row normalised."""
    channel = tl.arange(0, PADDED)
    inside = channel < WIDTH
    given = tl.load(x + row * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(weight + channel, mask=inside, other=0.0).to(tl.float32) + OFFSET
    inverse = tl.rsqrt(tl.sum(given * given, 0) / WIDTH + eps)
    tl.store(out + row * WIDTH + channel, given * inverse * scale, mask=inside)


@triton.jit(do_not_specialize=["rows"])
def _products_kernel(
    inputs, weights, biases, outs, norm_weight, normed, residual,
    INPUTS, OUTPUTS, GATED, FIRST_BLOCKS, rows, eps, gate_scale,
    OFFSET: tl.constexpr, ACTIVATION: tl.constexpr, LIMIT: tl.constexpr, PADDED: tl.constexpr,
    ROWS: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    for i in tl.static_range(len(OUTPUTS)):
        if (block >= FIRST_BLOCKS[i]) & (block < FIRST_BLOCKS[i + 1]):
            linear_block(
                inputs[i], weights[i], biases[i], norm_weight, residual, outs[i],
                rows, block - FIRST_BLOCKS[i], eps, gate_scale,
                INPUTS[i], OUTPUTS[i], GATED[i], OFFSET, ACTIVATION, LIMIT,
                ROWS, OUTPUT_BLOCK, CHANNELS,
            )  # fmt: skip
    if normed is not None and block >= FIRST_BLOCKS[len(OUTPUTS)]:  # one more program a row
        row = block - FIRST_BLOCKS[len(OUTPUTS)]
        _norm(inputs[0], norm_weight, normed, row, eps, INPUTS[0], PADDED, OFFSET)


def _first_blocks(outputs: Sequence[int], size: int) -> tuple[int, ...]:
    """Return where each layer's blocks of outputs begin, and after them where the last ends."""
    first = [0]
    for count in outputs:
        first.append(first[-1] + triton.cdiv(count, size))
    return tuple(first)


def constants(numbers: Sequence[int]) -> tuple[tl.constexpr, ...]:
    """Return numbers as constants one by one: a constant tuple would not survive `ahead`'s JSON."""
    return tuple(tl.constexpr(number) for number in numbers)


def cut(
    device: torch.device, counts: Sequence[int], rows: int, widest: int
) -> tuple[tuple[int, ...], dict[str, int]]:
    """Return how layers are cut: where the blocks of each begin, and the sizes of the tiles.

    Args:
        device: where it runs.
        counts: rows of each layer's weights.
        rows: of the inputs.
        widest: inputs of the widest layer.
    """
    wanted = programs_at_once(device, PER_MULTIPROCESSOR)
    block = next((n for n in OUTPUTS if _first_blocks(counts, n)[-1] >= wanted), OUTPUTS[-1])
    padded = triton.next_power_of_2(rows)
    channels = max(TILE // padded, LEAST_TILE) // block
    sizes = {
        "ROWS": padded,
        "OUTPUT_BLOCK": block,
        "CHANNELS": min(channels, triton.next_power_of_2(widest)),
    }
    return _first_blocks(counts, block), sizes


def _launch(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    *,
    norm: Norm | None = None,
    normed: Tensor | None = None,
    residual: Tensor | None = None,
    gated: Sequence[bool] | None = None,
    gate: Gate | None = None,
) -> tuple[Tensor, ...]:
    rows = inputs[0].numel() // inputs[0].shape[-1]
    assert rows <= MOST_ROWS, f"{rows} rows, at most {MOST_ROWS}"
    assert all(weight.is_contiguous() for weight in weights), "weights must be contiguous"
    xs, gated = tuple(x.contiguous() for x in inputs), gated or [False] * len(weights)
    gate = gate or Gate("silu")
    assert gate.activation in SUPPORTED, gate.activation
    widths, counts = tuple(x.shape[-1] for x in xs), tuple(weight.shape[0] for weight in weights)
    made = [n // 2 if pairs else n for n, pairs in zip(counts, gated, strict=True)]
    outs = tuple(
        torch.empty(*x.shape[:-1], n, dtype=x.dtype, device=x.device)
        for x, n in zip(xs, made, strict=True)
    )
    first_blocks, tiles = cut(xs[0].device, counts, rows, max(widths))
    _products_kernel[(first_blocks[-1] + (0 if normed is None else rows),)](
        xs, tuple(weights), tuple(biases), outs,
        None if norm is None else norm.weight, normed, residual,
        constants(widths), constants(made), constants(gated), constants(first_blocks),
        rows, 0.0 if norm is None else norm.eps, gate.scale,
        OFFSET=int(norm is not None and norm.unit_offset),
        ACTIVATION=gate.activation, LIMIT=gate.limit, PADDED=triton.next_power_of_2(widths[0]),
        num_warps=4, **tiles,
    )  # fmt: skip
    return outs


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
    return _launch(inputs, weights, biases)


def normed_linears(
    x: Float[Tensor, "*axes I"],
    norm: Norm,
    weights: Sequence[Float[Tensor, "O I"]],
    biases: Sequence[Tensor | None],
    *,
    gated: Sequence[bool] | None = None,
    gate: Gate | None = None,
    keep: bool = False,
) -> tuple[Tensor, ...]:
    """Return norm(x) W^T + b for each W and b; with `keep`, norm(x) after them.

    Args:
        x: at most MOST_ROWS rows.
        norm: over the last axis.
        weights: contiguous; of a gated layer the gate's rows, then as many others.
        biases: one number a row of weights each, or None.
        gated: which layers are.
        gate: what their halves become.
        keep: whether the normalised input is wanted too.
    """
    normed = torch.empty(x.shape, dtype=x.dtype, device=x.device) if keep else None
    made = _launch(
        [x] * len(weights), weights, biases, norm=norm, normed=normed, gated=gated, gate=gate
    )
    return made if normed is None else (*made, normed)


def added_linear(
    x: Float[Tensor, "*axes I"],
    weight: Float[Tensor, "O I"],
    bias: Tensor | None,
    residual: Float[Tensor, "*axes O"],
) -> Tensor:
    """Return residual + x W^T + b, rounded once.

    Args:
        x: at most MOST_ROWS rows.
        weight: contiguous.
        bias: [O], or None.
        residual: what the product is added to.
    """
    return _launch([x], [weight], [bias], residual=residual.contiguous())[0]
