"""Kimi Delta Attention as functions of tensors: the decay and the chunked form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.nn.decayed_scores import decayed_scores
from hybridsim.nn.delta_rule import State, from_chunks, scan_chunks, to_chunks
from hybridsim.steps import BLOCK_SIZE, Step


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
