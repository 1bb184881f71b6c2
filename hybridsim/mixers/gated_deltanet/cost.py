"""Closed-form costs of Gated DeltaNet."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost, chunk_elements
from hybridsim.mixers.delta_rule import DeltaRule, short_conv_flops
from hybridsim.mixers.gated_deltanet.settings import GatedDeltaNetSettings
from hybridsim.steps import Step


class GatedDeltaNetCost(MixerCost):
    """A state of K x V numbers per value head, whatever the context; see DeltaRule for the FLOPs.

    The state is kept in `dtypes.state` (fp32 in practice), the last `conv_size - 1` columns of
    queries, keys and values in `dtypes.conv_state`.
    """

    settings: GatedDeltaNetSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "in_proj_qkvz": (width, 2 * s.key_dim + 2 * s.value_dim),
            "in_proj_ba": (width, 2 * s.num_v_heads),
            "o_proj": (s.value_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        return {
            "conv1d": s.conv_channels * s.conv_size,
            "dt_bias": s.num_v_heads,
            "A_log": s.num_v_heads,
            "o_norm": s.head_v_dim,
        }

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        return CacheShape(
            recurrent_bytes=math.floor(
                bytes_of(s.num_v_heads * s.head_k_dim * s.head_v_dim, dtypes.state)
            ),
            conv_bytes=math.floor(bytes_of((s.conv_size - 1) * s.conv_channels, dtypes.conv_state)),
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # Convolved and normalised q, k; convolved v, the gate, u, the rule's values, outputs; w.
        expanded = s.num_v_heads * s.head_k_dim
        vectors = 4 * s.key_dim + 5 * s.value_dim + expanded
        return vectors + chunk_elements(s.num_v_heads, s.head_k_dim, s.head_v_dim, matrices=1)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = DeltaRule(s.head_k_dim, s.head_v_dim, s.chunk_size)
        conv = short_conv_flops(step, s.conv_channels, s.conv_size)
        return s.num_v_heads * rule.flops(step, conventions) + conv

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out, the rule's inputs and outputs, the gated norm's gate and output.
        per_token = 3 * s.conv_channels + 2 * s.num_v_heads + 3 * s.value_dim
        return step.new_tokens * per_token
