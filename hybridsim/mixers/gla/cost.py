"""Closed-form costs of gated linear attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost, chunk_elements
from hybridsim.mixers.delta_rule import short_conv_flops
from hybridsim.mixers.gla.settings import GatedLinearAttentionSettings
from hybridsim.mixers.linear_rule import LinearRule
from hybridsim.steps import BLOCK_SIZE, Step


class GatedLinearAttentionCost(MixerCost):
    """A state of K x V numbers per head, whatever the context; see LinearRule for the FLOPs."""

    settings: GatedLinearAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        gate = {"g_proj": (width, s.value_dim)} if s.output_gate else {}
        return {
            "q_proj": (width, s.key_dim),
            "k_proj": (width, s.key_dim),
            "v_proj": (width, s.value_dim),
            "gk_a_proj": (width, s.gate_rank),
            "gk_b_proj": (s.gate_rank, s.key_dim),
            **gate,
            "o_proj": (s.value_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        conv = {"conv1d": s.qkv_dim * s.conv_size} if s.conv_size is not None else {}
        return conv | {"gk_b_proj.bias": s.key_dim, "o_norm": s.head_v_dim}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        columns = 0 if s.conv_size is None else s.conv_size - 1
        return CacheShape(
            recurrent_bytes=math.floor(
                bytes_of(s.num_heads * s.head_k_dim * s.head_v_dim, dtypes.state)
            ),
            conv_bytes=math.floor(bytes_of(columns * s.qkv_dim, dtypes.conv_state)),
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # q, k, v in fp32 and rounded again; three of decays in fp32; outputs.
        vectors = 3 * s.qkv_dim + 3 * 2 * s.key_dim + s.value_dim
        return vectors + chunk_elements(s.num_heads, s.head_k_dim, s.head_v_dim, matrices=2)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = LinearRule(s.head_k_dim, s.head_v_dim, s.chunk_size, BLOCK_SIZE)
        conv = short_conv_flops(step, s.qkv_dim, s.conv_size or 0)
        return s.num_heads * rule.flops(step, conventions) + conv

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out; the recurrence's q, k, v, decay and output; the gate and the
        # normed output.
        conv = 2 * s.qkv_dim if s.conv_size is not None else 0
        outputs = (3 if s.output_gate else 2) * s.value_dim
        return step.new_tokens * (conv + s.qkv_dim + s.key_dim + outputs)
