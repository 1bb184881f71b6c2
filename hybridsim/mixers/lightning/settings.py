"""Settings of lightning attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import RopeSettings, require_choice, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.base import MixerSettings

SLOPE_SCHEDULES = ("minimax", "bailing")


@dataclass(frozen=True)
class LightningAttentionSettings(MixerSettings):
    """Linear attention with a fixed decay per head that weakens from layer to layer.

    Attributes:
        num_heads: heads H.
        head_dim: channels of a query, key and value head; the state is head_dim x head_dim.
        activation: applied to queries, keys and values; "none" leaves them.
        qk_norm: "none" or "head": RMS norms on queries and keys, over a head's channels.
        rope: rotary encoding of queries and keys, or null for none.
        scale_queries: whether queries are multiplied by head_dim^-1/2.
        num_norm_groups: parts of the heads' joined output that are normalised on their own; a
            divisor of num_heads * head_dim ("group_norm_size" in Ring's configurations).
        norm_eps: added to the mean square in that norm; null takes the model's.
        slope_schedule: how slopes weaken with depth: "minimax" or "bailing", which counts layers
            from -1 (see `decay_slopes`).
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "lightning"

    num_heads: int
    head_dim: int
    activation: str = "silu"
    qk_norm: str = "none"
    rope: RopeSettings | None = None
    scale_queries: bool = False
    num_norm_groups: int = 1
    norm_eps: float | None = None
    slope_schedule: str = "minimax"
    chunk_size: int = 256

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            num_norm_groups=self.num_norm_groups,
            chunk_size=self.chunk_size,
        )
        if self.norm_eps is not None:
            require_positive(norm_eps=self.norm_eps)
        require_choice("activation", self.activation, ("silu", "gelu", "none"))
        require_choice("qk_norm", self.qk_norm, ("none", "head"))
        require_choice("slope_schedule", self.slope_schedule, SLOPE_SCHEDULES)
        if self.inner_dim % self.num_norm_groups:
            raise bad_value(
                "num_norm_groups",
                self.num_norm_groups,
                f"must divide num_heads * head_dim={self.inner_dim}",
            )
        if self.rope is not None:
            self.rope.check_head(self.head_dim)

    @property
    def inner_dim(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim
