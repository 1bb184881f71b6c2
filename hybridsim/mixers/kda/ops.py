"""Kimi Delta Attention as functions of tensors: the decay and the chunked form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.kernels.choice import choose
from hybridsim.nn.decayed_scores import decayed_scores
from hybridsim.nn.delta_rule import (
    State,
    from_chunks,
    recurrent_delta_rule,
    scan_chunks,
    to_chunks,
    write_strength,
)
from hybridsim.nn.norm import l2_normalize
from hybridsim.nn.precision import wide
from hybridsim.steps import BLOCK_SIZE, Step


def kimi_delta_attention(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    raw_decay: Float[Tensor, "B T H K"],
    raw_strength: Float[Tensor, "B T H"],
    A_log: Float[Tensor, " H"],
    dt_bias: Float[Tensor, " HK"],
    state: State,
    *,
    lower_bound: float | None,
    negative_eigenvalues: bool,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state by the form, and the kernel, that suit the tokens.

    Args:
        q, k: queries and keys before their norms.
        v: values.
        raw_decay: what becomes a log decay with A_log and dt_bias, see `log_decay`.
        raw_strength: what becomes a write strength, see `write_strength`.
        A_log, dt_bias: parameters of the decay.
        state: before the first token.
        lower_bound, negative_eigenvalues, chunk_size: the mixer's settings.
    """
    single = q.shape[1] == 1
    operation = "recurrent_kda" if single else "chunk_kda"
    kernel = choose(operation, q, A_log, key_dim=q.shape[-1], value_dim=v.shape[-1])
    if kernel is not None:
        inputs = (q, k, v, raw_decay, raw_strength, A_log, dt_bias, state)
        found: tuple[Tensor, Tensor] = kernel(*inputs, lower_bound, negative_eigenvalues)
        return found
    q, k, v = l2_normalize(wide(q)) * q.shape[-1] ** -0.5, l2_normalize(wide(k)), wide(v)
    biased = wide(raw_decay) + wide(dt_bias).view(raw_decay.shape[2:])
    g = log_decay(biased, wide(A_log), lower_bound)
    beta = write_strength(wide(raw_strength), negative_eigenvalues)
    if single:
        token = (q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0])
        out, state = recurrent_delta_rule(*token, state)
        return out[:, None], state
    return chunk_kda(q, k, v, g, beta, state, chunk_size)


def log_decay(
    raw: Float[Tensor, "B T H K"], A_log: Float[Tensor, " H"], lower_bound: float | None
) -> Float[Tensor, "B T H K"]:
    """Return g = -exp(A) softplus(raw) <= 0, or lower_bound sigmoid(exp(A) raw).

    The second form keeps g above `lower_bound`, so that no token can wipe a channel out. Sources:
    Kimi Linear, arXiv 2510.26692; Ling 3.0 and the safe gate of flash-linear-attention.
    """
    rate = A_log.exp()[:, None]
    if lower_bound is None:
        return -rate * F.softplus(raw)
    return lower_bound * (rate * raw).sigmoid()


def chunk_kda(
    q: Float[Tensor, "B T H K"],
    k: Float[Tensor, "B T H K"],
    v: Float[Tensor, "B T H V"],
    g: Float[Tensor, "B T H K"],
    beta: Float[Tensor, "B T H"],
    state: State,
    chunk_size: int,
) -> tuple[Float[Tensor, "B T H V"], State]:
    """Return outputs and last state of the delta rule with a decay per channel, chunk by chunk."""
    tokens = q.shape[1]
    count, size = Step(tokens).chunks(chunk_size, BLOCK_SIZE)
    q, k, v, g = (to_chunks(x, count, size) for x in (q, k, v, g))
    decay = g.cumsum(dim=-2)
    qk, kk = decayed_scores(torch.stack((q, k), dim=-2), k, decay).unbind(-2)
    chunk_beta = to_chunks(beta[..., None], count, size).squeeze(-1)
    out, state = scan_chunks(q, k, v, decay, chunk_beta, qk, kk, state)
    return from_chunks(out, tokens), state
