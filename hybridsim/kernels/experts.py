"""A mixture of experts for few tokens: each touched expert's weights are read once, nothing else.

Tokens and their experts are N k slots. A program of the first slot that chose an expert serves all
slots that chose it, found by comparing the numbers of all: no sort, no count leaves the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.activation import SUPPORTED, activate, activate_gated
from hybridsim.kernels.choice import MOST_SLOTS

ROWS = 16  # slots that one product serves: a tensor core's product has at least so many rows


class Tiles(NamedTuple):
    """How a product is cut: outputs of a program, inputs that it reads at once, warps, stages."""

    columns: int
    block: int
    warps: int = 4
    stages: int = 4


UP, DOWN = Tiles(32, 128), Tiles(64, 64)
UP_FEW = Tiles(
    64, 64, stages=5
)  # of up to FEW tokens: few programs, each with more bytes on the way
FEW = 4
WIDE = Tiles(32, 32)  # of both in float32


@triton.jit
def _slots_of(experts, slot, slots, SLOTS_PADDED: tl.constexpr):
    """Return slot's expert, the slots that chose it by rank (else -1), how many, and the first."""
    all_slots = tl.arange(0, SLOTS_PADDED)
    expert = tl.load(experts + slot)
    chosen = tl.load(experts + all_slots, mask=all_slots < slots, other=-1)
    same = (chosen == expert).to(tl.int32)
    rank = tl.where(same == 1, tl.cumsum(same, 0) - 1, -1)
    first = tl.min(tl.where(same == 1, all_slots, SLOTS_PADDED), 0)
    return expert.to(tl.int64), rank, tl.sum(same, 0), first


@triton.jit
def _slots_at(rank, first_rank, ROWS: tl.constexpr, SLOTS_PADDED: tl.constexpr):
    """Return the slots of ROWS ranks from first_rank on; 0 where there is none."""
    wanted = first_rank + tl.arange(0, ROWS)
    all_slots = tl.arange(0, SLOTS_PADDED)
    return tl.sum(tl.where(rank[None, :] == wanted[:, None], all_slots[None, :], 0), 1)


