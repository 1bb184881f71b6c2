"""Closed-form costs of a mixture of experts."""

from __future__ import annotations

from hybridsim.ffn.base import FfnCost, alive_inner
from hybridsim.ffn.moe.settings import MoESettings

ORDER_ELEMENTS = 22  # of two bytes: a row's expert, place, token and weight


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
        if s.latent_size is not None:
            linears["latent_in_proj"] = (width, s.latent_size)
            linears["latent_out_proj"] = (s.latent_size, width)
        if s.num_shared_experts:
            linears |= self._expert("shared_expert", width, s.shared_width)
        if s.shared_expert_gate:
            linears["shared_expert_gate"] = (width, 1)
        return linears

    @property
    def vectors(self) -> dict[str, int]:
        return {"router.bias": self.settings.num_experts} if self.settings.router_bias else {}

    @property
    def expert_linears(self) -> dict[str, tuple[int, int]]:
        s = self.settings
        return self._expert("experts", s.latent_size or self.hidden_size, s.intermediate_size)

    @property
    def expert_vectors(self) -> dict[str, int]:
        if not self.settings.expert_bias:
            return {}
        return {f"{name}_bias": outputs for name, (_, outputs) in self.expert_linears.items()}

    @property
    def peak_elements_per_token(self) -> int:
        """That of the routed experts, whose rows stand once for each expert of a token.

        Rows in and the inner widths, or the last inner one, rows out and their sum; besides scores
        in fp32, and numbers of 4 and 8 bytes that order the rows.
        """
        s, chosen = self.settings, self.num_experts_per_tok
        width, inner = s.latent_size or self.hidden_size, s.intermediate_size
        first = chosen * (width + alive_inner(s.activation, s.gated) * inner)
        last = chosen * (inner + width) + width
        return max(first, last) + 2 * s.num_experts + ORDER_ELEMENTS * chosen

    def _expert(self, name: str, width: int, inner: int) -> dict[str, tuple[int, int]]:
        gated = self.settings.gated
        up = f"{name}.gate_up_proj" if gated else f"{name}.up_proj"
        return {up: (width, inner * (2 if gated else 1)), f"{name}.down_proj": (inner, width)}
