"""Scores inside a chunk where every key channel decays by itself."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from hybridsim.steps import BLOCK_SIZE


def decayed_scores(
    rows: Float[Tensor, "B H N C R K"],
    k: Float[Tensor, "B H N C K"],
    decay: Float[Tensor, "B H N C K"],
) -> Float[Tensor, "B H N C R C"]:
    """Return sum_c x_ic k_jc exp(decay_ic - decay_jc) where j <= i, else 0.

    The exponent is never positive, but exp(decay_i) and exp(-decay_j) by themselves overflow. So a
    chunk is cut into sub-blocks: blocks below the diagonal split the exponent at the row block's
    first token, which keeps both halves at or below zero; blocks on it take the difference itself.

    Source: the secondary chunking of gated linear attention, arXiv 2312.06635, section 4.3.

    Args:
        rows: R vectors x of each token, such as its query, or its query and its key.
        k: keys.
        decay: log decay from the chunk's start up to each token, its own included.
    """
    size = k.shape[-2]
    below = [
        torch.cat((_below(rows, k, decay, block), _on(rows, k, decay, block)), dim=-1)
        for block in range(size // BLOCK_SIZE)
    ]
    padded = [torch.cat((x, x.new_zeros(*x.shape[:-1], size - x.shape[-1])), dim=-1) for x in below]
    return torch.cat(padded, dim=-3)


def _below(rows: Tensor, k: Tensor, decay: Tensor, block: int) -> Tensor:
    """Return the scores of one row block with all earlier tokens, [B, H, N, block, R, earlier]."""
    start, end = block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE
    if start == 0:
        return rows.new_zeros(*rows.shape[:3], BLOCK_SIZE, rows.shape[-2], 0)
    reference = decay[..., start - 1 : start, :]
    left = rows[..., start:end, :, :] * (decay[..., start:end, :] - reference).exp()[..., None, :]
    right = k[..., :start, :] * (reference - decay[..., :start, :]).exp()
    scores: Tensor = (left.flatten(-3, -2) @ right.mT).unflatten(-2, (BLOCK_SIZE, -1))
    return scores


def _on(rows: Tensor, k: Tensor, decay: Tensor, block: int) -> Tensor:
    """Return the scores of one row block with itself, [B, H, N, block, R, block]."""
    inside = slice(block * BLOCK_SIZE, (block + 1) * BLOCK_SIZE)
    local = decay[..., inside, :]
    difference = local[..., :, None, :] - local[..., None, :, :]  # [.., i, j, K]
    future = torch.ones(BLOCK_SIZE, BLOCK_SIZE, dtype=torch.bool, device=k.device).triu(1)
    weights = difference.masked_fill(future[..., None], -torch.inf).exp()
    keys = weights * k[..., None, inside, :]
    return rows[..., inside, :, :] @ keys.mT
