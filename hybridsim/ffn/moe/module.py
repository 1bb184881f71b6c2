"""A mixture of experts as a module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hybridsim.ffn.dense.module import Dense
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.ffn.moe.ops import (
    grouped_linear,
    route,
    routing,
    scaled_grouped_linear,
    weighted_sum,
)
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.kernels.choice import choose
from hybridsim.nn.activation import PLAIN, gated
from hybridsim.nn.feed_forward import FeedForward
from hybridsim.nn.linear import kernel_of, norm_of
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide
from hybridsim.nn.quantize import quantize_rows


class MoE(FeedForward):
    """y = sum over the token's experts of w_e expert_e(x), plus the shared experts.

    Source: DeepSeekMoE, arXiv 2401.06066. Tokens are sorted by expert, and each product runs over
    all experts at once.
    """

    score_correction_bias: Tensor | None

    def __init__(self, settings: MoESettings, hidden_size: int) -> None:
        super().__init__()
        s = self.settings = settings
        self.router = nn.Linear(hidden_size, s.num_experts, bias=s.router_bias)
        self.experts = Experts(s, s.latent_size or hidden_size)
        if s.latent_size is not None:
            self.latent_in_proj = nn.Linear(hidden_size, s.latent_size, bias=False)
            self.latent_out_proj = nn.Linear(s.latent_size, hidden_size, bias=False)
        bias = torch.zeros(s.num_experts) if s.score_correction_bias else None
        self.register_buffer("score_correction_bias", bias)
        if s.num_shared_experts:
            limit = s.shared_activation_limit
            shared = DenseSettings(s.shared_width, s.activation, s.gated, activation_limit=limit)
            self.shared_expert = Dense(shared, hidden_size)
        if s.shared_expert_gate:
            self.shared_expert_gate = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)  # [N, D]
        logits = wide(self.router(tokens))
        weights, experts = route(logits, self.settings, self.score_correction_bias)
        out = self.routed(tokens, weights, experts).view_as(x)
        if not self.settings.num_shared_experts:
            return out
        shared: Tensor = self.shared_expert(x)
        if self.settings.shared_expert_gate:
            shared = shared * self.shared_expert_gate(x).sigmoid()
        return out + shared

    def step(self, norm: RMSNorm, x: Tensor) -> Tensor | None:
        s = self.settings
        plain = s.num_shared_experts and s.gated and s.num_groups == 1
        if not plain or s.latent_size is not None or s.shared_expert_gate:
            return None
        up, down = self.shared_expert.gate_up_proj, self.shared_expert.down_proj
        sizes = {
            "activation": s.activation,
            "slots": x[..., 0].numel() * s.num_experts_per_tok,
            "num_experts": s.num_experts,
        }
        first = kernel_of("gated_linears", [self.router, up], x, **sizes)
        second = kernel_of("route_beside", [self.router, up, down], x, **sizes)
        if first is None or second is None:
            return None
        third = choose("moe_small", x, self.experts.down_proj, **sizes)
        if third is None:
            return None
        tokens = x.flatten(0, 1).contiguous()
        logits, inner, normed = first(
            tokens,
            norm_of(norm),
            [self.router.weight, up.weight],
            [self.router.bias, up.bias],
            gated=[False, True],
            gate=self.shared_expert.gate,
            keep=True,
        )
        weights, experts, shared = second(
            logits,
            self.score_correction_bias,
            s.num_experts_per_tok,
            inner,
            down.weight,
            down.bias,
            **routing(s),
        )
        routed = self.experts.fused(third, normed, weights, experts, shared=shared, residual=tokens)
        return routed.view_as(x)

    def routed(self, tokens: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts, [N, D]; see Experts.forward."""
        if self.settings.latent_size is None:
            out: Tensor = self.experts(tokens, weights, experts)
            return out
        latent: Tensor = self.experts(self.latent_in_proj(tokens), weights, experts)
        projected: Tensor = self.latent_out_proj(latent)
        return projected


