"""One token of absorbed multi-head latent attention before and after the attention itself.

A head's part of the matrix that rebuilds keys and values goes into its query, and into what it has
attended to. The first launch also writes the token's entry in the cache, which nothing before the
attention reads.
"""

from __future__ import annotations

import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.arguments import Norm
from hybridsim.kernels.rotary import turn_pairs

COLUMNS = 128  # channels of a latent that one program of a query makes
OUTPUTS, CHANNELS = 16, 256  # of a program of values, and how many channels it reads at once


@triton.jit
def _write_shared(
    given, made, position, frequencies, factor,
    ROPE: tl.constexpr, PADDED: tl.constexpr, INTERLEAVED: tl.constexpr,
):  # fmt: skip
    """Write the channels that all heads share, turned where there is a rotation."""
    if frequencies is None:
        channel = tl.arange(0, PADDED)
        inside = channel < ROPE
        tl.store(made + channel, tl.load(given + channel, mask=inside, other=0.0), mask=inside)
    else:
        PAIRS: tl.constexpr = ROPE // 2
        pair = tl.arange(0, PADDED)
        place = tl.load(position)
        turn_pairs(
            given, made, frequencies, place, pair, pair < PAIRS, factor, PAIRS, INTERLEAVED
        )  # fmt: skip


