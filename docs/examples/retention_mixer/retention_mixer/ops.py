"""Retention as functions of tensors: reference, one step, chunked form.

Per head with slope s > 0:  S_t = exp(-s) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.nn.delta_rule import State, from_chunks, to_chunks
from hybridsim.nn.library import operator
from hybridsim.nn.linear_attention import write_and_read
from hybridsim.steps import Step


def retention_slopes(num_heads: int) -> list[float]:
    """Return each head's slope -log(1 - 2^(-5 - h)). Source: RetNet, arXiv 2307.08621, eq. 8."""
    return [-math.log1p(-(2.0 ** (-5 - head))) for head in range(num_heads)]


def naive_retention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    slopes: Float[Tensor, " H"],
    state: State,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state as the equation has them; the reference, slow."""
    outputs = []
    for t in range(q.shape[1]):
        write = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        state = torch.einsum("h,bhkv->bhkv", (-slopes).exp(), state) + write
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, dim=1), state


def recurrent_retention(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    slopes: Float[Tensor, " H"],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it."""
    return write_and_read(q, k, v, state * (-slopes).exp()[:, None, None])


def _shape(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    return torch.empty_like(v)


@operator(
    "retention_mixer::inside_chunks(Tensor q, Tensor k, Tensor v, Tensor slopes) -> Tensor", _shape
)
def inside_chunks(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor) -> Tensor:
    """Return sum_{r <= t} exp(-s (t - r)) (q_t . k_r) v_r within each chunk, [B, H, N, C, V].

    An operator of its own, as a fused kernel would be: counters see one node and need its rule.
    """
    position = torch.arange(q.shape[-2], dtype=q.dtype, device=q.device)
    distance = position[:, None] - position
    decay = (-slopes[:, None, None] * distance).masked_fill(distance < 0, -torch.inf).exp()
    return q @ k.mT * decay[:, None] @ v


def chunk_retention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    slopes: Float[Tensor, " H"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    q, k, v = (to_chunks(x, count, size) for x in (q, k, v))
    within = inside_chunks(q, k, v, slopes)
    position = torch.arange(1, size + 1, dtype=q.dtype, device=q.device)[:, None]
    slope = slopes[:, None, None]
    reads = q * (-slope * position).exp()[:, None]
    outputs = []
    for n in range(count):
        real = min(size, tokens - n * size)  # the last chunk may be padded
        writes = k[:, :, n] * (-slope * (real - position).clamp(min=0)).exp()
        outputs.append(reads[:, :, n] @ state + within[:, :, n])
        state = state * (-slope * real).exp() + writes.mT @ v[:, :, n]
    return from_chunks(torch.stack(outputs, dim=2), tokens), state
