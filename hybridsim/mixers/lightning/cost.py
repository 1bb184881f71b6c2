"""Closed-form costs of lightning attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost, chunk_elements
from hybridsim.mixers.lightning.settings import LightningAttentionSettings
from hybridsim.mixers.linear_rule import LinearRule
from hybridsim.steps import Step


class LightningAttentionCost(MixerCost):
    """A state of K x K numbers per head.

    See LinearRule for the FLOPs. Source: MiniMax-01, arXiv 2501.08313.
    """

    settings: LightningAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "qkv_proj": (width, 3 * s.inner_dim),
            "output_gate": (width, s.inner_dim),
            "o_proj": (s.inner_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        vectors = {"o_norm": s.inner_dim}
        if s.qk_norm == "head":
            vectors |= {"q_norm": s.head_dim, "k_norm": s.head_dim}
        return vectors

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        return CacheShape(
            recurrent_bytes=math.floor(bytes_of(s.num_heads * s.head_dim**2, dtypes.state))
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # q, k, v in fp32 and rounded again, outputs.
        vectors = (3 * 2 + 3 + 1) * s.inner_dim
        chunked = vectors + chunk_elements(s.num_heads, s.head_dim, s.head_dim, matrices=0)
        if s.qk_norm == "none":
            return chunked
        # q, k, v as projected and in fp32; q and k normalised, and rotated.
        return max(chunked, (3 + 3 * 2 + 4 * 2) * s.inner_dim)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = LinearRule(s.head_dim, s.head_dim, s.chunk_size)
        return s.num_heads * rule.flops(step, conventions)

    def core_elements(self, step: Step) -> int:
        # Queries, keys, values and output of the recurrence; gate in and normed output out.
        return step.new_tokens * 6 * self.settings.inner_dim
