"""Kimi Delta Attention as functions of tensors: the decay and the chunked form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.mixers.kda.settings import BLOCK_SIZE
from hybridsim.nn.delta_rule import State, from_chunks, scan_chunks, to_chunks
from hybridsim.steps import Step


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
    qk, kk = decayed_scores(q, k, decay)
    chunk_beta = to_chunks(beta[..., None], count, size).squeeze(-1)
    out, state = scan_chunks(q, k, v, decay, chunk_beta, qk, kk, state)
    return from_chunks(out, tokens), state


def decayed_scores(
    q: Float[Tensor, "B H N C K"], k: Float[Tensor, "B H N C K"], decay: Float[Tensor, "B H N C K"]
) -> tuple[Float[Tensor, "B H N C C"], Float[Tensor, "B H N C C"]]:
    """Return sum_c x_ic k_jc exp(decay_ic - decay_jc) for x = q and x = k, where j <= i, else 0.

    The exponent is never positive, but exp(decay_i) and exp(-decay_j) by themselves overflow. So a
    chunk is cut into sub-blocks: blocks below the diagonal split the exponent at the row block's
    first token, which keeps both halves at or below zero; blocks on it take the difference itself.
    """
    size = q.shape[-2]
    blocks = size // BLOCK_SIZE
    rows = torch.stack((q, k), dim=-2)  # [B, H, N, C, 2, K]
    below = [
        torch.cat((_below(rows, k, decay, block), _on(rows, k, decay, block)), dim=-1)
        for block in range(blocks)
    ]
    padded = [torch.cat((x, x.new_zeros(*x.shape[:-1], size - x.shape[-1])), dim=-1) for x in below]
    both = torch.cat(padded, dim=-3)  # [B, H, N, C, 2, C]
    return both[..., 0, :], both[..., 1, :]


def _below(rows: Tensor, k: Tensor, decay: Tensor, block: int) -> Tensor:
    """Return the scores of one row block with all earlier tokens, [B, H, N, block, 2, earlier]."""
    start, end = block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE
    if start == 0:
        return rows.new_zeros(*rows.shape[:3], BLOCK_SIZE, 2, 0)
    reference = decay[..., start - 1 : start, :]
    left = rows[..., start:end, :, :] * (decay[..., start:end, :] - reference).exp()[..., None, :]
    right = k[..., :start, :] * (reference - decay[..., :start, :]).exp()
    scores: Tensor = (left.flatten(-3, -2) @ right.mT).unflatten(-2, (BLOCK_SIZE, 2))
    return scores


def _on(rows: Tensor, k: Tensor, decay: Tensor, block: int) -> Tensor:
    """Return the scores of one row block with itself, [B, H, N, block, 2, block]."""
    inside = slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
    local = decay[..., inside, :]
    difference = local[..., :, None, :] - local[..., None, :, :]  # [.., i, j, K]
    future = torch.ones(BLOCK_SIZE, BLOCK_SIZE, dtype=torch.bool, device=k.device).triu(1)
    weights = difference.masked_fill(future[..., None], -torch.inf).exp()
    keys = weights * k[..., None, inside, :]
    return rows[..., inside, :, :] @ keys.mT
