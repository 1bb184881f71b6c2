"""Settings of Gated DeltaNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_multiple, require_positive
from hybridsim.mixers.base import MixerSettings


@dataclass(frozen=True)
class GatedDeltaNetSettings(MixerSettings):
    """The delta rule with one decay per value head.

    Attributes:
        num_heads: query and key heads H.
        num_v_heads: value heads HV, a multiple of `num_heads`; each has a state of its own.
        head_k_dim: channels K of a query or key head.
        head_v_dim: channels V of a value head.
        conv_size: taps of the causal convolution on queries, keys and values.
        chunk_size: tokens C of one chunk of the parallel form.
        negative_eigenvalues: write strengths in (0, 2) instead of (0, 1), so that the transition
            I - beta k k^T has eigenvalues down to -1 (arXiv 2411.12537; OLMo Hybrid).
        norm_eps: added to the mean square in the output's norm; null takes the model's.
    """

    kind: ClassVar[str] = "gated_deltanet"

    num_heads: int
    num_v_heads: int
    head_k_dim: int
    head_v_dim: int
    conv_size: int = 4
    chunk_size: int = 64
    negative_eigenvalues: bool = False
    norm_eps: float | None = None

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            num_v_heads=self.num_v_heads,
            head_k_dim=self.head_k_dim,
            head_v_dim=self.head_v_dim,
            conv_size=self.conv_size,
            chunk_size=self.chunk_size,
        )
        require_multiple("num_v_heads", self.num_v_heads, "num_heads", self.num_heads)
        if self.norm_eps is not None:
            require_positive(norm_eps=self.norm_eps)

    @property
    def key_dim(self) -> int:
        """Width of all query (or key) heads."""
        return self.num_heads * self.head_k_dim

    @property
    def value_dim(self) -> int:
        """Width of all value heads."""
        return self.num_v_heads * self.head_v_dim

    @property
    def conv_channels(self) -> int:
        """Channels that the convolution runs over: queries, keys, values."""
        return 2 * self.key_dim + self.value_dim
