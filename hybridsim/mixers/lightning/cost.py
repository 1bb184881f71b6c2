"""Closed-form costs of lightning attention."""

from __future__ import annotations

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.mixers.lightning.settings import LightningAttentionSettings
from hybridsim.steps import Step


class LightningAttentionCost(MixerCost):
    """A state of K x K numbers per head.

    One token: write k v^T and read S^T q, 2 K^2 FLOPs each. A chunk of C tokens: scores and scores
    times values, 2 C^2 K each, output from the old state and new state, 2 C K^2 each. The published
    convention takes the causal half of the first two. Source: MiniMax-01, arXiv 2501.08313.
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
        return CacheShape(recurrent_bytes=int(bytes_of(s.num_heads * s.head_dim**2, dtypes.state)))

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        if step.is_single:
            return 4 * s.num_heads * s.head_dim**2
        if conventions.linear_attention == "published":
            return step.new_tokens * s.num_heads * s.head_dim * (4 * s.head_dim + 2 * s.chunk_size)
        count, size = step.chunks(s.chunk_size)
        return count * s.num_heads * size * s.head_dim * (4 * s.head_dim + 4 * size)

    def core_elements(self, step: Step) -> int:
        # Queries, keys, values and output of the recurrence; gate in and normed output out.
        return step.new_tokens * 6 * self.settings.inner_dim
