"""Settings of a dense feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_activation, require_limit, require_positive
from hybridsim.errors import bad_value
from hybridsim.ffn.base import FfnSettings


@dataclass(frozen=True)
class DenseSettings(FfnSettings):
    """One MLP for every token.

    Attributes:
        intermediate_size: width between the projections.
        activation: see components.ACTIVATIONS.
        gated: down(act(gate(x)) * up(x)) (arXiv 2002.05202), else down(act(up(x))) (Nemotron-H).
        bias: biases on all projections.
        gate_scale: factor on the gate before its activation (Falcon-H1).
        down_scale: factor on the output (Falcon-H1).
        activation_limit: act(gate) is at most this, and up between minus and plus this; null has
            no limit (the last layers of Ling 3.0).
    """

    kind: ClassVar[str] = "dense"

    intermediate_size: int
    activation: str = "silu"
    gated: bool = True
    bias: bool = False
    gate_scale: float = 1.0
    down_scale: float = 1.0
    activation_limit: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            intermediate_size=self.intermediate_size,
            gate_scale=self.gate_scale,
            down_scale=self.down_scale,
        )
        if self.gate_scale != 1 and not self.gated:
            raise bad_value("gate_scale", self.gate_scale, "needs gated=true")
        require_activation(self.activation, gated=self.gated)
        limit = self.activation_limit
        require_limit("activation_limit", limit, self.activation, gated=self.gated)
