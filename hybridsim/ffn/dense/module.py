"""A dense feed-forward as a module."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.ffn.dense.settings import DenseSettings
from hybridsim.nn.activation import PLAIN, gated
from hybridsim.nn.feed_forward import FeedForward


class Dense(FeedForward):
    """down(act(gate(x)) * up(x)), or down(act(up(x))) without a gate (arXiv 2002.05202)."""

    def __init__(self, settings: DenseSettings, hidden_size: int) -> None:
        super().__init__()
        self.settings = settings
        inner = settings.intermediate_size
        if settings.gated:
            self.gate_up_proj = nn.Linear(hidden_size, 2 * inner, bias=False)
        else:
            self.up_proj = nn.Linear(hidden_size, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activation = self.settings.activation
        if self.settings.gated:
            inner = gated(activation, self.gate_up_proj(x))
        else:
            inner = PLAIN[activation](self.up_proj(x))
        projected: Tensor = self.down_proj(inner)
        return projected
