"""Lightning attention as functions of tensors: reference recurrence, one step, chunked form.

Per head with slope s > 0:  S_t = exp(-s) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.delta_rule import State, from_chunks, to_chunks
from hybridsim.nn.linear_attention import scan_linear_chunks, write_and_read
from hybridsim.steps import Step


def lightning_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    slopes: Float[Tensor, H],
    state: State,
    *,
    chunk_size: int,
    like: Tensor,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Kernels take q, k and v in the dtype of `like`.
    """
    single = q.shape[1] == 1
    operation = "recurrent_simple_gla" if single else "chunk_simple_gla"
    sizes = {"key_dim": q.shape[-1], "value_dim": v.shape[-1], "gated": False}
    kernel = choose(operation, like, q, **sizes)
    if kernel is not None:
        narrow = (x.to(like.dtype) for x in (q, k, v))
        found: tuple[Tensor, Tensor] = kernel(*narrow, None, -slopes, state)
        return found
    if single:
        out, state = recurrent_lightning(q[:, 0], k[:, 0], v[:, 0], slopes, state)
        return out[:, None], state
    return chunk_lightning(q, k, v, slopes, state, chunk_size)


def decay_slopes(num_heads: int, layer: int, num_layers: int, schedule: str) -> list[float]:
    """Return the slope of each head: 2^(-8 (h + 1) / H), weaker in later layers.

    Sources: MiniMax-01, arXiv 2501.08313, the factor 1 - layer / (L - 1 + 1e-5) + 1e-5 of its code;
    for Ling and Ring ("bailing"), arXiv 2510.19338, the factor 1 - (layer - 1) / (L - 1) + 1e-5 of
    theirs, whose first layer decays faster than the slope says.
    """
    if schedule == "bailing":
        factor = 1 - (layer - 1) / max(num_layers - 1, 1) + 1e-5
        return [factor * slope for slope in alibi_slopes(num_heads)]
    factor = 1 - layer / (num_layers - 1 + 1e-5) + 1e-5
    return [factor * slope for slope in _geometric_slopes(num_heads)]


def alibi_slopes(num_heads: int) -> list[float]:
    """Return 2^(-8 (h + 1) / H) for powers of two, else those of the two powers around H.

    Source: ALiBi, arXiv 2108.12409, appendix A.
    """
    below = 2 ** math.floor(math.log2(num_heads))
    between = _geometric_slopes(2 * below)[::2]
    return _geometric_slopes(below) + between[: num_heads - below]


def _geometric_slopes(num_heads: int) -> list[float]:
    return [2 ** (-8 * (head + 1) / num_heads) for head in range(num_heads)]


def naive_lightning(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    slopes: Float[Tensor, H],
    state: State,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state as sums over all earlier tokens, without a recurrence.

        o_t = exp(-s t) S_0^T q_t + sum_{r <= t} exp(-s (t - r)) (q_t . k_r) v_r,    t = 1 .. T

    The reference that the other forms are tested against; quadratic.
    """
    tokens = q.shape[1]
    position = torch.arange(1, tokens + 1, dtype=q.dtype, device=q.device)
    distance = position[:, None] - position[None]
    decay = torch.exp(-slopes[:, None, None] * distance).tril()  # [H, T, T]
    scores = torch.einsum("bthk,brhk->bhtr", q, k) * decay
    grown = torch.exp(-slopes[:, None] * position)  # [H, T]
    before = torch.einsum("bthk,bhkv,ht->bthv", q, state, grown)
    out = torch.einsum("bhtr,brhv->bthv", scores, v) + before
    left = torch.exp(-slopes[:, None] * (tokens - position))  # [H, T]
    new_state = torch.einsum("brhk,brhv,hr->bhkv", k, v, left)
    return out, state * grown[:, -1, None, None] + new_state


def recurrent_lightning(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    slopes: Float[Tensor, H],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it."""
    return write_and_read(q, k, v, state * (-slopes).exp()[:, None, None])


def chunk_lightning(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    slopes: Float[Tensor, H],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size)
    q, k, v = (to_chunks(x, count, size) for x in (q, k, v))
    position = torch.arange(1, size + 1, device=q.device, dtype=q.dtype)
    slope = slopes[:, None, None]
    distance = position[:, None] - position[None]
    within = (-slope * distance).masked_fill(distance < 0, -torch.inf).exp()  # [H, C, C]
    scores = q @ k.mT * within[:, None]
    from_start = (-slope * position[:, None]).exp()[:, None]  # [H, 1, C, 1]
    # The last chunk may be short: its state is that after its last real token.
    first = torch.arange(0, tokens, size, device=q.device, dtype=q.dtype)
    real = (tokens - first).clamp(max=size)[:, None, None]  # [N, 1, 1]
    to_end = (-slope[:, None] * (real - position[:, None]).clamp(min=0)).exp()  # [H, N, C, 1]
    kept = (-slope[:, None] * real).exp()
    out, state = scan_linear_chunks(q * from_start, k * to_end, v, scores, kept[None], state)
    return from_chunks(out, tokens), state
