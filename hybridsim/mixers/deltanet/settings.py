"""Settings of DeltaNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_choice, require_positive
from hybridsim.mixers.base import MixerSettings

QK_ACTIVATIONS = ("silu", "relu", "elu1", "identity")
QK_NORMS = ("l2", "sum")


@dataclass(frozen=True)
class DeltaNetSettings(MixerSettings):
    """The delta rule without decay.

    Attributes:
        num_heads: heads H.
        head_k_dim: channels K of a query or key head.
        head_v_dim: channels V of a value head.
        conv_size: taps of the causal convolution on queries, keys and values; null for none.
        qk_activation: applied to queries and keys: "silu", "relu", "elu1" (elu + 1) or "identity".
        qk_norm: "l2", or "sum": divided by the sum of their magnitudes.
        output_gate: multiply the normed output by SiLU(W_g x).
        negative_eigenvalues: write strengths in (0, 2) instead of (0, 1), see Gated DeltaNet.
        chunk_size: tokens C of one chunk of the parallel form.
    """

    kind: ClassVar[str] = "deltanet"

    num_heads: int
    head_k_dim: int
    head_v_dim: int
    conv_size: int | None = 4
    qk_activation: str = "silu"
    qk_norm: str = "l2"
    output_gate: bool = False
    negative_eigenvalues: bool = False
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_k_dim=self.head_k_dim,
            head_v_dim=self.head_v_dim,
            chunk_size=self.chunk_size,
        )
        if self.conv_size is not None:
            require_positive(conv_size=self.conv_size)
        require_choice("qk_activation", self.qk_activation, QK_ACTIVATIONS)
        require_choice("qk_norm", self.qk_norm, QK_NORMS)

    @property
    def key_dim(self) -> int:
        """Width of all query (or key) heads."""
        return self.num_heads * self.head_k_dim

    @property
    def value_dim(self) -> int:
        """Width of all value heads."""
        return self.num_heads * self.head_v_dim

    @property
    def qkv_dim(self) -> int:
        """Channels of queries, keys and values, which the convolution runs over."""
        return 2 * self.key_dim + self.value_dim
