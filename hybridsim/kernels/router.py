"""The experts of each token in one launch: scores, the highest of them, their weights.

A token's program has little to do and much to wait for; a layer that needs no routing, a shared
expert's way back, can run beside it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.kernels.products import cut, linear_block


@triton.jit
def _route(
    logits, bias, weights, experts, token, factor,
    EXPERTS: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr, TOP_PADDED: tl.constexpr,
    SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    """Write a token's experts and their weights."""
    expert, place = tl.arange(0, PADDED), tl.arange(0, TOP_PADDED)
    inside = expert < EXPERTS
    logit = tl.load(logits + token * EXPERTS + expert, mask=inside, other=float("-inf"))
    logit = logit.to(tl.float32)
    if SIGMOID:
        scores = tl.sigmoid(logit)
    else:
        scores = tl.exp(logit - tl.max(logit, 0))
        scores = scores / tl.sum(scores, 0)
    left = scores
    if HAS_BIAS:
        left += tl.load(bias + expert, mask=inside, other=0.0).to(tl.float32)
    left = tl.where(inside, left, float("-inf"))
    chosen = tl.zeros((TOP_PADDED,), tl.int32)
    weight = tl.zeros((TOP_PADDED,), tl.float32)
    for rank in tl.static_range(TOP):
        best = tl.argmax(left, 0)
        chosen = tl.where(place == rank, best, chosen)
        score = tl.sum(tl.where(expert == best, scores, 0.0), 0)
        weight = tl.where(place == rank, score, weight)
        left = tl.where(expert == best, float("-inf"), left)
    if NORMALIZE:
        weight = weight / (tl.sum(weight, 0) + 1e-20)
    at, kept = token * TOP + place, place < TOP
    tl.store(weights + at, weight * factor, mask=kept)
    tl.store(experts + at, chosen.to(tl.int64), mask=kept)


@triton.jit(do_not_specialize=["tokens"])
def _route_kernel(
    logits, bias, weights, experts, x, layer, layer_bias, out, tokens, factor,
    EXPERTS: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr, TOP_PADDED: tl.constexpr,
    SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr, HAS_BIAS: tl.constexpr,
    INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
    ROWS: tl.constexpr, OUTPUT_BLOCK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0)
    if program < tokens:
        _route(
            logits, bias, weights, experts, program.to(tl.int64), factor,
            EXPERTS, PADDED, TOP, TOP_PADDED, SIGMOID, NORMALIZE, HAS_BIAS,
        )  # fmt: skip
    elif x is not None:
        linear_block(
            x, layer, layer_bias, None, None, out, tokens, program - tokens, 0.0, 1.0,
            INPUTS, OUTPUTS, False, 0, "silu", None, ROWS, OUTPUT_BLOCK, CHANNELS,
        )  # fmt: skip


def _launch(
    logits: Tensor, bias: Tensor | None, top: int, *,
    sigmoid: bool, normalize: bool, factor: float,
    beside: tuple[Tensor, Tensor, Tensor | None] | None = None, out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    tokens, count = logits.shape
    weights = torch.empty(tokens, top, dtype=torch.float32, device=logits.device)
    experts = torch.empty(tokens, top, dtype=torch.int64, device=logits.device)
    padded = triton.next_power_of_2(count)
    warps, blocks = max(1, min(4, padded // 128)), 0
    x, layer, layer_bias = beside or (None, None, None)
    tiles, outputs, inputs = {"ROWS": 1, "OUTPUT_BLOCK": 1, "CHANNELS": 1}, 1, 1
    if x is not None and layer is not None:
        assert x.is_contiguous(), "rows must be contiguous"
        assert layer.is_contiguous(), "weights must be contiguous"
        outputs, inputs = layer.shape
        first_blocks, tiles = cut(x.device, (outputs,), tokens, inputs)
        warps, blocks = 4, first_blocks[-1]
    _route_kernel[(tokens + blocks,)](
        logits.contiguous(), bias, weights, experts, x, layer, layer_bias, out, tokens, factor,
        EXPERTS=count, PADDED=padded, TOP=top, TOP_PADDED=triton.next_power_of_2(top),
        SIGMOID=sigmoid, NORMALIZE=normalize, HAS_BIAS=bias is not None,
        INPUTS=inputs, OUTPUTS=outputs, num_warps=warps, **tiles,
    )  # fmt: skip
    return weights, experts


def route(
    logits: Float[Tensor, "N E"],
    bias: Float[Tensor, " E"] | None,
    top: int,
    *,
    sigmoid: bool,
    normalize: bool,
    factor: float,
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return the weights and the numbers of each token's experts, as ffn.moe.ops.route does.

    Args:
        logits: in one group.
        bias: chooses but does not weigh; None for none.
        top: experts of a token.
        sigmoid: scores are sigmoids, else a softmax.
        normalize: whether the weights sum to one before the factor.
        factor: on the weights.
    """
    return _launch(logits, bias, top, sigmoid=sigmoid, normalize=normalize, factor=factor)


def route_beside(
    logits: Float[Tensor, "N E"],
    bias: Float[Tensor, " E"] | None,
    top: int,
    x: Float[Tensor, "N I"],
    weight: Float[Tensor, "O I"],
    layer_bias: Float[Tensor, " O"] | None,
    *,
    sigmoid: bool,
    normalize: bool,
    factor: float,
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"], Float[Tensor, "N O"]]:
    """Return what `route` returns, and x W^T + b of a layer that runs beside it.

    Args:
        logits, bias, top, sigmoid, normalize, factor: as for `route`; logits in any precision.
        x: at most MOST_ROWS rows.
        weight, layer_bias: of the layer.
    """
    out = torch.empty(x.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    weights, experts = _launch(
        logits, bias, top,
        sigmoid=sigmoid, normalize=normalize, factor=factor,
        beside=(x, weight, layer_bias), out=out,
    )  # fmt: skip
    return weights, experts, out
