"""One token of Kimi Delta Attention between its projections, in one launch.

A program serves one head of one sequence: it alone reads and moves on the columns that the head's
convolution keeps, and its state. At one token that is most of the work, and little: what counts is
that convolution, gates, recurrence and norm do not wait for each other's launches.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor


@triton.jit
def _window(
    new, columns, channel, inside, age, CHANNELS: tl.constexpr, FIRST: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """Return the SIZE newest columns of some channels, oldest first: [ages, channels]."""
    before = tl.load(
        columns + age[:, None] * CHANNELS + FIRST + channel[None, :],
        mask=(age < SIZE - 1)[:, None] & inside[None, :], other=0.0,
    )  # fmt: skip
    newest = tl.load(new + channel, mask=inside, other=0.0)
    return tl.where((age == SIZE - 1)[:, None], newest[None, :], before)


@triton.jit
def _convolved(window, taps, channel, inside, age, FIRST: tl.constexpr, SIZE: tl.constexpr):
    """Return silu(sum_i tap_i column_i) of some channels."""
    tap = tl.load(
        taps + (FIRST + channel)[None, :] * SIZE + age[:, None],
        mask=(age < SIZE)[:, None] & inside[None, :], other=0.0,
    )  # fmt: skip
    total = tl.sum(tap.to(tl.float32) * window.to(tl.float32), 0)
    return total * tl.sigmoid(total)


@triton.jit
def _move_on(
    window, columns, channel, inside, age, CHANNELS: tl.constexpr, FIRST: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    """Write the columns that the next token needs."""
    tl.store(
        columns + (age[:, None] - 1) * CHANNELS + FIRST + channel[None, :], window,
        mask=((age > 0) & (age < SIZE))[:, None] & inside[None, :],
    )  # fmt: skip


@triton.jit
def _product(x, weight, output, inside, RANK: tl.constexpr, RANK_PADDED: tl.constexpr):
    """Return some outputs of a narrow layer."""
    channel = tl.arange(0, RANK_PADDED)[None, :]
    tile = tl.load(
        weight + output[:, None] * RANK + channel,
        mask=inside[:, None] & (channel < RANK), other=0.0,
    )  # fmt: skip
    given = tl.load(x + channel, mask=channel < RANK, other=0.0)
    return tl.sum(tile.to(tl.float32) * given.to(tl.float32), 1)


@triton.jit
def _kda_step_kernel(
    q, k, v, strength, decay, gate, decay_weight, gate_weight, taps, columns, A_log, dt_bias,
    state, norm_weight, out, eps, lower_bound,
    HEADS: tl.constexpr, DIM: tl.constexpr, DIM_PADDED: tl.constexpr,
    RANK: tl.constexpr, RANK_PADDED: tl.constexpr, SIZE: tl.constexpr, AGES: tl.constexpr,
    BOUNDED: tl.constexpr, NEGATIVE: tl.constexpr,
):  # fmt: skip
    INNER: tl.constexpr = HEADS * DIM
    CHANNELS: tl.constexpr = 3 * INNER
    head, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    at, age = tl.arange(0, DIM_PADDED), tl.arange(0, AGES)
    inside = at < DIM
    channel = head * DIM + at  # of the head, among those of all
    columns += batch * (SIZE - 1) * CHANNELS
    first = batch * INNER
    # What takes longest to come is asked for first.
    cell = (batch * HEADS + head) * DIM * DIM + at[:, None] * DIM + at[None, :]
    in_state = inside[:, None] & inside[None, :]
    held = tl.load(state + cell, mask=in_state, other=0.0)
    q_window = _window(q + first, columns, channel, inside, age, CHANNELS, 0, SIZE)
    k_window = _window(k + first, columns, channel, inside, age, CHANNELS, INNER, SIZE)
    v_window = _window(v + first, columns, channel, inside, age, CHANNELS, 2 * INNER, SIZE)
    if RANK > 0:
        raw = _product(decay + batch * RANK, decay_weight, channel, inside, RANK, RANK_PADDED)
        factor = _product(gate + batch * RANK, gate_weight, channel, inside, RANK, RANK_PADDED)
    else:
        raw = tl.load(decay + first + channel, mask=inside, other=0.0).to(tl.float32)
        factor = tl.load(gate + first + channel, mask=inside, other=0.0).to(tl.float32)
    raw += tl.load(dt_bias + channel, mask=inside, other=0.0).to(tl.float32)
    rate = tl.exp(tl.load(A_log + head).to(tl.float32))
    if BOUNDED:
        log_decay = lower_bound * tl.sigmoid(rate * raw)
    else:  # softplus, without overflow
        log_decay = -rate * (tl.maximum(raw, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(raw))))
    beta = tl.sigmoid(tl.load(strength + batch * HEADS + head).to(tl.float32))
    if NEGATIVE:
        beta *= 2.0
    query = _convolved(q_window, taps, channel, inside, age, 0, SIZE)
    key = _convolved(k_window, taps, channel, inside, age, INNER, SIZE)
    value = _convolved(v_window, taps, channel, inside, age, 2 * INNER, SIZE)
    query *= tl.rsqrt(tl.sum(query * query, 0) + 1e-6) * tl.rsqrt(DIM * 1.0)
    key *= tl.rsqrt(tl.sum(key * key, 0) + 1e-6)
    held *= tl.exp(log_decay)[:, None]
    known = tl.sum(held * key[:, None], 0)
    read = tl.sum(held * query[:, None], 0)
    change = beta * (value - known)
    tl.store(state + cell, held + key[:, None] * change[None, :], mask=in_state)
    mixed = read + tl.sum(query * key, 0) * change
    mixed *= tl.rsqrt(tl.sum(mixed * mixed, 0) / DIM + eps)
    mixed *= tl.load(norm_weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + first + channel, mixed * tl.sigmoid(factor), mask=inside)
    # All threads have read the columns: they have met in the sums since.
    _move_on(q_window, columns, channel, inside, age, CHANNELS, 0, SIZE)
    _move_on(k_window, columns, channel, inside, age, CHANNELS, INNER, SIZE)
    _move_on(v_window, columns, channel, inside, age, CHANNELS, 2 * INNER, SIZE)


def kda_step(
    q: Float[Tensor, "*axes HK"],
    k: Float[Tensor, "*axes HK"],
    v: Float[Tensor, "*axes HK"],
    strength: Float[Tensor, "*axes H"],
    decay: Float[Tensor, "*axes R"],
    gate: Float[Tensor, "*axes R"],
    decay_weight: Float[Tensor, "HK R"] | None,
    gate_weight: Float[Tensor, "HK R"] | None,
    taps: Float[Tensor, "HK3 W"],
    columns: Float[Tensor, "B kept HK3"],
    A_log: Float[Tensor, " H"],
    dt_bias: Float[Tensor, " HK"],
    state: Float[Tensor, "B H K K"],
    norm_weight: Float[Tensor, " K"],
    eps: float,
    *,
    lower_bound: float | None = None,
    negative_eigenvalues: bool = False,
) -> Float[Tensor, "*axes HK"]:
    """Return what goes into the output projection, for one token of each sequence.

    As mixers.kda from the projections' outputs to the gated norm's. The state and the convolution's
    columns are updated in place.

    Args:
        q, k, v: projections, before the convolution.
        strength: what becomes a write strength.
        decay, gate: what the two matrices map to the decay's and the output gate's channels, or
            where there are none, those channels themselves, R = H K.
        decay_weight, gate_weight: contiguous, or None.
        taps: of the convolution over q, k and v, which has no bias and is followed by SiLU.
        columns: the W - 1 columns before, oldest first.
        A_log, dt_bias: parameters of the decay.
        state: in float32.
        norm_weight, eps: of the norm of a head's output.
        lower_bound, negative_eigenvalues: settings of the mixer.
    """
    batch, heads, dim, _ = state.shape
    given = (q, k, v, strength, decay, gate, taps, columns, state)
    assert all(tensor.is_contiguous() for tensor in given), "all must be contiguous"
    rank, size = 0 if decay_weight is None else decay.shape[-1], taps.shape[1]
    out = torch.empty_like(q)
    _kda_step_kernel[(heads, batch)](
        q, k, v, strength, decay, gate, decay_weight, gate_weight, taps, columns, A_log, dt_bias,
        state, norm_weight, out, eps, 0.0 if lower_bound is None else lower_bound,
        HEADS=heads, DIM=dim, DIM_PADDED=triton.next_power_of_2(dim),
        RANK=rank, RANK_PADDED=triton.next_power_of_2(rank) if rank else 1,
        SIZE=size, AGES=triton.next_power_of_2(size),
        BOUNDED=lower_bound is not None, NEGATIVE=negative_eigenvalues, num_warps=8,
    )  # fmt: skip
    return out
