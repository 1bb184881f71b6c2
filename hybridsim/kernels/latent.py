"""Decoding over a latent cache: the absorbed form of multi-head latent attention."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.parts import LEAST_TOKENS, LOG2_E, combine, count_parts, part_bounds


class Tiles(NamedTuple):
    """How the kernel is cut: heads and tokens of a block, warps, stages, programs per SM."""

    heads: int
    tokens: int
    warps: int
    stages: int
    per_multiprocessor: int = 1
    by_token: bool = False


def tiles_for(heads: int, dtype: torch.dtype) -> Tiles:
    """Return the cut for so many heads; a tensor core's product has at least 16 rows."""
    if dtype == torch.float32:
        return Tiles(heads=16, tokens=16, warps=4, stages=1)
    if heads <= 16:
        return Tiles(heads=16, tokens=64, warps=4, stages=3)
    if heads <= 32:
        return Tiles(heads=32, tokens=64, warps=8, stages=3)
    return Tiles(heads=64, tokens=32, warps=8, stages=4)


@triton.jit(do_not_specialize=["capacity", "parts", "batch_tokens"])
def _latent_kernel(
    q, latents, length, out, log_sums, capacity, batch_tokens, parts, log2_scale,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr,
    RANK_PADDED: tl.constexpr, ROPE_PADDED: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, BLOCK: tl.constexpr, LEAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    start, end, _ = part_bounds(length, capacity, capacity, part, parts, BLOCK, LEAST)
    if start >= end:
        return
    WIDTH: tl.constexpr = RANK + ROPE
    head = tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)
    channel, shared = tl.arange(0, RANK_PADDED), tl.arange(0, ROPE_PADDED)
    in_rank, in_rope = channel < RANK, shared < ROPE
    token = tl.arange(0, BLOCK)
    row = (batch * HEADS + head)[:, None]
    query = tl.load(
        q + row * WIDTH + channel[None, :],
        mask=(head < HEADS)[:, None] & in_rank[None, :], other=0.0,
    )  # fmt: skip
    query_rope = tl.load(
        q + row * WIDTH + RANK + shared[None, :],
        mask=(head < HEADS)[:, None] & in_rope[None, :], other=0.0,
    )  # fmt: skip
    sequence = latents + batch * batch_tokens * WIDTH
    largest = tl.full((HEAD_BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((HEAD_BLOCK,), tl.float32)
    mixed = tl.zeros((HEAD_BLOCK, RANK_PADDED), tl.float32)
    for first in range(start, end, BLOCK):
        seen = first + token < end
        rows = sequence + (first + token).to(tl.int64)[:, None] * WIDTH
        # One load serves as keys and as values.
        latent = tl.load(rows + channel[None, :], mask=seen[:, None] & in_rank[None, :], other=0.0)
        scores = tl.dot(query, tl.trans(latent), input_precision=PRECISION)
        if ROPE > 0:
            rope = tl.load(
                rows + RANK + shared[None, :], mask=seen[:, None] & in_rope[None, :], other=0.0
            )
            scores = tl.dot(query_rope, tl.trans(rope), scores, input_precision=PRECISION)
        scores = tl.where(seen[None, :], scores * log2_scale, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp2(largest - new_largest)
        weights = tl.exp2(scores - new_largest[:, None])
        total = total * kept + tl.sum(weights, 1)
        mixed = mixed * kept[:, None]
        mixed = tl.dot(weights.to(latent.dtype), latent, mixed, input_precision=PRECISION)
        largest = new_largest
    at = (batch * HEADS + head) * parts + part
    tl.store(
        out + at[:, None] * RANK + channel[None, :], mixed / total[:, None],
        mask=(head < HEADS)[:, None] & in_rank[None, :],
    )  # fmt: skip
    tl.store(log_sums + at, largest + tl.log2(total), mask=head < HEADS)


@triton.jit(do_not_specialize=["capacity", "parts", "batch_tokens"])
def _latent_kernel_by_token(
    q, latents, length, out, log_sums, capacity, batch_tokens, parts, log2_scale,
    HEADS: tl.constexpr, RANK: tl.constexpr, ROPE: tl.constexpr,
    RANK_PADDED: tl.constexpr, ROPE_PADDED: tl.constexpr,
    HEAD_BLOCK: tl.constexpr, BLOCK: tl.constexpr, LEAST: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    part = tl.program_id(0)
    batch = tl.program_id(2).to(tl.int64)
    start, end, _ = part_bounds(length, capacity, capacity, part, parts, BLOCK, LEAST)
    if start >= end:
        return
    WIDTH: tl.constexpr = RANK + ROPE
    head = tl.program_id(1) * HEAD_BLOCK + tl.arange(0, HEAD_BLOCK)
    channel, shared = tl.arange(0, RANK_PADDED), tl.arange(0, ROPE_PADDED)
    in_rank, in_rope = channel < RANK, shared < ROPE
    token = tl.arange(0, BLOCK)
    row = (batch * HEADS + head)[:, None]
    query = tl.load(
        q + row * WIDTH + channel[None, :],
        mask=(head < HEADS)[:, None] & in_rank[None, :], other=0.0,
    )  # fmt: skip
    query_rope = tl.load(
        q + row * WIDTH + RANK + shared[None, :],
        mask=(head < HEADS)[:, None] & in_rope[None, :], other=0.0,
    )  # fmt: skip
    sequence = latents + batch * batch_tokens * WIDTH
    largest = tl.full((HEAD_BLOCK,), float("-inf"), tl.float32)
    total = tl.zeros((HEAD_BLOCK,), tl.float32)
    mixed = tl.zeros((RANK_PADDED, HEAD_BLOCK), tl.float32)
    for first in range(start, end, BLOCK):
        seen = first + token < end
        rows = sequence + (first + token).to(tl.int64)[:, None] * WIDTH
        # One load serves as keys and as values.
        latent = tl.load(rows + channel[None, :], mask=seen[:, None] & in_rank[None, :], other=0.0)
        scores = tl.dot(latent, tl.trans(query), input_precision=PRECISION)
        if ROPE > 0:
            rope = tl.load(
                rows + RANK + shared[None, :], mask=seen[:, None] & in_rope[None, :], other=0.0
            )
            scores = tl.dot(rope, tl.trans(query_rope), scores, input_precision=PRECISION)
        scores = tl.where(seen[:, None], scores * log2_scale, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 0))
        kept = tl.exp2(largest - new_largest)
        weights = tl.exp2(scores - new_largest[None, :])
        total = total * kept + tl.sum(weights, 0)
        mixed = mixed * kept[None, :]
        mixed = tl.dot(tl.trans(latent), weights.to(latent.dtype), mixed, input_precision=PRECISION)
        largest = new_largest
    at = (batch * HEADS + head) * parts + part
    tl.store(
        out + at[None, :] * RANK + channel[:, None], mixed / total[None, :],
        mask=(head < HEADS)[None, :] & in_rank[:, None],
    )  # fmt: skip
    tl.store(log_sums + at, largest + tl.log2(total), mask=head < HEADS)


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
    batch, heads, width = q.shape
    tiles, capacity = tiles or tiles_for(heads, q.dtype), latents.shape[1]
    assert latents.stride()[1:] == (width, 1), "each sequence's latents must be contiguous"
    head_blocks = triton.cdiv(heads, tiles.heads)
    parts = count_parts(batch * head_blocks, capacity, q.device, tiles.per_multiprocessor)
    partial = torch.empty(batch, heads, parts, value_dim, device=q.device, dtype=torch.float32)
    log_sums = torch.empty(batch, heads, parts, device=q.device, dtype=torch.float32)
    rope = width - value_dim
    kernel = _latent_kernel_by_token if tiles.by_token else _latent_kernel
    kernel[(parts, head_blocks, batch)](
        q.contiguous(), latents, length, partial, log_sums,
        capacity, latents.stride(0) // width, parts, scale * LOG2_E,
        HEADS=heads, RANK=value_dim, ROPE=rope,
        RANK_PADDED=max(16, triton.next_power_of_2(value_dim)),
        ROPE_PADDED=max(16, triton.next_power_of_2(rope)),
        HEAD_BLOCK=tiles.heads, BLOCK=tiles.tokens, LEAST=LEAST_TOKENS,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    return combine(
        partial, log_sums, length, q.new_empty(batch, heads, value_dim),
        sinks=None, capacity=capacity, window=capacity, block=tiles.tokens,
    )  # fmt: skip
