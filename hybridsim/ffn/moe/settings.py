"""Settings of a mixture of experts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hybridsim.components import (
    require_activation,
    require_at_least,
    require_choice,
    require_limit,
    require_multiple,
    require_positive,
)
from hybridsim.errors import bad_value
from hybridsim.ffn.base import FfnSettings

ROUTERS = ("softmax", "sigmoid")


@dataclass(frozen=True)
class MoESettings(FfnSettings):
    """Routed experts, of which each token meets a few, and shared ones, which it always meets.

    Attributes:
        num_experts: routed experts E.
        num_experts_per_tok: experts k that a token meets.
        intermediate_size: width of one routed expert.
        num_shared_experts: experts that every token meets.
        shared_intermediate_size: width of one shared expert; null takes `intermediate_size`.
        router: "softmax" over all experts, or "sigmoid" of each score on its own.
        score_correction_bias: a learned offset for choosing, not for weighing, experts (arXiv
            2408.15664); a buffer: it is in no parameter total.
        num_groups: groups of experts; a token first chooses `topk_groups` groups (DeepSeek-V3).
        topk_groups: groups chosen.
        norm_topk_prob: the chosen experts' weights are scaled to sum to 1.
        routed_scaling_factor: factor on the routed experts' sum.
        shared_expert_gate: a sigmoid gate on the shared experts' sum (Qwen).
        activation: see components.ACTIVATIONS.
        router_bias: a bias on the router's scores, which chooses and weighs (gpt-oss).
        expert_bias: biases on the routed experts' projections (gpt-oss).
        gated: every expert, shared ones too, is down(act(gate(x)) * up(x)), else down(act(up(x))).
        latent_size: width that tokens are projected to before the routed experts, and back from
            after their sum; null leaves them as wide as the model (Nemotron 3).
        activation_limit: limit inside the routed experts, see DenseSettings.
        shared_activation_limit: the same inside the shared ones.
    """

    kind: ClassVar[str] = "moe"

    num_experts: int
    num_experts_per_tok: int
    intermediate_size: int
    num_shared_experts: int = 0
    shared_intermediate_size: int | None = None
    router: str = "softmax"
    score_correction_bias: bool = False
    num_groups: int = 1
    topk_groups: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0
    shared_expert_gate: bool = False
    activation: str = "silu"
    router_bias: bool = False
    expert_bias: bool = False
    gated: bool = True
    latent_size: int | None = None
    activation_limit: float | None = None
    shared_activation_limit: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            num_experts=self.num_experts,
            num_experts_per_tok=self.num_experts_per_tok,
            intermediate_size=self.intermediate_size,
            num_groups=self.num_groups,
            topk_groups=self.topk_groups,
            routed_scaling_factor=self.routed_scaling_factor,
        )
        require_at_least(0, num_shared_experts=self.num_shared_experts)
        require_choice("router", self.router, ROUTERS)
        require_activation(self.activation, gated=self.gated)
        for key in ("activation_limit", "shared_activation_limit"):
            require_limit(key, getattr(self, key), self.activation, gated=self.gated)
        require_multiple("num_experts", self.num_experts, "num_groups", self.num_groups)
        if self.shared_intermediate_size is not None:
            require_positive(shared_intermediate_size=self.shared_intermediate_size)
        if self.latent_size is not None:
            require_positive(latent_size=self.latent_size)
        self._check_choice()

    def _check_choice(self) -> None:
        """Raise SpecError where a token could not choose as many experts as it must."""
        if self.num_experts_per_tok > self.num_experts:
            raise bad_value(
                "num_experts_per_tok",
                self.num_experts_per_tok,
                f"must be at most num_experts={self.num_experts}",
            )
        if self.topk_groups > self.num_groups:
            raise bad_value(
                "topk_groups", self.topk_groups, f"must be at most num_groups={self.num_groups}"
            )
        reachable = self.num_experts // self.num_groups * self.topk_groups
        if self.num_experts_per_tok > reachable:
            raise bad_value(
                "num_experts_per_tok",
                self.num_experts_per_tok,
                f"must be at most {reachable},"
                f" the experts of topk_groups={self.topk_groups} groups",
            )
        if self.shared_expert_gate and not self.num_shared_experts:
            raise bad_value("shared_expert_gate", True, "needs num_shared_experts of at least 1")

    @property
    def shared_width(self) -> int:
        """Width of all shared experts together."""
        one = self.shared_intermediate_size or self.intermediate_size
        return self.num_shared_experts * one

    def canonical(self) -> MoESettings:
        # Shared experts stand side by side: one of their joint width is the same.
        return replace(
            self,
            num_shared_experts=min(1, self.num_shared_experts),
            shared_intermediate_size=self.shared_width if self.num_shared_experts else None,
        )
