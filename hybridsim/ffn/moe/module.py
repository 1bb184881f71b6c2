"""A mixture of experts as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.ffn.dense.module import Dense
from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.ffn.moe.ops import grouped_linear, route
from hybridsim.ffn.moe.settings import MoESettings
from hybridsim.nn.activation import gated
from hybridsim.nn.feed_forward import FeedForward
from hybridsim.nn.precision import wide


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
        self.experts = Experts(s, hidden_size)
        bias = torch.zeros(s.num_experts) if s.score_correction_bias else None
        self.register_buffer("score_correction_bias", bias)
        if s.num_shared_experts:
            self.shared_expert = Dense(DenseSettings(s.shared_width, s.activation), hidden_size)
        if s.shared_expert_gate:
            self.shared_expert_gate = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(0, 1)  # [N, D]
        logits = wide(self.router(tokens))
        weights, experts = route(logits, self.settings, self.score_correction_bias)
        out: Tensor = self.experts(tokens, weights, experts).view_as(x)
        if not self.settings.num_shared_experts:
            return out
        shared: Tensor = self.shared_expert(x)
        if self.settings.shared_expert_gate:
            shared = shared * self.shared_expert_gate(x).sigmoid()
        return out + shared


class Experts(nn.Module):
    """The routed experts' weights, stacked: [E, inputs, outputs], biases [E, outputs]."""

    gate_up_proj_bias: nn.Parameter | None
    down_proj_bias: nn.Parameter | None

    def __init__(self, settings: MoESettings, hidden_size: int) -> None:
        super().__init__()
        s = self.settings = settings
        inner = s.intermediate_size
        self.gate_up_proj = nn.Parameter(torch.empty(s.num_experts, hidden_size, 2 * inner))
        self.down_proj = nn.Parameter(torch.empty(s.num_experts, inner, hidden_size))
        self.gate_up_proj_bias = self._bias(2 * inner)
        self.down_proj_bias = self._bias(hidden_size)

    def _bias(self, outputs: int) -> nn.Parameter | None:
        s = self.settings
        return nn.Parameter(torch.zeros(s.num_experts, outputs)) if s.expert_bias else None

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """Return the weighted sum of each token's experts.

        Args:
            x: [N, D].
            weights: [N, k] in float32.
            experts: [N, k], numbers of the experts.
        """
        flat = experts.flatten()
        order = flat.argsort(stable=True)
        counts = torch.zeros(self.settings.num_experts, dtype=torch.long, device=x.device)
        counts = counts.scatter_add(0, flat, torch.ones_like(flat))
        rows, chosen = x[order // experts.shape[1]], flat[order]
        inner = grouped_linear(rows, self.gate_up_proj, counts)
        inner = gated(self.settings.activation, _plus(inner, self.gate_up_proj_bias, chosen))
        out = _plus(grouped_linear(inner, self.down_proj, counts), self.down_proj_bias, chosen)
        unsorted = torch.empty_like(out).index_copy(0, order, out)
        # The weighted sum over a token's experts.
        per_token = wide(unsorted.unflatten(0, experts.shape))
        return (per_token * weights[..., None]).sum(dim=1).to(x.dtype)


def _plus(rows: Tensor, bias: Tensor | None, experts: Tensor) -> Tensor:
    """Return rows, each with the bias of its expert where there are biases."""
    return rows if bias is None else rows + bias[experts]
