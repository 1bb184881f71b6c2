"""Scores of the lightning indexer, without the scores of its single heads in memory."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

TOKENS = 128  # keys of a program
QUERIES = 16  # queries of a program, which share its keys


@triton.jit(do_not_specialize=["queries", "capacity", "batch_tokens"])
def _kernel(
    q, keys, scales, weights, length, out, queries, capacity, batch_tokens,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, HEADS_PADDED: tl.constexpr,
    WIDTH_PADDED: tl.constexpr, TOKENS: tl.constexpr, QUERIES: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(2).to(tl.int64)
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    first = tl.program_id(1) * QUERIES
    last = tl.minimum(first + QUERIES, queries)
    in_cache = token < capacity
    past = capacity - queries
    if length is not None:
        past = tl.load(length) - queries
    channel, head = tl.arange(0, WIDTH_PADDED), tl.arange(0, HEADS_PADDED)
    in_width, in_heads = channel < WIDTH, head < HEADS
    # A tile after all its queries has nothing to score.
    visible = tl.program_id(0) * TOKENS < past + last
    key_row = batch * batch_tokens + token
    key = tl.load(
        keys + key_row[:, None] * WIDTH + channel[None, :],
        mask=(in_cache & visible)[:, None] & in_width[None, :], other=0.0,
    ).to(q.dtype.element_ty)  # fmt: skip
    for query in range(first, last):
        row = batch * queries + query
        rows = row * HEADS + head
        heads = tl.load(
            q + rows[:, None] * WIDTH + channel[None, :],
            mask=(in_heads & visible)[:, None] & in_width[None, :], other=0.0,
        )  # fmt: skip
        weight = tl.load(weights + rows, mask=in_heads, other=0.0).to(tl.float32)
        products = tl.dot(key, tl.trans(heads), input_precision=PRECISION)
        scores = tl.sum(tl.maximum(products, 0.0) * weight[None, :], 1)
        if scales is not None:
            # A positive factor passes the ReLU.
            scores *= tl.load(scales + key_row, mask=in_cache, other=0.0)
        scores = tl.where(token <= past + query, scores, float("-inf"))
        tl.store(out + row * capacity + token, scores, mask=in_cache)


def index_scores(
    q: Float[Tensor, "B T H K"],
    keys: Float[Tensor, "B S K"],
    weights: Float[Tensor, "B T H"],
    length: Int[Tensor, " 1"] | None = None,
    scales: Float[Tensor, "B S"] | None = None,
) -> Float[Tensor, "B T S"]:
    """Return I_ts = sum_h w_th relu(q_th . k_s) in float32, minus infinity where s is after t.

    As mixers.sparse_mla.ops.index_scores. Source: DeepSeek-V3.2-Exp report, eq. 1. Keys that were
    rounded to fp8 with one scale a token come as they are stored: with queries in bfloat16, which
    holds fp8 exactly, the scores are those of the keys times their scales in float32.

    Args:
        q: index queries, the last T of the tokens.
        keys: the cache's storage, shared by the heads, in any floating format.
        weights: of the heads.
        length: tokens in the cache, the queries' own included; None for all S.
        scales: positive factors on the keys.
    """
    batch, queries, heads, width = q.shape
    capacity = keys.shape[1]
    assert keys.stride()[1:] == (width, 1), "each sequence's keys must be contiguous"
    assert scales is None or scales.stride() == (keys.stride(0) // width, 1), "scales as keys"
    out = torch.empty(batch, queries, capacity, dtype=torch.float32, device=q.device)
    wide = q.dtype == torch.float32
    tokens = 32 if wide else TOKENS
    _kernel[(triton.cdiv(capacity, tokens), triton.cdiv(queries, QUERIES), batch)](
        q.contiguous(), keys, scales, weights.contiguous(), length, out,
        queries, capacity, keys.stride(0) // width,
        HEADS=heads, WIDTH=width, HEADS_PADDED=max(16, triton.next_power_of_2(heads)),
        WIDTH_PADDED=max(16, triton.next_power_of_2(width)), TOKENS=tokens, QUERIES=QUERIES,
        PRECISION="ieee" if wide else "tf32", num_warps=8, num_stages=1 if wide else 3,
    )  # fmt: skip
    return out
