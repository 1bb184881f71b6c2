"""Mamba's selective scan: chunks side by side, then once more from the states between them."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

LEAST_CHUNK = 128  # tokens
MOST_CHUNKS = 512
CHANNELS = 32  # of a program


@triton.jit(do_not_specialize=["tokens", "chunk"])
def _scan_kernel(
    x, dt, a, b, c, starts, ends, sums, out, tokens, chunk,
    WIDTH: tl.constexpr, STATE: tl.constexpr, STATE_PADDED: tl.constexpr, CHANNELS: tl.constexpr,
    FROM_ZERO: tl.constexpr,
):  # fmt: skip
    part, batch = tl.program_id(0), tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    place = tl.arange(0, STATE_PADDED)
    inside, kept = channel < WIDTH, place < STATE
    both = inside[:, None] & kept[None, :]
    at = channel[:, None] * STATE + place[None, :]
    rate = tl.load(a + at, mask=both, other=0.0)
    own = (batch * tl.num_programs(0) + part) * WIDTH
    if FROM_ZERO:
        state = tl.zeros((CHANNELS, STATE_PADDED), tl.float32)
    else:
        state = tl.load(starts + own * STATE + at, mask=both, other=0.0)
    elapsed = tl.zeros((CHANNELS,), tl.float32)
    first = part * chunk
    for token in range(first, tl.minimum(first + chunk, tokens)):
        row = batch * tokens + token
        value = tl.load(x + row * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
        step = tl.load(dt + row * WIDTH + channel, mask=inside, other=0.0).to(tl.float32)
        write = tl.load(b + row * STATE + place, mask=kept, other=0.0).to(tl.float32)
        state = tl.exp(step[:, None] * rate) * state + (step * value)[:, None] * write[None, :]
        if FROM_ZERO:
            elapsed += step
        else:
            read = tl.load(c + row * STATE + place, mask=kept, other=0.0).to(tl.float32)
            tl.store(out + row * WIDTH + channel, tl.sum(state * read[None, :], 1), mask=inside)
    if FROM_ZERO:
        tl.store(sums + own + channel, elapsed, mask=inside)
    tl.store(ends + own * STATE + at, state, mask=both)


@triton.jit(do_not_specialize=["parts"])
def _between_kernel(
    a, state, ends, sums, starts, last, parts,
    WIDTH: tl.constexpr, STATE: tl.constexpr, STATE_PADDED: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(1).to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    place = tl.arange(0, STATE_PADDED)
    inside = channel < WIDTH
    both = inside[:, None] & (place < STATE)[None, :]
    at = channel[:, None] * STATE + place[None, :]
    rate = tl.load(a + at, mask=both, other=0.0)
    running = tl.load(state + batch * WIDTH * STATE + at, mask=both, other=0.0)
    for part in range(parts):
        own = (batch * parts + part) * WIDTH
        tl.store(starts + own * STATE + at, running, mask=both)
        elapsed = tl.load(sums + own + channel, mask=inside, other=0.0)
        end = tl.load(ends + own * STATE + at, mask=both, other=0.0)
        running = tl.exp(elapsed[:, None] * rate) * running + end
    tl.store(last + batch * WIDTH * STATE + at, running, mask=both)


def selective_scan(
    x: Float[Tensor, "B T D"],
    dt: Float[Tensor, "B T D"],
    a: Float[Tensor, "D S"],
    b: Float[Tensor, "B T S"],
    c: Float[Tensor, "B T S"],
    state: Float[Tensor, "B D S"],
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B D S"]]:
    """Return outputs and last state of h_t = exp(dt_t A) h_{t-1} + dt_t B_t x_t, y_t = C_t h_t.

    As mixers.mamba1.ops.selective_scan; states and outputs are in float32.

    Args:
        x, dt: inputs and step sizes.
        a: rates.
        b, c: what is written and read.
        state: before the first token.
    """
    batch, tokens, width = x.shape
    size = a.shape[1]
    x, dt, a, b, c, state = (each.contiguous() for each in (x, dt, a, b, c, state))
    chunk = max(LEAST_CHUNK, -(-tokens // MOST_CHUNKS))
    parts = -(-tokens // chunk)
    out = torch.empty(x.shape, dtype=torch.float32, device=x.device)
    last = torch.empty_like(state)
    blocks = triton.cdiv(width, CHANNELS)
    shapes = {
        "WIDTH": width,
        "STATE": size,
        "STATE_PADDED": triton.next_power_of_2(size),
        "CHANNELS": CHANNELS,
        "num_warps": 1,
    }

    def scan(starts: Tensor, ends: Tensor, sums: Tensor | None) -> None:
        _scan_kernel[(parts, blocks, batch)](
            x, dt, a, b, c, starts, ends, sums, out, tokens, chunk,
            FROM_ZERO=sums is not None, **shapes,
        )  # fmt: skip

    if parts == 1:
        scan(state, last, None)
        return out, last
    sums = torch.empty(batch, parts, width, dtype=torch.float32, device=x.device)
    ends = torch.empty(batch, parts, width, size, dtype=torch.float32, device=x.device)
    starts = torch.empty_like(ends)
    scan(state, ends, sums)
    _between_kernel[(blocks, batch)](a, state, ends, sums, starts, last, parts, **shapes)
    scan(starts, ends, None)
    return out, last
