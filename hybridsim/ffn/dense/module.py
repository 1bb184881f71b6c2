"""A dense feed-forward as a module."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.nn.activation import PLAIN, gated
from hybridsim.nn.feed_forward import FeedForward
from hybridsim.nn.linear import linear
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
