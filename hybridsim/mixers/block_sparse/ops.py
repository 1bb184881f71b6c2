"""Block-sparse attention on tensors: block scores, selection, attention over blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.choice import choose, on_gpu
from hybridsim.nn.attention import visible_tokens
from hybridsim.nn.cache import Past
from hybridsim.nn.library import operator
from hybridsim.nn.precision import wide

SCORES_AT_ONCE = 1 << 28  # on a GPU: a long prompt's scores of all pairs would not fit
QUERIES_AT_ONCE = 64  # queries whose selected blocks are gathered together


def _scores_shape(
    query: Tensor, key: Tensor, block_size: int, length: Tensor | None = None
) -> Tensor:
    blocks = -(-key.shape[1] // block_size)
    return query.new_empty(*query.shape[:3], blocks)


@operator(
    "block_scores(Tensor query, Tensor key, int block_size, Tensor? length=None) -> Tensor",
    _scores_shape,
)
def block_scores(
    query: Tensor, key: Tensor, block_size: int, length: Tensor | None = None
) -> Tensor:
    """Return the highest q_th . k_s over the visible tokens s of each block, else minus infinity.

    Args:
        query: [B, T, H, K]; the queries are the last T of the S tokens.
        key: [B, S, K], shared by the heads.
        block_size: keys of a block; blocks are counted from the first token.
        length: as in `causal_attention`.

    Returns:
        [B, T, H, blocks].
    """
    new, seen = query.shape[1], key.shape[1]
    rows = max(1, SCORES_AT_ONCE // (seen * query.shape[2])) if on_gpu(query) else new
    visible = visible_tokens(new, seen, length, query.device)[:, None]
    pieces = [
        _best_of_blocks(part, key, mask, block_size)
        for part, mask in zip(query.split(rows, 1), visible.split(rows), strict=True)
    ]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)


def _best_of_blocks(query: Tensor, key: Tensor, visible: Tensor, block_size: int) -> Tensor:
    scores = query @ key.mT[:, None]  # [B, T, H, S]
    scores = scores.masked_fill(~visible, -torch.inf)
    scores = F.pad(scores, (0, -key.shape[1] % block_size), value=-torch.inf)
    best: Tensor = scores.unflatten(-1, (-1, block_size)).amax(dim=-1)
    return best


def select_blocks(
    scores: Float[Tensor, "B T H N"],
    past_tokens: Past,
    block_size: int,
    topk_blocks: int,
    local_blocks: int,
) -> Int[Tensor, "B T H n"]:
    """Return the blocks with the highest scores, the local ones always; -1 where none is left."""
    query = past_tokens + torch.arange(scores.shape[1], device=scores.device)
    own = (query // block_size)[:, None, None]
    block = torch.arange(scores.shape[-1], device=scores.device)
    local = (block <= own) & (block > own - local_blocks)
    values, blocks = scores.masked_fill(local, torch.inf).topk(
        min(topk_blocks, scores.shape[-1]), dim=-1, sorted=False
    )
    return blocks.masked_fill(values == -torch.inf, -1)


def _attention_shape(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    blocks: Tensor,
    block_size: int,
    scale: float,
    length: Tensor | None = None,
) -> Tensor:
    return query.new_empty(query.shape)


@operator(
    "block_attention(Tensor query, Tensor key, Tensor value, Tensor blocks, int block_size,"
    " float scale, Tensor? length=None) -> Tensor",
    _attention_shape,
)
def block_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    blocks: Tensor,
    block_size: int,
    scale: float,
    length: Tensor | None = None,
) -> Tensor:
    """Return attention of every query over the visible keys of the blocks its key head selected.

    Args:
        query: [B, T, H, K]; the queries are the last T of the S tokens.
        key: [B, S, H_kv, K].
        value: [B, S, H_kv, K].
        blocks: [B, T, H_kv, n]; -1 is none.
        block_size: keys of a block.
        scale: factor on the scores.
        length: as in `causal_attention`.

    Returns:
        [B, T, H, K].
    """
    first = key.shape[1] - query.shape[1] if length is None else length - 1
    kernel = choose("block_attention", query, key, value)
    if kernel is not None:
        found: Tensor = kernel(query, key, value, blocks, block_size, first, scale)
        return found
    key, value = key.to(query.dtype), value.to(query.dtype)  # from a cache in fp8
    positions = first + torch.arange(query.shape[1], device=query.device)
    parts = zip(
        query.split(QUERIES_AT_ONCE, 1),
        blocks.split(QUERIES_AT_ONCE, 1),
        positions.split(QUERIES_AT_ONCE),
        strict=True,
    )
    pieces = [_attend(q, key, value, b, at, block_size, scale) for q, b, at in parts]
    return torch.cat(pieces, dim=1)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    blocks: Tensor,
    positions: Tensor,
    block_size: int,
    scale: float,
) -> Tensor:
    """Attend from queries at the positions, [T]."""
    heads = key.shape[2]
    inside = torch.arange(block_size, device=key.device)
    tokens = (blocks[..., None] * block_size + inside).flatten(-2)  # [B, T, H_kv, n * block]
    hidden = (tokens < 0) | (tokens > positions[:, None, None])
    batch = torch.arange(key.shape[0], device=key.device)[:, None, None, None]
    head = torch.arange(heads, device=key.device)[:, None]
    at = tokens.clamp(0, key.shape[1] - 1)
    chosen_keys, chosen_values = key[batch, at, head], value[batch, at, head]
    grouped = query.unflatten(2, (heads, -1))  # [B, T, H_kv, group, K]
    scores = wide(grouped @ chosen_keys.mT) * scale
    scores = scores.masked_fill(hidden[..., None, :], -torch.inf)
    return (scores.softmax(dim=-1).to(query.dtype) @ chosen_values).flatten(2, 3)
