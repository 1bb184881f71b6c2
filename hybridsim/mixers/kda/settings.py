"""Settings of Kimi Delta Attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import require_multiple, require_positive
from hybridsim.errors import bad_value
from hybridsim.mixers.base import MixerSettings
from hybridsim.steps import BLOCK_SIZE


@dataclass(frozen=True)
class KimiDeltaAttentionSettings(MixerSettings):
    """The delta rule with one decay per key channel.

    Attributes:
        num_heads: heads H.
        head_dim: channels of a query, key and value head; the state is head_dim x head_dim.
        conv_size: taps of the causal convolution on queries, keys and values.
        gate_rank: width of the bottleneck of the decay and of the output gate; null projects both
            directly (Ling 3.0).
        chunk_size: tokens C of one chunk of the parallel form, a multiple of 16.
        gate_lower_bound: null has log decays -exp(A) softplus(x), without a bound; a number b < 0
            has b sigmoid(exp(A) x), in (b, 0) (Ling 3.0; fla's safe gate).
        negative_eigenvalues: write strengths in (0, 2) instead of (0, 1), see Gated DeltaNet.
    """

    kind: ClassVar[str] = "kda"

    num_heads: int
    head_dim: int
    gate_rank: int | None
    conv_size: int = 4
    chunk_size: int = 64
    gate_lower_bound: float | None = None
    negative_eigenvalues: bool = False

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            conv_size=self.conv_size,
            chunk_size=self.chunk_size,
        )
        require_multiple("chunk_size", self.chunk_size, "the sub-block", BLOCK_SIZE)
        if self.gate_rank is not None:
            require_positive(gate_rank=self.gate_rank)
        if self.gate_lower_bound is not None and not -math.inf < self.gate_lower_bound < 0:
            raise bad_value("gate_lower_bound", self.gate_lower_bound, "must be below 0, or null")

    @property
    def inner_dim(self) -> int:
        """Width of all heads."""
        return self.num_heads * self.head_dim
