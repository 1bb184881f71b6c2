"""Settings of gated linear attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_multiple, require_positive
from hybridsim.mixers.base import MixerSettings
from hybridsim.steps import BLOCK_SIZE


@dataclass(frozen=True)
class GatedLinearAttentionSettings(MixerSettings):
    """Linear attention with one decay per key channel and token, and a gate on its output.

    Attributes:
        num_heads: heads H.
        head_k_dim: channels K of a query or key head.
        head_v_dim: channels V of a value head.
        gate_rank: width of the bottleneck of the decay.
        gate_logit_normalizer: divides the log of the decays' sigmoid: the larger, the slower the
            state forgets.
        conv_size: taps of the causal convolution on queries, keys and values; null for none.
        output_gate: multiply the normed output by SiLU(W_g x).
        chunk_size: tokens C of one chunk of the parallel form, a multiple of 16.
    """

    kind: ClassVar[str] = "gla"

    num_heads: int
    head_k_dim: int
    head_v_dim: int
    gate_rank: int = 16
    gate_logit_normalizer: float = 16.0
    conv_size: int | None = None
    output_gate: bool = True
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_k_dim=self.head_k_dim,
            head_v_dim=self.head_v_dim,
            gate_rank=self.gate_rank,
            gate_logit_normalizer=self.gate_logit_normalizer,
            chunk_size=self.chunk_size,
        )
        if self.conv_size is not None:
            require_positive(conv_size=self.conv_size)
        require_multiple("chunk_size", self.chunk_size, "the sub-block", BLOCK_SIZE)

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
