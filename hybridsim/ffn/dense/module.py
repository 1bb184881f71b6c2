"""A dense feed-forward as a module."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.kernels.arguments import Gate
from hybridsim.nn.activation import PLAIN, gated
from hybridsim.nn.feed_forward import FeedForward
from hybridsim.nn.linear import added_linear, kernel_of, linear, norm_of
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.scale import scaled


class Dense(FeedForward):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate (arXiv 2002.05202)."""

    def __init__(self, settings: DenseSettings, hidden_size: int) -> None:
        super().__init__()
        self.settings = settings
        inner, bias = settings.intermediate_size, settings.bias
        if settings.gated:
            self.gate_up_proj = nn.Linear(hidden_size, 2 * inner, bias=bias)
        else:
            self.up_proj = nn.Linear(hidden_size, inner, bias=bias)
        self.down_proj = nn.Linear(inner, hidden_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        s = self.settings
        if s.gated:
            gate_up = linear(self.gate_up_proj, x)
            inner = gated(s.activation, gate_up, s.gate_scale, s.activation_limit)
        else:
            inner = PLAIN[s.activation](linear(self.up_proj, x))
        return scaled(linear(self.down_proj, inner), s.down_scale)

    def step(self, norm: RMSNorm, x: Tensor) -> Tensor | None:
        s = self.settings
        if not s.gated or s.down_scale != 1:
            return None
        layer = self.gate_up_proj
        kernel = kernel_of("gated_linears", [layer], x, activation=s.activation)
        if kernel is None:
            return None
        (inner,) = kernel(
            x, norm_of(norm), [layer.weight], [layer.bias], gated=[True], gate=self.gate
        )
        return added_linear(self.down_proj, inner, x)

    @property
    def gate(self) -> Gate:
        """What the gated layer's halves become."""
        s = self.settings
        return Gate(s.activation, s.gate_scale, s.activation_limit)
