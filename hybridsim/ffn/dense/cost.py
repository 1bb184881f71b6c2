"""Closed-form costs of a dense feed-forward."""

from __future__ import annotations

from hybridsim.ffn.base import FfnCost, alive_inner
from hybridsim.ffn.dense.settings import DenseSettings


class DenseCost(FfnCost):
    """3 D I weights with a gate, 2 D I without; 2 FLOPs a weight and token."""

    settings: DenseSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        inner = self.settings.intermediate_size
        up = "gate_up_proj" if self.settings.gated else "up_proj"
        return {
            up: (self.hidden_size, inner * (2 if self.settings.gated else 1)),
            "down_proj": (inner, self.hidden_size),
        }

    @property
    def vectors(self) -> dict[str, int]:
        if not self.settings.bias:
            return {}
        return {f"{name}.bias": outputs for name, (_, outputs) in self.linears.items()}

    @property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        outputs = self.hidden_size * (1 if s.down_scale == 1 else 2)
        kept = s.intermediate_size * (3 if s.gated else 2)
        return max(alive_inner(s.activation, s.gated) * s.intermediate_size, kept + outputs)
