"""Closed-form costs of Mamba."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.mixers.delta_rule import short_conv_flops
from hybridsim.mixers.mamba1.settings import Mamba1Settings
from hybridsim.steps import Step

SCAN_FLOPS = 9  # a token, channel and state


class Mamba1Cost(MixerCost):
    """A state of D x S numbers, whatever the context, kept in `dtypes.state` (fp32 in practice).

    The scan has no matrix products: a token's 9 D S FLOPs are its author's count of what is done to
    each number of the state, whichever form does it. Source: A. Gu, state-spaces/mamba issue 110.
    """

    settings: Mamba1Settings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {
            "in_proj": (width, 2 * s.inner_dim),
            "x_proj": (s.inner_dim, s.dt_rank + 2 * s.state_size),
            "dt_proj": (s.dt_rank, s.inner_dim),
            "o_proj": (s.inner_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        vectors = {
            "conv1d": s.inner_dim * (s.conv_size + s.conv_bias),
            "dt_bias": s.inner_dim,
            "A_log": s.inner_dim * s.state_size,
            "D": s.inner_dim,
        }
        if s.proj_bias:
            vectors |= {f"{name}.bias": self.linears[name][1] for name in ("in_proj", "o_proj")}
        if s.inner_norms:
            vectors |= {"dt_norm": s.dt_rank, "b_norm": s.state_size, "c_norm": s.state_size}
        return vectors

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        return CacheShape(
            recurrent_bytes=math.floor(bytes_of(s.inner_dim * s.state_size, dtypes.state)),
            conv_bytes=math.floor(bytes_of((s.conv_size - 1) * s.inner_dim, dtypes.conv_state)),
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        # The projection, and in fp32: x, its convolution, steps twice, gates, outputs.
        return (2 + 6 * 2) * self.settings.inner_dim

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        conv = short_conv_flops(step, s.inner_dim, s.conv_size)
        if not conventions.selective_scan:
            return conv
        return conv + step.new_tokens * SCAN_FLOPS * s.inner_dim * s.state_size

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out, the scan's inputs, its output, the gate and the gated output.
        return step.new_tokens * (7 * s.inner_dim + 2 * s.state_size)
