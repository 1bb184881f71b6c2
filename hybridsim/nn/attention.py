"""Softmax attention over keys and values, as one operator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridsim.nn.library import operator


def _shape(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None
) -> Tensor:
    return query.new_empty(*query.shape[:3], value.shape[3])


@operator(
    "causal_attention(Tensor query, Tensor key, Tensor value, float scale,"
    " int? window=None) -> Tensor",
    _shape,
)
def causal_attention(
    query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None = None
) -> Tensor:
    """Return softmax(scale q k^T) v over the keys that each query may see.

    Args:
        query: [B, T, H, K]; the queries are the last T of the S tokens.
        key: [B, S, H_kv, K], each head shared by H / H_kv query heads.
        value: [B, S, H_kv, V].
        scale: factor on the scores.
        window: keys a query sees at most, itself included; None for all before it.

    Returns:
        [B, T, H, V].
    """
    heads, new, seen = query.shape[2], query.shape[1], key.shape[1]
    if new == 1 and window is not None:
        key, value = key[:, -window:], value[:, -window:]
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if heads != key.shape[1] and not query.is_cuda:
        key, value = (x.repeat_interleave(heads // x.shape[1], dim=1) for x in (key, value))
    square = new == seen and window is None
    mask = None if new == 1 or square else causal_mask(new, seen, window, query.device)
    out = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=square and new > 1,
        scale=scale,
        enable_gqa=heads != key.shape[1],
    )
    return out.transpose(1, 2)


def causal_mask(new: int, seen: int, window: int | None, device: torch.device) -> Tensor:
    """Return [T, S], true where the query (one of the last T of S tokens) may see the key."""
    query = torch.arange(seen - new, seen, device=device)[:, None]
    key = torch.arange(seen, device=device)[None]
    visible = key <= query
    return visible if window is None else visible & (key > query - window)
