"""Closed-form costs of Mamba-2."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost, chunk_elements
from hybridsim.mixers.delta_rule import short_conv_flops
from hybridsim.mixers.mamba2.settings import Mamba2Settings
from hybridsim.steps import Step


class Mamba2Cost(MixerCost):
    """A state of S x P numbers per head.

    One token: write B x^T and read S^T C, 2 S P FLOPs a head each. A chunk of C tokens: scores
    C B^T once a group, 2 C^2 S; and for each head scores times x, 2 C^2 P, output from the old
    state and new state, 2 C S P each. The published convention takes the causal half of the first
    two. Source: arXiv 2405.21060, section 6.

    The state is kept in `dtypes.state` (fp32 in practice), the last `conv_size - 1` columns of
    x, B and C in `dtypes.conv_state`.
    """

    settings: Mamba2Settings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return {"in_proj": (width, sum(s.projection_widths)), "o_proj": (s.inner_dim, width)}

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        vectors = {
            "conv1d": s.conv_channels * (s.conv_size + s.conv_bias),
            "dt_bias": s.num_heads,
            "A_log": s.num_heads,
            "D": s.num_heads,
        }
        if s.norm != "none":
            vectors["o_norm"] = s.inner_dim
        biases = {"in_proj": s.bias, "o_proj": s.output_bias}
        return vectors | {f"{n}.bias": self.linears[n][1] for n, has in biases.items() if has}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        s = self.settings
        return CacheShape(
            recurrent_bytes=math.floor(bytes_of(s.inner_dim * s.state_size, dtypes.state)),
            conv_bytes=math.floor(bytes_of((s.conv_size - 1) * s.conv_channels, dtypes.conv_state)),
        )

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # The projection; x, B, C convolved in fp32; B and C for every head; scaled x, outputs.
        projected, head_dim = sum(s.projection_widths), s.inner_dim // s.num_heads
        vectors = projected + 2 * s.conv_channels + 2 * s.num_heads * s.state_size + 2 * s.inner_dim
        return vectors + chunk_elements(s.num_heads, s.state_size, head_dim, matrices=0)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        conv = short_conv_flops(step, s.conv_channels, s.conv_size)
        states = 4 * s.inner_dim * s.state_size * step.new_tokens
        if step.is_single:
            return conv + states
        per_pair = 2 * (s.group_dim + s.inner_dim)  # a pair of tokens in a chunk
        if conventions.linear_attention == "published":
            return conv + states + step.new_tokens * s.chunk_size * per_pair // 2
        count, size = step.chunks(s.chunk_size)
        return conv + count * size * (4 * s.inner_dim * s.state_size + size * per_pair)

    def core_elements(self, step: Step) -> int:
        s = self.settings
        # Convolution in and out, the recurrence's inputs and output, gate in and gated output.
        return step.new_tokens * (3 * s.conv_channels + s.num_heads + 3 * s.inner_dim)
