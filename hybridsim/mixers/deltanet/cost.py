"""Closed-form costs of DeltaNet."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.mixers.delta_rule import DeltaRule, short_conv_flops
from hybridsim.mixers.deltanet.settings import DeltaNetSettings
from hybridsim.steps import Step


class DeltaNetCost(MixerCost):
    """A state of K x V numbers per head, whatever the context; see DeltaRule for the FLOPs."""

    settings: DeltaNetSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        gate = {"g_proj": (width, s.value_dim)} if s.output_gate else {}
        return {
            "q_proj": (width, s.key_dim),
            "k_proj": (width, s.key_dim),
            "v_proj": (width, s.value_dim),
            "b_proj": (width, s.num_heads),
            **gate,
            "o_proj": (s.value_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        conv = {"conv1d": s.qkv_dim * s.conv_size} if s.conv_size is not None else {}
        return conv | {"o_norm": s.head_v_dim}

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
        # q, k, v convolved and in fp32; q and k twice while they are normalised.
        return 3 * s.qkv_dim + 4 * 2 * s.key_dim

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        rule = DeltaRule(s.head_k_dim, s.head_v_dim, s.chunk_size)
        conv = short_conv_flops(step, s.qkv_dim, s.conv_size or 0)
        return s.num_heads * rule.flops(step, conventions) + conv

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out; the rule's q, k, v, write strength and output; the gate and the
        # normed output.
        conv = 2 * s.qkv_dim if s.conv_size is not None else 0
        outputs = (3 if s.output_gate else 2) * s.value_dim
        return step.new_tokens * (conv + s.qkv_dim + s.num_heads + outputs)
