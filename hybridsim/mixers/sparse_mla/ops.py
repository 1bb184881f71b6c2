"""DeepSeek sparse attention as functions of tensors: index scores, selection, attention over it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.choice import choose, on_gpu
from hybridsim.nn.attention import visible_tokens
from hybridsim.nn.library import is_batched, operator
from hybridsim.nn.precision import wide
from hybridsim.nn.quantize import dequantize

QUERIES_AT_ONCE = 64  # queries whose selected latents are gathered together


def _scores_shape(
    query: Tensor, key: Tensor, weight: Tensor, length: Tensor | None = None
) -> Tensor:
    return query.new_empty(*query.shape[:2], key.shape[1])


@operator(
    "index_scores(Tensor query, Tensor key, Tensor weight, Tensor? length=None) -> Tensor",
    _scores_shape,
)
def index_scores(
    query: Tensor, key: Tensor, weight: Tensor, length: Tensor | None = None
) -> Tensor:
    """Return I_ts = sum_h w_th relu(q_th . k_s), minus infinity where s is after t.

    Source: DeepSeek-V3.2-Exp report, eq. 1.

    Args:
        query: [B, T, H, K]; the queries are the last T of the S tokens.
        key: [B, S, K], shared by the heads.
        weight: [B, T, H].
        length: as in `causal_attention`.

    Returns:
        [B, T, S].
    """
    new, seen = query.shape[1], key.shape[1]
    scores = (query @ key.mT[:, None]).relu()  # [B, T, H, S]
    total = (weight[..., None, :] @ scores).squeeze(-2)
    return total.masked_fill(~visible_tokens(new, seen, length, query.device), -torch.inf)


def stored_index_scores(
    query: Float[Tensor, "B T H K"],
    key: Float[Tensor, "B S K"],
    scales: Float[Tensor, "B S blocks"] | None,
    weight: Float[Tensor, "B T H"],
    length: Tensor | None,
) -> Float[Tensor, "B T S"]:
    """Return the index scores in float32 from keys as the cache has them.

    Args:
        query, weight, length: as for `index_scores`.
        key: in fp8 with scales, or as they are.
        scales: of each token's parts of INDEX_SCALE_BLOCK channels; None without fp8.
    """
    one_scale = scales is None or scales.shape[-1] == 1
    kernel = choose("index_scores", query, key, weight) if one_scale else None
    if kernel is not None:
        found: Tensor = kernel(
            query, key, weight, length, None if scales is None else scales[..., 0]
        )
        return found
    query = wide(query)
    key = key if scales is None else dequantize(key, scales)
    scores: Tensor = index_scores(query, key.to(query.dtype), weight, length)
    return scores


def select_tokens(scores: Float[Tensor, "B T S"], topk: int) -> Int[Tensor, "B T k"]:
    """Return the tokens with the highest scores, -1 where fewer are visible.

    Scores of exactly zero are common after the ReLU; among equals the earlier token is taken, so
    that a cached pass selects what a full one does. (topk leaves the order of equals open.)
    """
    # (Under vmap torch 2.11 cannot read bits as integers.)
    if on_gpu(scores) and scores.dtype == torch.float32 and not is_batched(scores):
        return select_by_key(scores, topk)
    values, tokens = scores.sort(dim=-1, descending=True, stable=True)
    values, tokens = values[..., :topk], tokens[..., :topk]
    return tokens.masked_fill(values == -torch.inf, -1)


def select_by_key(scores: Float[Tensor, "B T S"], topk: int) -> Int[Tensor, "B T k"]:
    """Return what `select_tokens` does, in any order, without a sort: scores in float32.

    A score and its place make one whole number, the score in the upper half: floating-point numbers
    order as the integers of their bits do, negative ones in reverse.
    """
    bits = (scores + 0.0).view(torch.int32)  # (without a negative zero)
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    later = torch.arange(scores.shape[-1] - 1, -1, -1, device=scores.device)
    tokens = ((ordered << 32) | later).topk(topk, dim=-1, sorted=False).indices
    return tokens.masked_fill(scores.gather(-1, tokens) == -torch.inf, -1)


def _attention_shape(
    query: Tensor, latents: Tensor, tokens: Tensor, value_dim: int, scale: float
) -> Tensor:
    return query.new_empty(*query.shape[:3], value_dim)


@operator(
    "selected_attention(Tensor query, Tensor latents, Tensor tokens, int value_dim, float scale)"
    " -> Tensor",
    _attention_shape,
)
def selected_attention(
    query: Tensor, latents: Tensor, tokens: Tensor, value_dim: int, scale: float
) -> Tensor:
    """Return attention of every query over its own selection of latents.

    Args:
        query: [B, T, H, W], absorbed: against latents.
        latents: [B, S, W]; the first `value_dim` channels are the values.
        tokens: [B, T, k], which latents a query sees; -1 is none.
        value_dim: R.
        scale: factor on the scores.

    Returns:
        [B, T, H, R].
    """
    kernel = choose("selected_attention", query, latents)
    if kernel is not None:
        found: Tensor = kernel(query, latents, tokens, scale, value_dim)
        return found
    latents = latents.to(query.dtype)  # from a cache in fp8
    parts = zip(query.split(QUERIES_AT_ONCE, 1), tokens.split(QUERIES_AT_ONCE, 1), strict=True)
    return torch.cat([_attend(q, latents, t, value_dim, scale) for q, t in parts], dim=1)


def _attend(query: Tensor, latents: Tensor, tokens: Tensor, value_dim: int, scale: float) -> Tensor:
    batch = torch.arange(latents.shape[0], device=latents.device)[:, None, None]
    chosen = latents[batch, tokens.clamp(min=0)]  # [B, T, k, W]
    scores = wide(query @ chosen.mT) * scale  # [B, T, H, k]
    scores = scores.masked_fill((tokens < 0)[..., None, :], -torch.inf)
    return scores.softmax(dim=-1).to(query.dtype) @ chosen[..., :value_dim]
