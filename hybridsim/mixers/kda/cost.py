"""Closed-form costs of Kimi Delta Attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost, chunk_elements
from hybridsim.mixers.delta_rule import DeltaRule, short_conv_flops
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.steps import BLOCK_SIZE, Step


class KimiDeltaAttentionCost(MixerCost):
    """A state of K x K numbers per head, whatever the context; see DeltaRule for the FLOPs."""

    settings: KimiDeltaAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "q_proj": (width, s.inner_dim),
            "k_proj": (width, s.inner_dim),
            "v_proj": (width, s.inner_dim),
            **self._gate("f"),
            "b_proj": (width, s.num_heads),
            **self._gate("g"),
            "o_proj": (s.inner_dim, width),
        }

    def _gate(self, name: str) -> dict[str, tuple[int, int]]:
        """Return the matrices of the decay ("f") or of the output gate ("g")."""
        width, rank, inner = self.hidden_size, self.settings.gate_rank, self.settings.inner_dim
        if rank is None:
            return {f"{name}_proj": (width, inner)}
        return {f"{name}_a_proj": (width, rank), f"{name}_b_proj": (rank, inner)}

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        return {
            "conv1d": 3 * s.inner_dim * s.conv_size,
            "dt_bias": s.inner_dim,
            "A_log": s.num_heads,
            "o_norm": s.head_dim,
        }

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        return CacheShape(
            recurrent_bytes=math.floor(bytes_of(s.num_heads * s.head_dim**2, dtypes.state)),
            conv_bytes=math.floor(bytes_of((s.conv_size - 1) * 3 * s.inner_dim, dtypes.conv_state)),
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # Convolved q, k, v; normalised q, k; the decay, and its sum in fp32; w, u, two of k and
        # decay, outputs.
        vectors = (3 + 2 + 1 + 2 + 5) * s.inner_dim
        return vectors + chunk_elements(s.num_heads, s.head_dim, s.head_dim, matrices=2)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = DeltaRule(s.head_dim, s.head_dim, s.chunk_size, BLOCK_SIZE)
        conv = short_conv_flops(step, 3 * s.inner_dim, s.conv_size)
        return s.num_heads * rule.flops(step, conventions) + conv

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out (3 + 3), the rule's q, k, v, decay and output (5), gate and normed
        # output (2).
        return step.new_tokens * (13 * s.inner_dim + s.num_heads)
