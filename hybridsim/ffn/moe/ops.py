"""A mixture of experts as functions of tensors: routing, and products with each token's experts."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.kernels.choice import REFERENCE, choose, note, on_gpu
from hybridsim.nn.library import operator
from hybridsim.nn.precision import wide
from hybridsim.nn.quantize import quantize_rows

GATHERED_ROWS = 64  # rows for which copies of their experts' matrices are no burden


def _shape(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[2])


@operator("grouped_linear(Tensor x, Tensor weight, Tensor counts) -> Tensor", _shape)
def grouped_linear(x: Tensor, weight: Tensor, counts: Tensor) -> Tensor:
    """Return each row times the matrix of its expert.

    Args:
        x: [rows, I], sorted by expert.
        weight: [E, I, O].
        counts: [E], rows of each expert.

    Returns:
        [rows, O].
    """
    if x.dtype == torch.bfloat16 and (x.is_cuda or x.is_meta) and _rows_are_aligned(weight):
        return F.grouped_mm(x, weight, offs=counts.cumsum(0).to(torch.int32))
    if x.is_cuda and x.shape[0] <= GATHERED_ROWS:  # without a word to the host
        experts = torch.repeat_interleave(counts, output_size=x.shape[0])
        return torch.bmm(x[:, None], weight[experts]).squeeze(1)
    if x.is_meta:
        return x @ weight[0]  # whatever the experts, the same shape and FLOPs
    pieces = x.split(counts.tolist())
    return torch.cat([rows @ weight[e] for e, rows in enumerate(pieces) if rows.shape[0]])


def scaled_grouped_linear(
    x: Float[Tensor, "M I"],
    codes: Float[Tensor, "E O I"],
    scales: Float[Tensor, "E O"],
    counts: Int[Tensor, " E"],
) -> Float[Tensor, "M O"]:
    """Return each row, rounded to fp8, times the transposed fp8 matrix of its expert.

    Args:
        x: sorted by expert.
        codes: the matrices.
        scales: of each output.
        counts: rows of each expert.
    """
    rows, row_scales = quantize_rows(x)
    if on_gpu(x):
        note("fp8_experts", "torch _scaled_grouped_mm, rows")
        ends = counts.cumsum(0).to(torch.int32)
        return torch._scaled_grouped_mm(
            rows, codes.mT, row_scales, scales, ends, out_dtype=x.dtype, use_fast_accum=True
        )
    note("fp8_experts", REFERENCE)
    wide_weight = (codes.float() * scales[..., None]).mT.contiguous()
    found: Tensor = grouped_linear(rows.float() * row_scales[:, None], wide_weight, counts)
    return found.to(x.dtype)


def _rows_are_aligned(weight: Tensor) -> bool:
    """Whether torch's grouped product takes these widths: it wants rows of whole 16 bytes."""
    return all(width * weight.element_size() % 16 == 0 for width in weight.shape[1:])


def weighted_sum(
    rows: Float[Tensor, "M D"], order: Int[Tensor, " M"], weights: Float[Tensor, "N k"]
) -> Float[Tensor, "N D"]:
    """Return the weighted sum of each token's rows, in float32 inside.

    Args:
        rows: one for each token and expert of it, sorted by expert.
        order: which of the N k each row is, counted token by token.
        weights: of each token's experts, in float32.
    """
    kernel = choose("sum_of_rows", rows, weights)
    if kernel is not None:
        numbers = torch.arange(order.shape[0], device=order.device)
        places = torch.empty_like(order).scatter_(0, order, numbers)
        fused: Tensor = kernel(rows, places.view(weights.shape), weights)
        return fused
    unsorted = torch.empty_like(rows).index_copy(0, order, rows)
    per_token = wide(unsorted.unflatten(0, weights.shape))
    return (per_token * weights[..., None]).sum(dim=1).to(rows.dtype)


def route(
    logits: Float[Tensor, "N E"], settings: MoESettings, bias: Float[Tensor, E] | None
) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
    """Return the weights and the numbers of each token's experts.

    Source of groups and of the bias, which chooses but does not weigh: DeepSeek-V3, arXiv
    2412.19437, section 2.1.2.
    """
    s = settings
    if s.num_groups == 1:
        kernel = choose("route", logits, num_experts=logits.shape[-1])
        if kernel is not None:
            given = (logits, bias, s.num_experts_per_tok)
            found: tuple[Tensor, Tensor] = kernel(*given, **routing(s))
            return found
    scores = logits.softmax(-1) if s.router == "softmax" else logits.sigmoid()
    choice = scores if bias is None else scores + bias
    if s.num_groups > 1:
        choice = _only_best_groups(choice, s)
    experts = choice.topk(s.num_experts_per_tok, dim=-1, sorted=False).indices
    weights = scores.gather(-1, experts)
    if s.norm_topk_prob:
        weights = weights / (weights.sum(-1, keepdim=True) + 1e-20)
    return weights * s.routed_scaling_factor, experts


def routing(s: MoESettings) -> dict[str, Any]:
    """Return how scores become weights, as kernels take it."""
    return {
        "sigmoid": s.router == "sigmoid",
        "normalize": s.norm_topk_prob,
        "factor": s.routed_scaling_factor,
    }


def _only_best_groups(choice: Float[Tensor, "N E"], s: MoESettings) -> Float[Tensor, "N E"]:
    """Return the scores with minus infinity outside the best groups, by their two best experts."""
    grouped: Tensor = choice.unflatten(-1, (s.num_groups, -1))
    best_two = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)
    groups = best_two.topk(s.topk_groups, dim=-1, sorted=False).indices
    kept = torch.zeros_like(best_two).scatter(-1, groups, 1.0)
    return grouped.masked_fill((kept == 0)[..., None], -torch.inf).flatten(-2)
