"""The experts of each token in one launch: scores, the highest of them, their weights."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor


@triton.jit
def _kernel(
    logits, bias, weights, experts, factor,
    EXPERTS: tl.constexpr, PADDED: tl.constexpr, TOP: tl.constexpr, TOP_PADDED: tl.constexpr,
    SIGMOID: tl.constexpr, NORMALIZE: tl.constexpr, HAS_BIAS: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    expert, place = tl.arange(0, PADDED), tl.arange(0, TOP_PADDED)
    inside = expert < EXPERTS
    logit = tl.load(logits + token * EXPERTS + expert, mask=inside, other=float("-inf"))
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
        logits: in float32, in one group.
        bias: chooses but does not weigh; None for none.
        top: experts of a token.
        sigmoid: scores are sigmoids, else a softmax.
        normalize: whether the weights sum to one before the factor.
        factor: on the weights.
    """
    tokens, count = logits.shape
    weights = torch.empty(tokens, top, dtype=torch.float32, device=logits.device)
    experts = torch.empty(tokens, top, dtype=torch.int64, device=logits.device)
    padded = triton.next_power_of_2(count)
    _kernel[(tokens,)](
        logits.contiguous(), bias, weights, experts, factor,
        EXPERTS=count, PADDED=padded, TOP=top, TOP_PADDED=triton.next_power_of_2(top),
        SIGMOID=sigmoid, NORMALIZE=normalize, HAS_BIAS=bias is not None,
        num_warps=max(1, min(4, padded // 128)),
    )  # fmt: skip
    return weights, experts
