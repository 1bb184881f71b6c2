"""Attention of single queries over keys and values: decoding, and blocks chosen for each query.

A program serves the heads of one key head, padded to the rows that a tensor core's product has, so
that keys and values are read once for all of them.
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

SMALLEST_SIDE = 16  # rows, columns and channels that a tensor core's product has at least


class Tiles(NamedTuple):
    """How the kernel is cut: tokens of a block, warps, stages, programs per multiprocessor."""

    tokens: int
    warps: int
    stages: int
    per_multiprocessor: int = 2


def tiles_for(widest: int, dtype: torch.dtype) -> Tiles:
    """Return the cut for keys and values up to `widest` channels."""
    if dtype == torch.float32:
        return Tiles(tokens=16, warps=4, stages=1)
    tokens = {64: 128, 128: 64, 256: 32}.get(widest, 16 if widest > 256 else 64)
    return Tiles(tokens=tokens, warps=4, stages=3)


@triton.jit(do_not_specialize=["queries", "capacity", "batch_tokens", "window", "parts"])
def _kernel(
    q, keys, values, sinks, blocks, length, past, out, log_sums,
    queries, capacity, batch_tokens, window, parts, log2_scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr,
    GROUP_PADDED: tl.constexpr, KEY_PADDED: tl.constexpr, VALUE_PADDED: tl.constexpr,
    TOKENS: tl.constexpr, LEAST: tl.constexpr, PRECISION: tl.constexpr,
    NUM_BLOCKS: tl.constexpr, BLOCK_SIZE: tl.constexpr,
):  # fmt: skip
    KEY_HEADS: tl.constexpr = HEADS // GROUP
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query_row, key_head = row // KEY_HEADS, row % KEY_HEADS
    start, end, _ = part_bounds(length, capacity, window, part, parts, TOKENS, LEAST)
    if start >= end:
        return
    inner = tl.arange(0, GROUP_PADDED)
    head, in_group = query_row * HEADS + key_head * GROUP + inner, inner < GROUP
    key_channel, value_channel = tl.arange(0, KEY_PADDED), tl.arange(0, VALUE_PADDED)
    in_key, in_value = key_channel < KEY, value_channel < VALUE
    token = tl.arange(0, TOKENS)
    query = tl.load(
        q + head[:, None] * KEY + key_channel[None, :],
        mask=in_group[:, None] & in_key[None, :], other=0.0,
    )  # fmt: skip
    first_row = query_row // queries * batch_tokens * KEY_HEADS + key_head
    if blocks is not None:
        position = tl.load(past) + query_row % queries
    # Finite, so that a block without a visible token leaves weights of zero.
    largest = tl.full((GROUP_PADDED,), -1e30, tl.float32)
    total = tl.zeros((GROUP_PADDED,), tl.float32)
    mixed = tl.zeros((GROUP_PADDED, VALUE_PADDED), tl.float32)
    for first in range(start, end, TOKENS):
        at = first + token
        seen = at < end
        if blocks is not None:
            chosen = tl.load(blocks + row * NUM_BLOCKS + at // BLOCK_SIZE, mask=seen, other=-1)
            at = tl.maximum(chosen, 0).to(tl.int64) * BLOCK_SIZE + at % BLOCK_SIZE
            seen = (chosen >= 0) & (at <= position)
        rows = (first_row + at.to(tl.int64) * KEY_HEADS)[:, None]
        key = tl.load(
            keys + rows * KEY + key_channel[None, :],
            mask=seen[:, None] & in_key[None, :], other=0.0,
        ).to(query.dtype)  # fmt: skip
        value = tl.load(
            values + rows * VALUE + value_channel[None, :],
            mask=seen[:, None] & in_value[None, :], other=0.0,
        ).to(query.dtype)  # fmt: skip
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * log2_scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp2(largest - new_largest)
        weights = tl.exp2(scores - new_largest[:, None])
        total = total * kept + tl.sum(weights, 1)
        mixed = mixed * kept[:, None]
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
        largest = new_largest
    if log_sums is None:  # this part is the whole
        out_row = head
        if sinks is not None:
            sink = tl.load(sinks + key_head * GROUP + inner, mask=in_group, other=0.0)
            total += tl.exp2(sink.to(tl.float32) * 1.4426950408889634 - largest)
    else:
        out_row = head * parts + part
        tl.store(log_sums + out_row, log_sum(largest, total), mask=in_group)
    tl.store(
        out + out_row[:, None] * VALUE + value_channel[None, :],
        mixed / tl.where(total > 0, total, 1.0)[:, None],
        mask=in_group[:, None] & in_value[None, :],
    )  # fmt: skip


def _attend(
    q: Tensor, keys: Tensor, values: Tensor, scale: float, *, capacity: int, window: int,
    length: Tensor | None = None, past: Tensor | None = None, sinks: Tensor | None = None,
    blocks: Tensor | None = None, block_size: int = 1,
) -> Tensor:  # fmt: skip
    """Launch for queries [B, T, H, K]; `capacity` are the tokens that one may see at most."""
    batch, queries, heads, key_dim = q.shape
    key_heads, value_dim = keys.shape[2], values.shape[3]
    assert keys.stride()[1:] == (key_heads * key_dim, key_dim, 1), "keys must be contiguous"
    assert values.stride()[1:] == (key_heads * value_dim, value_dim, 1), "so must values"
    batch_tokens = keys.stride(0) // (key_heads * key_dim)
    assert values.stride(0) == batch_tokens * key_heads * value_dim, "values as keys"
    padded = [max(SMALLEST_SIDE, triton.next_power_of_2(n)) for n in (key_dim, value_dim)]
    tiles, rows = tiles_for(max(padded), q.dtype), batch * queries * key_heads
    parts = count_parts(
        rows, window, q.device, tiles.per_multiprocessor,
        token_bytes=(key_dim + value_dim) * keys.element_size(),
        outputs=heads // key_heads * value_dim,
    )  # fmt: skip
    out = q.new_empty(batch, queries, heads, value_dim)
    partial, log_sums = new_partial(out, parts)
    _kernel[(rows, parts)](
        q.contiguous(), keys, values, sinks, blocks, length, past, partial, log_sums,
        queries, capacity, batch_tokens, window, parts, scale * LOG2_E,
        HEADS=heads, GROUP=heads // key_heads, KEY=key_dim, VALUE=value_dim,
        GROUP_PADDED=max(SMALLEST_SIDE, triton.next_power_of_2(heads // key_heads)),
        KEY_PADDED=padded[0], VALUE_PADDED=padded[1],
        TOKENS=tiles.tokens, LEAST=LEAST_TOKENS,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        NUM_BLOCKS=1 if blocks is None else blocks.shape[-1], BLOCK_SIZE=block_size,
        num_warps=tiles.warps,
        num_stages=tiles.stages if blocks is None else max(tiles.stages, SELECTED_STAGES),
    )  # fmt: skip
    if log_sums is None:
        return out
    return combine(
        partial, log_sums, length, out,
        sinks=sinks, capacity=capacity, window=window, block=tiles.tokens,
    )  # fmt: skip


def decode_attention(
    q: Float[Tensor, "B H K"],
    keys: Float[Tensor, "B S H_kv K"],
    values: Float[Tensor, "B S H_kv V"],
    length: Int[Tensor, " 1"],
    scale: float,
    window: int | None = None,
    sinks: Float[Tensor, " H"] | None = None,
) -> Float[Tensor, "B H V"]:
    """Return one query's attention per sequence over its cached keys and values.

    Args:
        q: queries; H / H_kv heads share a key head.
        keys: the cache's storage; each sequence's tokens lie one after the other.
        values: likewise.
        length: tokens in the cache, the query's own included. Beyond S all S entries are seen, as
            in a ring, whose order does not matter.
        scale: factor on the scores.
        window: the newest tokens that are seen; None for all.
        sinks: one more score a head, without a value.
    """
    capacity = keys.shape[1]
    seen = capacity if window is None else min(window, capacity)
    out = _attend(
        q[:, None], keys, values, scale,
        capacity=capacity, window=seen, length=length, sinks=sinks,
    )  # fmt: skip
    return out[:, 0]


def block_attention(
    q: Float[Tensor, "B T H K"],
    keys: Float[Tensor, "B S H_kv K"],
    values: Float[Tensor, "B S H_kv K"],
    blocks: Int[Tensor, "B T H_kv n"],
    block_size: int,
    past: int | Int[Tensor, " 1"],
    scale: float,
) -> Float[Tensor, "B T H K"]:
    """Return attention of every query over the visible keys of the blocks its key head selected.

    As mixers.block_sparse.ops.block_attention.

    Args:
        q: queries; H / H_kv heads share a key head and its blocks.
        keys: the cache's storage; each sequence's tokens lie one after the other.
        values: likewise.
        blocks: numbers of the blocks; -1 is none.
        block_size: keys of a block.
        past: tokens before the first query, on the device (int32) where it changes in a graph.
        scale: factor on the scores.
    """
    if isinstance(past, int):
        past = torch.full((1,), past, dtype=torch.int32, device=q.device)
    seen = blocks.shape[-1] * block_size
    return _attend(
        q, keys, values, scale,
        capacity=seen, window=seen, past=past, blocks=blocks.contiguous(), block_size=block_size,
    )  # fmt: skip
