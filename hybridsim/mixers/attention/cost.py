"""Closed-form costs of softmax attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.steps import Step


class AttentionCost(MixerCost):
    """Per pair (query, key) and query head: 2 K FLOPs for the score and 2 K for the value.

    Cache: keys and values of `num_kv_heads` heads, 2 H_kv K numbers a token. Grouping the heads
    shrinks the cache, not the FLOPs. A sink is one more term of a sum: no FLOPs, no cache.
    """

    settings: AttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        queries = s.num_heads * s.head_dim
        keys = s.num_kv_heads * s.head_dim
        return {
            "q_proj": (width, queries * (2 if s.output_gate else 1)),
            "k_proj": (width, keys),
            "v_proj": (width, keys),
            "o_proj": (queries, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        vectors: dict[str, int] = {}
        if s.bias:
            vectors |= {
                f"{name}.bias": self.linears[name][1] for name in ("q_proj", "k_proj", "v_proj")
            }
        if s.output_bias:
            vectors["o_proj.bias"] = self.hidden_size
        if s.sinks:
            vectors["sinks"] = s.num_heads
        if s.qk_norm != "none":
            heads, kv_heads = (1, 1) if s.qk_norm == "head" else (s.num_heads, s.num_kv_heads)
            vectors |= {"q_norm": heads * s.head_dim, "k_norm": kv_heads * s.head_dim}
        return vectors

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        per_token = math.floor(bytes_of(2 * s.num_kv_heads * s.head_dim, dtypes.kv))
        return CacheShape(bytes_per_token=per_token, window_tokens=s.window)

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        queries, keys = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
        if s.output_gate:
            # Queries and gates; then rotated queries, outputs, the gates' sigmoid, the product.
            return 6 * queries
        # Rotation: queries and keys twice, values. At the end: queries, outputs, the projection.
        return max(2 * queries + 3 * keys, 2 * queries + self.hidden_size)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        if step.is_single:
            pairs = min(step.total_tokens, s.window or step.total_tokens)
        else:
            pairs = step.scored_pairs(causal=conventions.causal, window=s.window)
        return 4 * s.num_heads * s.head_dim * pairs

    def core_elements(self, step: Step) -> int:
        s = self.settings
        return step.new_tokens * 2 * (s.num_heads + s.num_kv_heads) * s.head_dim
