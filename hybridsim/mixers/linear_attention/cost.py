"""Closed-form costs of linear attention."""

from __future__ import annotations

import math

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.mixers.linear_attention.settings import LinearAttentionSettings
from hybridsim.mixers.linear_rule import LinearRule
from hybridsim.steps import Step


class LinearAttentionCost(MixerCost):
    """A state of features x V numbers per head, or V + 1 with the normaliser.

    See LinearRule for the FLOPs. Random features are a product of every query and key head with
    a fixed matrix, which is no parameter.
    """

    settings: LinearAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "q_proj": (width, s.key_dim),
            "k_proj": (width, s.key_dim),
            "v_proj": (width, s.value_dim),
            "o_proj": (s.value_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        return {"o_norm": self.settings.head_v_dim} if self.settings.output_norm else {}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        numbers = s.num_heads * s.feature_dim * s.state_columns
        return CacheShape(recurrent_bytes=math.floor(bytes_of(numbers, dtypes.state)))

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = LinearRule(s.feature_dim, s.state_columns, s.chunk_size)
        # Queries and keys, 2 K m FLOPs each.
        features = 4 * s.key_dim * s.num_features if s.num_features is not None else 0
        return s.num_heads * rule.flops(step, conventions) + step.new_tokens * features

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Queries, keys, values and output; the normed output.
        return step.new_tokens * (2 * s.key_dim + (3 if s.output_norm else 2) * s.value_dim)
