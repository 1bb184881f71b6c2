"""Decoding over cached keys and values: one query a sequence, heads in groups, windows, sinks."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.parts import LEAST_TOKENS, LOG2_E, combine, count_parts, part_bounds

SMALLEST_SIDE = 16  # rows, columns and channels that a tensor core's product has at least


class Tiles(NamedTuple):
    """How the kernel is cut: tokens of a block, warps, stages, programs per multiprocessor."""

    tokens: int
    warps: int
    stages: int
    per_multiprocessor: int = 2


def tiles_for(widest: int, group: int, dtype: torch.dtype) -> Tiles:
    """Return the cut for keys and values up to `widest` channels and `group` heads a key head."""
    if dtype == torch.float32:
        return Tiles(tokens=16, warps=4, stages=1)
    tokens = {64: 128, 128: 64, 256: 32}.get(widest, 16 if widest > 256 else 64)
    return Tiles(tokens=tokens, warps=4, stages=3)


@triton.jit(do_not_specialize=["capacity", "batch_tokens", "window", "parts"])
def _decode_kernel(
    q, keys, values, sinks, length, out, log_sums,
    capacity, batch_tokens, window, parts, log2_scale,
    HEADS: tl.constexpr, GROUP: tl.constexpr, KEY: tl.constexpr, VALUE: tl.constexpr,
    GROUP_PADDED: tl.constexpr, KEY_PADDED: tl.constexpr, VALUE_PADDED: tl.constexpr,
    BLOCK: tl.constexpr, LEAST: tl.constexpr, PRECISION: tl.constexpr,
    WHOLE: tl.constexpr, HAS_SINKS: tl.constexpr,
):  # fmt: skip
    part, key_head = tl.program_id(0), tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    start, end, _ = part_bounds(length, capacity, window, part, parts, BLOCK, LEAST)
    if start >= end:
        return
    KEY_HEADS: tl.constexpr = HEADS // GROUP
    inner = tl.arange(0, GROUP_PADDED)
    head, in_group = key_head * GROUP + inner, inner < GROUP
    key_channel, value_channel = tl.arange(0, KEY_PADDED), tl.arange(0, VALUE_PADDED)
    in_key, in_value = key_channel < KEY, value_channel < VALUE
    token = tl.arange(0, BLOCK)
    query = tl.load(
        q + (batch * HEADS + head)[:, None] * KEY + key_channel[None, :],
        mask=in_group[:, None] & in_key[None, :], other=0.0,
    )  # fmt: skip
    first_row = batch * batch_tokens * KEY_HEADS + key_head
    largest = tl.full((GROUP_PADDED,), float("-inf"), tl.float32)
    total = tl.zeros((GROUP_PADDED,), tl.float32)
    mixed = tl.zeros((GROUP_PADDED, VALUE_PADDED), tl.float32)
    for first in range(start, end, BLOCK):
        seen = first + token < end
        rows = (first_row + (first + token).to(tl.int64) * KEY_HEADS)[:, None]
        key = tl.load(
            keys + rows * KEY + key_channel[None, :],
            mask=seen[:, None] & in_key[None, :], other=0.0,
        )  # fmt: skip
        value = tl.load(
            values + rows * VALUE + value_channel[None, :],
            mask=seen[:, None] & in_value[None, :], other=0.0,
        )  # fmt: skip
        scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * log2_scale
        scores = tl.where(seen[None, :], scores, float("-inf"))
        new_largest = tl.maximum(largest, tl.max(scores, 1))
        kept = tl.exp2(largest - new_largest)
        weights = tl.exp2(scores - new_largest[:, None])
        total = total * kept + tl.sum(weights, 1)
        mixed = mixed * kept[:, None]
        mixed = tl.dot(weights.to(value.dtype), value, mixed, input_precision=PRECISION)
        largest = new_largest
    at = (batch * HEADS + head) * parts + part
    if WHOLE:
        if HAS_SINKS:
            sink = tl.load(sinks + head, mask=in_group, other=0.0).to(tl.float32)
            total += tl.exp2(sink * 1.4426950408889634 - largest)
    else:
        tl.store(log_sums + at, largest + tl.log2(total), mask=in_group)
    tl.store(
        out + at[:, None] * VALUE + value_channel[None, :], mixed / total[:, None],
        mask=in_group[:, None] & in_value[None, :],
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
    batch, heads, key_dim = q.shape
    capacity, key_heads, value_dim = keys.shape[1], keys.shape[2], values.shape[3]
    assert keys.stride()[1:] == (key_heads * key_dim, key_dim, 1), "keys must be contiguous"
    assert values.stride()[1:] == (key_heads * value_dim, value_dim, 1), "so must values"
    batch_tokens = keys.stride(0) // (key_heads * key_dim)
    assert values.stride(0) == batch_tokens * key_heads * value_dim, "values as keys"
    padded = [max(SMALLEST_SIDE, triton.next_power_of_2(n)) for n in (key_dim, value_dim)]
    tiles = tiles_for(max(padded), heads // key_heads, q.dtype)
    seen = capacity if window is None else min(window, capacity)
    parts = count_parts(batch * key_heads, seen, q.device, tiles.per_multiprocessor)
    out = q.new_empty(batch, heads, value_dim)
    partial = log_sums = out
    if parts > 1:
        partial = torch.empty(batch, heads, parts, value_dim, device=q.device, dtype=torch.float32)
        log_sums = torch.empty(batch, heads, parts, device=q.device, dtype=torch.float32)
    _decode_kernel[(parts, key_heads, batch)](
        q.contiguous(), keys, values, sinks, length, partial, log_sums,
        capacity, batch_tokens, seen, parts, scale * LOG2_E,
        HEADS=heads, GROUP=heads // key_heads, KEY=key_dim, VALUE=value_dim,
        GROUP_PADDED=max(SMALLEST_SIDE, triton.next_power_of_2(heads // key_heads)),
        KEY_PADDED=padded[0], VALUE_PADDED=padded[1],
        BLOCK=tiles.tokens, LEAST=LEAST_TOKENS,
        PRECISION="ieee" if q.dtype == torch.float32 else "tf32",
        WHOLE=parts == 1, HAS_SINKS=sinks is not None,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    if parts == 1:
        return out
    return combine(
        partial, log_sums, length, out,
        sinks=sinks, capacity=capacity, window=seen, block=tiles.tokens,
    )  # fmt: skip
