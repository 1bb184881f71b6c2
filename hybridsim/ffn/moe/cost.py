"""Closed-form costs of a mixture of experts."""

from __future__ import annotations

from hybridsim.ffn.base import FfnCost
from hybridsim.ffn.moe.settings import MoESettings


class MoECost(FfnCost):
    """A token meets the router, the shared experts and k of the E routed experts.

    FLOPs follow the experts a token meets; bytes follow those that the whole batch touches.
    """

    settings: MoESettings

    def __init__(self, settings: MoESettings, hidden_size: int) -> None:
        super().__init__(settings, hidden_size)
        self.num_experts = settings.num_experts
        self.num_experts_per_tok = settings.num_experts_per_tok

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        linears = {"router": (width, s.num_experts)}
        if s.num_shared_experts:
            linears["shared_expert.gate_up_proj"] = (width, 2 * s.shared_width)
            linears["shared_expert.down_proj"] = (s.shared_width, width)
        if s.shared_expert_gate:
            linears["shared_expert_gate"] = (width, 1)
        return linears

    @property
    def vectors(self) -> dict[str, int]:
        return {"router.bias": self.settings.num_experts} if self.settings.router_bias else {}

    @property
    def expert_linears(self) -> dict[str, tuple[int, int]]:
        inner = self.settings.intermediate_size
        return {
            "experts.gate_up_proj": (self.hidden_size, 2 * inner),
            "experts.down_proj": (inner, self.hidden_size),
        }

    @property
    def expert_vectors(self) -> dict[str, int]:
        if not self.settings.expert_bias:
            return {}
        return {f"{name}_bias": outputs for name, (_, outputs) in self.expert_linears.items()}