class Experts(nn.Module):
    """The routed experts' weights, stacked: [E, inputs, outputs], biases [E, outputs].

    Once in fp8 they are [E, outputs, inputs], as torch's scaled products want them, with a scale an
    output.
    """

    gate_up_proj_bias: nn.Parameter | None
    up_proj_bias: nn.Parameter | None
    down_proj_bias: nn.Parameter | None
    up_scales: Tensor | None
    down_scales: Tensor | None

    def __init__(self, settings: MoESettings, width: int) -> None:
        super().__init__()
        s = self.settings = settings
        inner = s.intermediate_size
        if s.gated:
            self.gate_up_proj = nn.Parameter(torch.empty(s.num_experts, width, 2 * inner))
            self.gate_up_proj_bias = self._bias(2 * inner)
        else:
            self.up_proj = nn.Parameter(torch.empty(s.num_experts, width, inner))
            self.up_proj_bias = self._bias(inner)
        self.down_proj = nn.Parameter(torch.empty(s.num_experts, inner, width))
        self.down_proj_bias = self._bias(width)
        for name in ("up_scales", "down_scales"):
            self.register_buffer(name, None)

    def round_to_fp8(self) -> None:
        """Hold the weights in fp8 from now on; products take rows in fp8 too, see nn.fp8."""
        up = "gate_up_proj" if self.settings.gated else "up_proj"
        for name, scales in ((up, "up_scales"), ("down_proj", "down_scales")):
            # One expert at a time: all of them in float32 might not fit.
            rounded = [quantize_rows(matrix.T.contiguous()) for matrix in getattr(self, name).data]
            codes = torch.stack([part for part, _ in rounded])
            setattr(self, name, nn.Parameter(codes, requires_grad=False))
            setattr(self, scales, torch.stack([part for _, part in rounded]))

    def _bias(self, outputs: int) -> nn.Parameter | None:
        s = self.settings
        return nn.Parameter(torch.zeros(s.num_experts, outputs)) if s.expert_bias else None

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts.

        Args:
            x: [N, W], the model's width or the latent one.
            weights: [N, k] in float32.
            experts: [N, k], numbers of the experts.
        """
        kernel = choose(
            "moe_small",
            x,
            self.down_proj,
            weights,
            slots=experts.numel(),
            activation=self.settings.activation,
        )
        if kernel is not None:
            return self.fused(kernel, x, weights, experts)
        flat = experts.flatten()
        order = _sort_key(flat, self.settings.num_experts).argsort(stable=True)
        counts = torch.zeros(self.settings.num_experts, dtype=torch.long, device=x.device)
        counts = counts.scatter_add(0, flat, torch.ones_like(flat))
        chosen = flat[order]
        # (The sorted rows have no name: they are large, and not needed again.)
        inner = self._inner(x[order // experts.shape[1]], counts, chosen)
        out = _product(inner, self.down_proj, self.down_scales, counts)
        out = _plus(out, self.down_proj_bias, chosen)
        return weighted_sum(out, order, weights)

    def fused(
        self,
        kernel: Callable[..., Tensor],
        x: Tensor,
        weights: Tensor,
        experts: Tensor,
        **added: Tensor,
    ) -> Tensor:
        """Return what `forward` does, by a kernel, and what is to be added to it."""
        s = self.settings
        up = self.gate_up_proj if s.gated else self.up_proj
        found: Tensor = kernel(
            x,
            up,
            self.down_proj,
            weights,
            experts,
            s.activation,
            gated=s.gated,
            limit=s.activation_limit,
            up_bias=self.gate_up_proj_bias if s.gated else self.up_proj_bias,
            down_bias=self.down_proj_bias,
            up_scales=self.up_scales,
            down_scales=self.down_scales,
            **added,
        )
        return found

    def _inner(self, rows: Tensor, counts: Tensor, chosen: Tensor) -> Tensor:
        activation = self.settings.activation
        if self.settings.gated:
            both = _product(rows, self.gate_up_proj, self.up_scales, counts)
            both = _plus(both, self.gate_up_proj_bias, chosen)
            return gated(activation, both, limit=self.settings.activation_limit)
        up = _product(rows, self.up_proj, self.up_scales, counts)
        return PLAIN[activation](_plus(up, self.up_proj_bias, chosen))


def _product(rows: Tensor, weight: Tensor, scales: Tensor | None, counts: Tensor) -> Tensor:
    if scales is None:
        found: Tensor = grouped_linear(rows, weight, counts)
        return found
    return scaled_grouped_linear(rows, weight, scales, counts)


def _sort_key(experts: Tensor, num_experts: int) -> Tensor:
    """Return the numbers as narrow as they may be: a radix sort takes a pass for each byte."""
    return experts.to(torch.uint8 if num_experts <= 256 else torch.int16)


def _plus(rows: Tensor, bias: Tensor | None, experts: Tensor) -> Tensor:
    """Return rows, each with the bias of its expert where there are biases."""
    return rows if bias is None else rows + bias[experts]
