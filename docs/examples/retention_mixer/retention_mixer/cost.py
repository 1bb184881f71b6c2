"""Closed-form costs of retention, and the counting rule of its operator. No torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from hybridsim.conventions import FlopConventions, Shape
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers import CacheShape, MixerCost
from hybridsim.mixers.linear_rule import LinearRule
from hybridsim.steps import Step
from retention_mixer.settings import RetentionSettings


class RetentionCost(MixerCost):
    """A state of K x V numbers per head, whatever the context."""

    settings: RetentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "q_proj": (width, s.key_dim),
            "k_proj": (width, s.key_dim),
            "v_proj": (width, s.value_dim),
            "g_proj": (width, s.value_dim),
            "o_proj": (s.value_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        return {"o_norm": self.settings.head_v_dim}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        numbers = s.num_heads * s.head_k_dim * s.head_v_dim
        return CacheShape(recurrent_bytes=int(bytes_of(numbers, dtypes.state)))

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = LinearRule(s.head_k_dim, s.head_v_dim, s.chunk_size)
        return s.num_heads * rule.flops(step, conventions)

    def core_elements(self, step: Step) -> int:
        # Queries, keys, values and output of the recurrence; gate in and normed output out.
        return step.new_tokens * (2 * self.settings.key_dim + 4 * self.settings.value_dim)


def inside_chunks_flops(args: Sequence[Any], out: Shape, conventions: FlopConventions) -> int:
    """Return the FLOPs of the operator `inside_chunks`: scores, and scores times values.

    Args:
        args: the shapes of q and k [B, H, N, C, K], v [B, H, N, C, V] and the slopes [H].
        out: the shape of the result, [B, H, N, C, V].
        conventions: what counts; whole blocks are executed whatever they say.
    """
    tokens, key_dim = args[0][-2:]
    return int(2 * math.prod(out[:-1]) * tokens * (key_dim + out[-1]))