@triton.jit
def _absorb(
    given, weight, made, first,
    NOPE: tl.constexpr, RANK: tl.constexpr, NOPE_PADDED: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Write some channels of a head's query against latents."""
    channel = tl.arange(0, NOPE_PADDED)[:, None]
    column = first + tl.arange(0, COLUMNS)[None, :]
    inside = (channel < NOPE) & (column < RANK)
    tile = tl.load(weight + channel * RANK + column, mask=inside, other=0.0).to(tl.float32)
    factors = tl.load(given + channel, mask=channel < NOPE, other=0.0).to(tl.float32)
    total = tl.sum(tile * factors, 0, keep_dims=True)
    tl.store(made + column, total, mask=column < RANK)


@triton.jit
def _write_latent(
    given, norm_weight, made, eps, RANK: tl.constexpr, PADDED: tl.constexpr, OFFSET: tl.constexpr
):
    """Write the channels of a latent, normalised."""
    channel = tl.arange(0, PADDED)
    inside = channel < RANK
    latent = tl.load(given + channel, mask=inside, other=0.0).to(tl.float32)
    scale = tl.load(norm_weight + channel, mask=inside, other=0.0).to(tl.float32) + OFFSET
    inverse = tl.rsqrt(tl.sum(latent * latent, 0) / RANK + eps)
    tl.store(made + channel, latent * inverse * scale, mask=inside)


@triton.jit(do_not_specialize=["batch_tokens"])
def _absorb_kernel(
    query, latent, norm_weight, weight, frequencies, position, storage, out,
    batch_tokens, eps, factor,
    HEADS: tl.constexpr, NOPE: tl.constexpr, ROPE: tl.constexpr, VALUE: tl.constexpr,
    RANK: tl.constexpr, NOPE_PADDED: tl.constexpr, ROPE_PADDED: tl.constexpr,
    RANK_PADDED: tl.constexpr, COLUMNS: tl.constexpr, OFFSET: tl.constexpr,
    INTERLEAVED: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (RANK + COLUMNS - 1) // COLUMNS
    WIDTH: tl.constexpr = RANK + ROPE
    head, block = tl.program_id(0) // BLOCKS, tl.program_id(0) % BLOCKS
    batch = tl.program_id(1).to(tl.int64)
    if head < HEADS:
        given = query + (batch * HEADS + head) * (NOPE + ROPE)
        made = out + (batch * HEADS + head) * WIDTH
        matrix = weight + head * (NOPE + VALUE) * RANK
        _absorb(given, matrix, made, block * COLUMNS, NOPE, RANK, NOPE_PADDED, COLUMNS)
        shared_given, shared_made = given + NOPE, made + RANK
    else:  # the last program of a sequence
        given = latent + batch * WIDTH
        made = storage + (batch * batch_tokens + tl.load(position)) * WIDTH
        _write_latent(given, norm_weight, made, eps, RANK, RANK_PADDED, OFFSET)
        shared_given, shared_made = given + RANK, made + RANK
    if ROPE > 0 and block == 0:
        _write_shared(
            shared_given, shared_made, position, frequencies, factor,
            ROPE, ROPE_PADDED, INTERLEAVED,
        )  # fmt: skip


def absorb(
    query: Float[Tensor, "*axes HK"],
    latent: Float[Tensor, "*axes W"],
    norm: Norm,
    weight: Float[Tensor, "rebuilt R"],
    storage: Float[Tensor, "B S W"],
    position: Int[Tensor, " 1"],
    heads: int,
    nope: int,
    frequencies: Float[Tensor, " pairs"] | None = None,
    factor: float = 1.0,
    *,
    interleaved: bool = False,
) -> Float[Tensor, "B H W"]:
    """Return queries against latents; write the token's latent, normalised, into the cache.

    Args:
        query: queries against keys of one token a sequence, each nope, then shared channels.
        latent: the token's R latent channels before their norm, then its shared ones.
        norm: of the latent.
        weight: contiguous; a head's rows are those of its key, then of its value.
        storage: the cache, each sequence's tokens one after the other.
        position: of the token, where its entry stands.
        heads: H.
        nope: channels of a key that are rebuilt.
        frequencies: all shared channels are turned by them; None for no rotation.
        factor: on the turned channels.
        interleaved: pairs are neighbours, else halves.
    """
    batch, _, width = storage.shape
    rank = weight.shape[1]
    rope, rebuilt = width - rank, weight.shape[0] // heads
    assert query.is_contiguous(), "queries must be contiguous"
    assert latent.is_contiguous(), "latents must be contiguous"
    assert weight.is_contiguous(), "weights must be contiguous"
    assert storage.stride()[1:] == (width, 1), "each sequence's latents must be contiguous"
    assert frequencies is None or 2 * frequencies.shape[0] == rope, "all shared channels turn"
    out = query.new_empty(batch, heads, width)
    shared = rope if frequencies is None else rope // 2
    columns = min(COLUMNS, triton.next_power_of_2(rank))
    _absorb_kernel[(heads * triton.cdiv(rank, columns) + 1, batch)](
        query, latent, norm.weight, weight, frequencies, position, storage, out,
        storage.stride(0) // width, norm.eps, factor,
        HEADS=heads, NOPE=nope, ROPE=rope, VALUE=rebuilt - nope, RANK=rank,
        NOPE_PADDED=triton.next_power_of_2(nope),
        ROPE_PADDED=triton.next_power_of_2(max(shared, 1)),
        RANK_PADDED=triton.next_power_of_2(rank), COLUMNS=columns,
        OFFSET=int(norm.unit_offset), INTERLEAVED=interleaved, num_warps=4,
    )  # fmt: skip
    return out


@triton.jit
def _values_kernel(
    attended, weight, out,
    HEADS: tl.constexpr, NOPE: tl.constexpr, VALUE: tl.constexpr, RANK: tl.constexpr,
    OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    BLOCKS: tl.constexpr = (VALUE + OUTPUTS - 1) // OUTPUTS
    program, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    head, block = program // BLOCKS, program % BLOCKS
    output = block * OUTPUTS + tl.arange(0, OUTPUTS)[:, None]
    channel = tl.arange(0, CHANNELS)[None, :]
    rows = weight + (head * (NOPE + VALUE) + NOPE + output) * RANK
    total = tl.zeros((OUTPUTS, CHANNELS), tl.float32)
    for start in range(0, RANK, CHANNELS):
        at = start + channel
        tile = tl.load(rows + at, mask=(output < VALUE) & (at < RANK), other=0.0)
        given = tl.load(attended + (batch * HEADS + head) * RANK + at, mask=at < RANK, other=0.0)
        total += tile.to(tl.float32) * given.to(tl.float32)
    made = out + (batch * HEADS + head) * VALUE
    tl.store(made + output, tl.sum(total, 1, keep_dims=True), mask=output < VALUE)


def latent_values(
    attended: Float[Tensor, "B H R"], weight: Float[Tensor, "rebuilt R"], nope: int
) -> Float[Tensor, "B HV"]:
    """Return the heads' values from what each has attended to.

    Args:
        attended: attended latents of one token a sequence.
        weight: contiguous; a head's rows are those of its key, then of its value.
        nope: rows of a head's key.
    """
    batch, heads, rank = attended.shape
    value = weight.shape[0] // heads - nope
    assert attended.is_contiguous(), "latents must be contiguous"
    assert weight.is_contiguous(), "weights must be contiguous"
    out = attended.new_empty(batch, heads * value)
    _values_kernel[(heads * triton.cdiv(value, OUTPUTS), batch)](
        attended, weight, out,
        HEADS=heads, NOPE=nope, VALUE=value, RANK=rank,
        OUTPUTS=OUTPUTS, CHANNELS=min(CHANNELS, triton.next_power_of_2(rank)), num_warps=4,
    )  # fmt: skip
    return out