@triton.jit(do_not_specialize=["slots"])
def _up_kernel(
    x, up_weight, up_bias, up_scales, experts, inner_out, slots,
    TOP: tl.constexpr, WIDTH: tl.constexpr, INNER: tl.constexpr,
    SLOTS_PADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    ACTIVATION: tl.constexpr, LIMIT: tl.constexpr, GATED: tl.constexpr, HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(1)
    expert, rank, members, first = _slots_of(experts, slot, slots, SLOTS_PADDED)
    if first != slot:
        return
    OUTPUTS: tl.constexpr = 2 * INNER if GATED else INNER
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    in_columns = column < INNER
    channel = tl.arange(0, BLOCK)
    matrix = up_weight + expert * WIDTH * OUTPUTS
    for first_rank in range(0, members, ROWS):
        member = first_rank + tl.arange(0, ROWS) < members
        served = _slots_at(rank, first_rank, ROWS, SLOTS_PADDED)
        token = (served // TOP).to(tl.int64)
        one = tl.zeros((ROWS, COLUMNS), tl.float32)
        two = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, WIDTH, BLOCK):
            at = start + channel
            rows = tl.load(
                x + token[:, None] * WIDTH + at[None, :],
                mask=member[:, None] & (at < WIDTH)[None, :], other=0.0,
            )  # fmt: skip
            if up_scales is None:
                weights = matrix + at[:, None] * OUTPUTS + column[None, :]
                second = weights + INNER
            else:  # an output's weights lie together
                weights = matrix + at[:, None] + column[None, :] * WIDTH
                second = weights + INNER * WIDTH
            inside = (at < WIDTH)[:, None] & in_columns[None, :]
            left = tl.load(weights, mask=inside, other=0.0).to(rows.dtype)
            one = tl.dot(rows, left, one, input_precision=PRECISION)
            if GATED:
                right = tl.load(second, mask=inside, other=0.0).to(rows.dtype)
                two = tl.dot(rows, right, two, input_precision=PRECISION)
        if up_scales is not None:
            scale = up_scales + expert * OUTPUTS + column
            one *= tl.load(scale, mask=in_columns, other=0.0)[None, :]
            if GATED:
                two *= tl.load(scale + INNER, mask=in_columns, other=0.0)[None, :]
        if HAS_BIAS:
            bias = up_bias + expert * OUTPUTS + column
            one += tl.load(bias, mask=in_columns, other=0.0).to(tl.float32)[None, :]
            if GATED:
                two += tl.load(bias + INNER, mask=in_columns, other=0.0).to(tl.float32)[None, :]
        one = activate_gated(one, two, ACTIVATION, LIMIT) if GATED else activate(one, ACTIVATION)
        tl.store(
            inner_out + served.to(tl.int64)[:, None] * INNER + column[None, :], one,
            mask=member[:, None] & in_columns[None, :],
        )  # fmt: skip


@triton.jit(do_not_specialize=["slots"])
def _down_kernel(
    inner, down_weight, down_bias, down_scales, weights, experts, out, slots,
    WIDTH: tl.constexpr, INNER: tl.constexpr,
    SLOTS_PADDED: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
    HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    slot = tl.program_id(1)
    expert, rank, members, first = _slots_of(experts, slot, slots, SLOTS_PADDED)
    if first != slot:
        return
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    in_columns = column < WIDTH
    channel = tl.arange(0, BLOCK)
    matrix = down_weight + expert * INNER * WIDTH
    for first_rank in range(0, members, ROWS):
        member = first_rank + tl.arange(0, ROWS) < members
        served = _slots_at(rank, first_rank, ROWS, SLOTS_PADDED).to(tl.int64)
        product = tl.zeros((ROWS, COLUMNS), tl.float32)
        for start in range(0, INNER, BLOCK):
            at = start + channel
            rows = tl.load(
                inner + served[:, None] * INNER + at[None, :],
                mask=member[:, None] & (at < INNER)[None, :], other=0.0,
            )  # fmt: skip
            if down_scales is None:
                places = matrix + at[:, None] * WIDTH + column[None, :]
            else:  # an output's weights lie together
                places = matrix + at[:, None] + column[None, :] * INNER
            block = tl.load(
                places, mask=(at < INNER)[:, None] & in_columns[None, :], other=0.0
            ).to(rows.dtype)  # fmt: skip
            product = tl.dot(rows, block, product, input_precision=PRECISION)
        if down_scales is not None:
            scale = tl.load(down_scales + expert * WIDTH + column, mask=in_columns, other=0.0)
            product *= scale[None, :]
        if HAS_BIAS:
            bias = tl.load(down_bias + expert * WIDTH + column, mask=in_columns, other=0.0)
            product += bias.to(tl.float32)[None, :]
        product *= tl.load(weights + served, mask=member, other=0.0)[:, None]
        tl.store(
            out + served[:, None] * WIDTH + column[None, :], product,
            mask=member[:, None] & in_columns[None, :],
        )  # fmt: skip


@triton.jit
def _sum_kernel(
    products, shared, residual, out, TOP: tl.constexpr, TOP_PADDED: tl.constexpr,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    choice = tl.arange(0, TOP_PADDED)
    rows = tl.load(
        products + (token * TOP + choice)[:, None] * WIDTH + column[None, :],
        mask=(choice < TOP)[:, None] & (column < WIDTH)[None, :], other=0.0,
    )  # fmt: skip
    at, inside = token * WIDTH + column, column < WIDTH
    total = tl.sum(rows, 0)
    if shared is not None:
        total += tl.load(shared + at, mask=inside, other=0.0).to(tl.float32)
    if residual is not None:
        total += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total, mask=inside)


def moe_small(
    x: Float[Tensor, "N D"],
    up_weight: Float[Tensor, "E D J"],
    down_weight: Float[Tensor, "E I D"],
    weights: Float[Tensor, "N k"],
    experts: Int[Tensor, "N k"],
    activation: str,
    *,
    gated: bool = True,
    limit: float | None = None,
    up_bias: Float[Tensor, "E J"] | None = None,
    down_bias: Float[Tensor, "E D"] | None = None,
    up_scales: Float[Tensor, "E J"] | None = None,
    down_scales: Float[Tensor, "E D"] | None = None,
    shared: Float[Tensor, "N D"] | None = None,
    residual: Float[Tensor, "N D"] | None = None,
) -> Float[Tensor, "N D"]:
    """Return the weighted sum of each token's experts: sum_e w_e down_e(act(gate_e x) * up_e x).

    Args:
        x: tokens, N k of at most MOST_SLOTS.
        up_weight: gate, then up, J = 2 I; without a gate only up, J = I.
        down_weight: the way back.
        weights: of each token's experts, in float32.
        experts: their numbers.
        activation: one of activation.SUPPORTED.
        gated: whether there is a gate.
        limit: clips both factors, see nn.activation.gated.
        up_bias: added before the activation.
        down_bias: added to an expert's output.
        up_scales: of weights in fp8, which are [E, J, D] then; they are widened as they are read.
        down_scales: likewise, with [E, D, I].
        shared: contiguous, added to the sum; that of the shared experts.
        residual: contiguous, added too.
    """
    tokens, top = experts.shape
    slots, width = tokens * top, x.shape[1]
    inner = down_weight.shape[1 if down_scales is None else 2]
    assert slots <= MOST_SLOTS, f"{slots} slots, at most {MOST_SLOTS}"
    assert activation in SUPPORTED, activation
    x, experts, weights = x.contiguous(), experts.contiguous(), weights.contiguous()
    assert up_weight.is_contiguous(), "the experts' weights must be contiguous"
    assert down_weight.is_contiguous(), "the experts' weights must be contiguous"
    precision = "ieee" if x.dtype == torch.float32 else "tf32"
    padded = max(16, triton.next_power_of_2(slots))
    hidden = x.new_empty(slots, inner)
    cut = WIDE if x.dtype == torch.float32 else UP_FEW if tokens <= FEW else UP
    _up_kernel[(triton.cdiv(inner, cut.columns), slots)](
        x, up_weight, up_bias, up_scales, experts, hidden, slots,
        TOP=top, WIDTH=width, INNER=inner, SLOTS_PADDED=padded, ROWS=ROWS,
        COLUMNS=cut.columns, BLOCK=cut.block, ACTIVATION=activation, LIMIT=limit, GATED=gated,
        HAS_BIAS=up_bias is not None, PRECISION=precision,
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    products = torch.empty(slots, width, device=x.device, dtype=torch.float32)
    cut = WIDE if x.dtype == torch.float32 else DOWN
    _down_kernel[(triton.cdiv(width, cut.columns), slots)](
        hidden, down_weight, down_bias, down_scales, weights, experts, products, slots,
        WIDTH=width, INNER=inner, SLOTS_PADDED=padded, ROWS=ROWS,
        COLUMNS=cut.columns, BLOCK=cut.block, HAS_BIAS=down_bias is not None, PRECISION=precision,
        num_warps=cut.warps, num_stages=cut.stages,
    )  # fmt: skip
    out = torch.empty_like(x)
    columns = 256
    _sum_kernel[(tokens, triton.cdiv(width, columns))](
        products, shared, residual, out,
        TOP=top, TOP_PADDED=triton.next_power_of_2(top), WIDTH=width, COLUMNS=columns, num_warps=4,
    )  # fmt: skip
    return out
