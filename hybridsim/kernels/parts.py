"""Softmax over a sequence cut into parts: how many, which tokens each has, and their sum.

One query over a long cache would occupy one multiprocessor. So the sequence is cut into parts that
run beside each other, each leaving its own normalised output and log2 of its sum of exponentials;
a second launch weighs them (flash decoding). The cut follows the length on the device: a grid that
was captured for the whole capacity stays balanced while the sequence grows.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = math.log2(math.e)
MOST_PARTS = 256
LEAST_TOKENS = 128  # tokens of a part: fewer are not worth its output's way through memory
TILE = 8192  # numbers that one program combines at once
COMBINING_BYTES = 100_000  # what a multiprocessor reads in the 4 us of another launch
SELECTED_STAGES = 5  # loading a selection's numbers takes half of the stages
INTERPRETED_SLOTS = 6  # programs at once where Triton is interpreted


@lru_cache(maxsize=None)
def programs_at_once(device: torch.device, per_multiprocessor: int) -> int:
    """Return how many programs run side by side, so many on each multiprocessor."""
    if device.type == "cpu":
        return INTERPRETED_SLOTS
    here = device if device.type == "cuda" else None  # traced on meta: for the GPU here
    return torch.cuda.get_device_properties(here).multi_processor_count * per_multiprocessor


def count_parts(
    rows: int,
    capacity: int,
    device: torch.device,
    per_multiprocessor: int,
    *,
    token_bytes: int,
    outputs: int,
) -> int:
    """Return the parts that take the least time.

    Args:
        rows: independent softmaxes, each cut alike.
        capacity: tokens of the storage.
        device: where it runs.
        per_multiprocessor: programs that one multiprocessor holds at once.
        token_bytes: what a row reads of each token.
        outputs: numbers that a row writes, once for every part.
    """
    row_bytes = max(capacity * token_bytes, 1)
    slots = programs_at_once(device, per_multiprocessor)
    return _count_parts(rows, -(-capacity // LEAST_TOKENS), slots, row_bytes, 4 * outputs)


@lru_cache(maxsize=None)
def _count_parts(rows: int, most: int, slots: int, row_bytes: int, part_bytes: int) -> int:
    def time(parts: int) -> float:
        """What one slot would read and write meanwhile, in bytes."""
        waves = -(-rows * parts // slots)
        if parts == 1:
            return waves * row_bytes
        combining = COMBINING_BYTES + rows * parts * part_bytes / slots
        return waves * (row_bytes / parts + part_bytes) + combining

    return min(range(1, min(most, MOST_PARTS) + 1), key=time)


@triton.jit
def part_bounds(
    length_ptr, capacity, window, part, parts, BLOCK: tl.constexpr, LEAST: tl.constexpr
):
    """Return the tokens start <= s < end of a part, and how many parts have any."""
    end_of_all = capacity
    if length_ptr is not None:
        end_of_all = tl.minimum(tl.load(length_ptr), capacity)
    first = tl.maximum(end_of_all - window, 0)
    span = end_of_all - first
    tokens = tl.maximum(tl.cdiv(tl.cdiv(span, parts), BLOCK) * BLOCK, LEAST)
    start = first + part * tokens
    return start, tl.minimum(start + tokens, end_of_all), tl.cdiv(span, tokens)


@triton.jit
def log_sum(largest, total):
    """Return log2 of a sum of exponentials, minus infinity where nothing was added."""
    return tl.where(total > 0, largest + tl.log2(tl.where(total > 0, total, 1.0)), float("-inf"))


def new_partial(out: Tensor, parts: int) -> tuple[Tensor, Tensor | None]:
    """Return where parts of out [..., H, V] and their log sums go: one part goes to out itself."""
    if parts == 1:
        return out, None
    options: Any = {"dtype": torch.float32, "device": out.device}
    log_sums = torch.empty(*out.shape[:-1], parts, **options)
    return torch.empty(*log_sums.shape, out.shape[-1], **options), log_sums


@triton.jit(do_not_specialize=["capacity", "window", "parts"])
def _combine_kernel(
    partial, log_sums, sinks, length, out, capacity, window, parts,
    HEADS: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, PARTS: tl.constexpr,
    BLOCK: tl.constexpr, LEAST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.arange(0, PARTS)
    _, _, used = part_bounds(length, capacity, window, 0, parts, BLOCK, LEAST)
    sums = tl.load(log_sums + row * parts + part, mask=part < used, other=float("-inf"))
    largest = tl.max(sums, 0)
    if sinks is not None:
        sink = tl.load(sinks + row % HEADS).to(tl.float32) * 1.4426950408889634
        largest = tl.maximum(largest, sink)
    weight = tl.exp2(sums - largest)
    total = tl.sum(weight, 0)
    if sinks is not None:
        total += tl.exp2(sink - largest)
    values = tl.load(
        partial + (row * parts + part)[:, None] * WIDTH + column[None, :],
        mask=(part < used)[:, None] & (column < WIDTH)[None, :],
        other=0.0,
    )
    mixed = tl.sum(values * weight[:, None], 0) / total
    tl.store(out + row * WIDTH + column, mixed, mask=column < WIDTH)


def combine(
    partial: Tensor,
    log_sums: Tensor,
    length: Tensor | None,
    out: Tensor,
    *,
    sinks: Tensor | None,
    capacity: int,
    window: int,
    block: int,
) -> Tensor:
    """Write the parts' weighted sum to out and return it.

    Args:
        partial: [..., H, parts, V] in float32, each part normalised by itself.
        log_sums: [..., H, parts], log2 of each part's sum of exponentials.
        length: [1] in int32, tokens in the cache; None where all of the capacity is seen.
        out: [..., H, V].
        sinks: [H], one more score a head, without a value.
        capacity: tokens of the storage, as the parts' launch had it.
        window: the newest tokens that are seen, likewise.
        block: tokens of a block, likewise.
    """
    heads, parts, width = partial.shape[-3:]
    padded = triton.next_power_of_2(parts)
    columns = min(triton.next_power_of_2(width), TILE // padded)
    _combine_kernel[(log_sums.numel() // parts, triton.cdiv(width, columns))](
        partial, log_sums, sinks, length, out, capacity, window, parts,
        HEADS=heads, WIDTH=width, COLUMNS=columns, PARTS=padded,
        BLOCK=block, LEAST=LEAST_TOKENS, num_warps=8,
    )  # fmt: skip
    return out
