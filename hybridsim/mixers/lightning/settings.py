"""Settings of lightning attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_choice, require_positive
from hybridsim.mixers.base import MixerSettings


@dataclass(frozen=True)
class LightningAttentionSettings(MixerSettings):
    """Linear attention with a fixed decay per head that weakens from layer to layer.

    Attributes:
        num_heads: heads H.
        head_dim: channels of a query, key and value head; the state is head_dim x head_dim.
        activation: applied to queries, keys and values.
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "lightning"

    num_heads: int
    head_dim: int
    activation: str = "silu"
    chunk_size: int = 256

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads, head_dim=self.head_dim, chunk_size=self.chunk_size
        )
        require_choice("activation", self.activation, ("silu", "gelu"))

    @property
    def inner_dim(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim
