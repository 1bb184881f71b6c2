"""Settings of retention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from hybridsim.components import RopeSettings, require_positive
from hybridsim.mixers import MixerSettings


@dataclass(frozen=True)
class RetentionSettings(MixerSettings):
    """Linear attention with one fixed decay per head, on rotated queries and keys.

    Attributes:
        num_heads: heads H.
        head_k_dim: channels K of a query or key head.
        head_v_dim: channels V of a value head.
        rope: rotation of queries and keys.
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "retention"

    num_heads: int
    head_k_dim: int
    head_v_dim: int
    rope: RopeSettings = field(default_factory=RopeSettings)
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_k_dim=self.head_k_dim,
            head_v_dim=self.head_v_dim,
            chunk_size=self.chunk_size,
        )
        self.rope.check_head(self.head_k_dim)

    @property
    def key_dim(self) -> int:
        """Width of all query (or key) heads."""
        return self.num_heads * self.head_k_dim

    @property
    def value_dim(self) -> int:
        """Width of all value heads."""
        return self.num_heads * self.head_v_dim
