"""Settings of Kimi Delta Attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_multiple, require_positive
from hybridsim.mixers.base import MixerSettings

BLOCK_SIZE = 16  # tokens of a sub-block of the chunked form, see ops.py


@dataclass(frozen=True)
class KimiDeltaAttentionSettings(MixerSettings):
    """The delta rule with one decay per key channel.

    Attributes:
        num_heads: heads H.
        head_dim: channels of a query, key and value head; the state is head_dim x head_dim.
        conv_size: taps of the causal convolution on queries, keys and values.
        gate_rank: width of the bottleneck of the decay and of the output gate.
        chunk_size: tokens C of one chunk of the parallel form, a multiple of 16.
    """

    kind: ClassVar[str] = "kda"

    num_heads: int
    head_dim: int
    gate_rank: int
    conv_size: int = 4
    chunk_size: int = 64

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            gate_rank=self.gate_rank,
            conv_size=self.conv_size,
            chunk_size=self.chunk_size,
        )
        require_multiple("chunk_size", self.chunk_size, "the sub-block", BLOCK_SIZE)

    @property
    def inner_dim(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim
