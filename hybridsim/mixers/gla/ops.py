"""Gated linear attention as functions of tensors: reference recurrence, one step, chunked form.

Per head and token, with log decay g <= 0 per key channel:

    S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,   o_t = S_t^T q_t

Source: arXiv 2312.06635, eq. 3 and section 4.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.decayed_scores import decayed_scores
from hybridsim.nn.delta_rule import State, from_chunks, to_chunks
from hybridsim.nn.linear_attention import scan_linear_chunks, write_and_read
from hybridsim.steps import BLOCK_SIZE, Step


def gated_linear_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H K"],
    state: State,
    *,
    chunk_size: int,
    like: Tensor,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Kernels take q, k and v in the dtype of `like`.
    """
    single = q.shape[1] == 1
    operation = "recurrent_gla" if single else "chunk_gla"
    kernel = choose(operation, like, q, key_dim=q.shape[-1], value_dim=v.shape[-1])
    if kernel is not None:
        narrow = (x.to(like.dtype) for x in (q, k, v))
        found: tuple[Tensor, Tensor] = kernel(*narrow, g, state)
        return found
    if single:
        out, state = recurrent_gla(q[:, 0], k[:, 0], v[:, 0], g[:, 0], state)
        return out[:, None], state
    return chunk_gla(q, k, v, g, state, chunk_size)


def naive_gla(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H K"],
    state: State,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state as the equation has them, token by token.

    The reference that the other forms are tested against; slow.
    """
    outputs = []
    for t in range(q.shape[1]):
        write = torch.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        state = torch.einsum("bhk,bhkv->bhkv", g[:, t].exp(), state) + write
        outputs.append(torch.einsum("bhkv,bhk->bhv", state, q[:, t]))
    return torch.stack(outputs, dim=1), state


def recurrent_gla(
    q: Float[Tensor, "B H K"],
    k: Float[Tensor, "B H K"],
    v: Float[Tensor, "B H V"],
    g: Float[Tensor, "B H K"],
    state: State,
) -> tuple[Float[Tensor, "B H V"], State]:
    """Return one token's output and the state after it."""
    return write_and_read(q, k, v, state * g.exp()[..., None])


def chunk_gla(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H K"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size, BLOCK_SIZE)
    q, k, v, g = (to_chunks(x, count, size) for x in (q, k, v, g))
    decay = g.cumsum(dim=-2)
    last = decay[..., -1:, :]
    scores = decayed_scores(q[..., None, :], k, decay).squeeze(-2)
    q_from_start, k_to_end = q * decay.exp(), k * (last - decay).exp()
    out, state = scan_linear_chunks(q_from_start, k_to_end, v, scores, last.exp().mT, state)
    return from_chunks(out, tokens), state
