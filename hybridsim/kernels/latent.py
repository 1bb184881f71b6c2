"""Attention over latents that are keys and values at once: absorbed MLA, whole or selected.

All heads share the latents, so a program serves a block of heads and reads each latent once for
both products.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.parts import (
    LEAST_TOKENS,
    LOG2_E,
    SELECTED_STAGES,
    combine,
    count_parts,
    log_sum,
    new_partial,
    part_bounds,
)


class Tiles(NamedTuple):
    """How the kernel is cut: heads and tokens of a block, warps, stages, programs per SM."""

    heads: int
    tokens: int
    warps: int
    stages: int
    per_multiprocessor: int = 1


def tiles_for(heads: int, dtype: torch.dtype) -> Tiles:
    """Return the cut for so many heads; a tensor core's product has at least 16 rows."""
    if dtype == torch.float32:
        return Tiles(heads=16, tokens=16, warps=4, stages=1)
    if heads <= 16:
        return Tiles(heads=16, tokens=64, warps=4, stages=3)
    if heads <= 32:
        return Tiles(heads=32, tokens=64, warps=8, stages=3)
    return Tiles(heads=64, tokens=32, warps=8, stages=4)


@triton.jit(do_not_specialize=["queries", "capacity", "batch_tokens", "parts"])
def _kernel(
    q, latents, selected, length, out, log_sums,
    queries, capacity, batch_tokens, parts, log2_scale,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr,
    RANK_PADDED: tl.constexpr, ROPE_PADDED: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, TOKENS: tl.constexpr, LEAST: tl.constexpr, PRECISION: tl.constexpr,
    NUM_SELECTED: tl.constexpr,
):  # fmt: skip
    HEAD_BLOCKS: tl.constexpr = (HEADS + HEAD_BLOCK - 1) // HEAD_BLOCK
    WIDTH: tl.constexpr = RANK + ROPE
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query_row = row // HEAD_BLOCKS
    start, end, _ = part_bounds(length, capacity, capacity, part, parts, TOKENS, LEAST)
    if start >= end:
        return
    inner = row % HEAD_BLOCKS * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)
    head, in_heads = query_row * HEADS + inner, inner < HEADS
    channel, shared = tl.arange(0, RANK_PADDED), tl.arange(0, ROPE_PADDED)
    in_rank, in_rope = channel < RANK, shared < ROPE
    token = tl.arange(0, TOKENS)
    query = tl.load(
        q + head[:, None] * WIDTH + channel[None, :],
        mask=in_heads[:, None] & in_rank[None, :], other=0.0,
    )  # fmt: skip
    query_rope = tl.load(
        q + head[:, None] * WIDTH + RANK + shared[None, :],
        mask=in_heads[:, None] & in_rope[None, :], other=0.0,
    )  # fmt: skip
    sequence = latents + query_row // queries * batch_tokens * WIDTH
    # Finite, so that a block without a valid token leaves weights of zero.
    largest = tl.full((HEAD_BLOCK,), -1e30, tl.float32)
    total = tl.zeros((HEAD_BLOCK,), tl.float32)
    mixed = tl.zeros((HEAD_BLOCK, RANK_PADDED), tl.float32)
    for first in range(start, end, TOKENS):
        at = first + token
        seen = at < end
        if selected is not None:
            at = tl.load(selected + query_row * NUM_SELECTED + at, mask=seen, other=-1)
            seen = at >= 0
            at = tl.maximum(at, 0)
        rows = sequence + at.to(tl.int64)[:, None] * WIDTH
        # One load serves as keys and as values.
        latent = tl.load(
            rows + channel[None, :], mask=seen[:, None] & in_rank[None, :], other=0.0
        ).to(query.dtype)
        scores = tl.dot(query, tl.trans(latent), input_precision=PRECISION)
        if ROPE > 0:
            rope = tl.load(
                rows + RANK + shared[None, :], mask=seen[:, None] & in_rope[None, :], other=0.0
            ).to(query.dtype)
            scores = tl.dot(query_rope, tl.trans(rope), scores, input_precision=PRECISION)
        scores = tl.where(seen[None, :], scores * log2_scale, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp2(largest - new_largest)
        weights = tl.exp2(scores - new_largest[:, None])
        total = total * kept + tl.sum(weights, 1)
        mixed = mixed * kept[:, None]
        mixed = tl.dot(weights.to(latent.dtype), latent, mixed, input_precision=PRECISION)
        largest = new_largest
    out_row = head
    if log_sums is not None:  # this part is not the whole
        out_row = head * parts + part
        tl.store(log_sums + out_row, log_sum(largest, total), mask=in_heads)
    tl.store(
        out + out_row[:, None] * RANK + channel[None, :],
        mixed / tl.where(total > 0, total, 1.0)[:, None],
        mask=in_heads[:, None] & in_rank[None, :],
    )  # fmt: skip


def _attend(
    q: Tensor, latents: Tensor, scale: float, value_dim: int, tiles: Tiles | None, *,
    capacity: int, length: Tensor | None = None, selected: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Launch for queries [B, T, H, W]; `capacity` are the tokens that one may see at most."""
    batch, queries, heads, width = q.shape
    assert latents.stride()[1:] == (width, 1), "each sequence's latents must be contiguous"
    tiles = tiles or tiles_for(heads, q.dtype)
    rows, rope = batch * queries * triton.cdiv(heads, tiles.heads), width - value_dim
    parts = count_parts(
        rows, capacity, q.device, tiles.per_multiprocessor,
        token_bytes=width * latents.element_size(), outputs=tiles.heads * value_dim,
    )  # fmt: skip
    out = q.new_empty(batch, queries, heads, value_dim)
    partial, log_sums = new_partial(out, parts)
    _kernel[(rows, parts)](
        q.contiguous(), latents, selected, length, partial, log_sums,
        queries, capacity, latents.stride(0) // width, parts, scale * LOG2_E,
        HEADS=heads, RANK=value_dim, ROPE=rope,
        RANK_PADDED=max(16, triton.next_power_of_2(value_dim)),
        ROPE_PADDED=max(16, triton.next_power_of_2(rope)),
        HEAD_BLOCK=tiles.heads, TOKENS=tiles.tokens, LEAST=LEAST_TOKENS,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        NUM_SELECTED=1 if selected is None else selected.shape[-1],
        num_warps=tiles.warps,
        num_stages=tiles.stages if selected is None else max(tiles.stages, SELECTED_STAGES),
    )  # fmt: skip
    if log_sums is None:
        return out
    return combine(
        partial, log_sums, length, out,
        sinks=None, capacity=capacity, window=capacity, block=tiles.tokens,
    )  # fmt: skip


def latent_decode_attention(
    q: Float[Tensor, "B H W"],
    latents: Float[Tensor, "B S W"],
    length: Int[Tensor, " 1"],
    scale: float,
    value_dim: int,
    tiles: Tiles | None = None,
) -> Float[Tensor, "B H R"]:
    """Return one query's attention per sequence over latents that are keys and values at once.

        o_h = sum_s softmax_s(scale q_h . c_s) c_s[:R]

    Source: DeepSeek-V2, arXiv 2405.04434, section 2.1.2, with the projections absorbed.

    Args:
        q: queries against latents, W = R + rope wide.
        latents: the cache's storage; each sequence's tokens lie one after the other.
        length: tokens in the cache, the query's own included; at most S.
        scale: factor on the scores.
        value_dim: R, the channels that are values.
        tiles: another cut than tiles_for's, to measure it.
    """
    out = _attend(
        q[:, None], latents, scale, value_dim, tiles, capacity=latents.shape[1], length=length
    )
    return out[:, 0]


def selected_attention(
    q: Float[Tensor, "B T H W"],
    latents: Float[Tensor, "B S W"],
    indices: Int[Tensor, "B T k"],
    scale: float,
    value_dim: int,
    tiles: Tiles | None = None,
) -> Float[Tensor, "B T H R"]:
    """Return attention of every query over its own selection of latents.

    As mixers.sparse_mla.ops.selected_attention.

    Args:
        q: absorbed queries, W = R + rope wide.
        latents: the cache's storage; each sequence's tokens lie one after the other.
        indices: which latents a query sees; -1 is none.
        scale: factor on the scores.
        value_dim: R, the channels that are values.
        tiles: another cut than tiles_for's, to measure it.
    """
    capacity = indices.shape[-1]
    return _attend(
        q, latents, scale, value_dim, tiles, capacity=capacity, selected=indices.contiguous()
    )
