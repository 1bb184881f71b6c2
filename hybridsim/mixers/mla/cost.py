"""Closed-form costs of multi-head latent attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.base import CacheShape, MixerCost
from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings
from hybridsim.steps import Step


class MultiHeadLatentAttentionCost(MixerCost):
    """Prefill rebuilds keys and values per head (the MHA form); one token absorbs `kv_b_proj`.

    Per pair and head: 2 (nope + rope + v) FLOPs in the MHA form, 2 (2 R + rope) absorbed. Absorbing
    multiplies the new query and the new output by the same weights that the MHA form multiplies
    the new latent by, so `kv_b_proj` costs 2 FLOPs a weight and new token either way.
    Cache: R + rope numbers a token, whatever the heads. Source: DeepSeek-V2, arXiv 2405.04434.
    """

    settings: MultiHeadLatentAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        queries = s.num_heads * s.qk_head_dim
        if s.q_lora_rank is None:
            linears = {"q_proj": (width, queries)}
        else:
            linears = {"q_a_proj": (width, s.q_lora_rank), "q_b_proj": (s.q_lora_rank, queries)}
        if s.head_gate:
            linears["g_proj"] = (width, s.num_heads)
        return linears | {
            "kv_a_proj": (width, s.latent_dim),
            "kv_b_proj": (s.kv_lora_rank, s.num_heads * (s.qk_nope_head_dim + s.v_head_dim)),
            "o_proj": (s.num_heads * s.v_head_dim, width),
        }

    @property
    def vectors(self) -> dict[str, int]:
        s = self.settings
        vectors = {"kv_a_norm": s.kv_lora_rank}
        return vectors if s.q_lora_rank is None else vectors | {"q_a_norm": s.q_lora_rank}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        return CacheShape(bytes_per_token=math.floor(bytes_of(self.settings.latent_dim, dtypes.kv)))

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        # Queries, rebuilt keys' parts and values, keys as they are multiplied, outputs.
        rebuilt = s.qk_nope_head_dim + s.v_head_dim
        return s.num_heads * (2 * s.qk_head_dim + rebuilt + s.v_head_dim)

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        if step.is_single:
            return self.absorbed_flops(step.total_tokens)
        # The MHA form rebuilds the keys and values of cached latents too.
        rebuilt = 2 * step.past_tokens * math.prod(self.linears["kv_b_proj"])
        return self.mha_flops(step.scored_pairs(causal=conventions.causal)) + rebuilt

    def mha_flops(self, pairs: int) -> int:
        """Return the FLOPs of all heads over `pairs` with keys and values rebuilt."""
        s = self.settings
        return 2 * s.num_heads * (s.qk_head_dim + s.v_head_dim) * pairs

    def absorbed_flops(self, pairs: int) -> int:
        """Return the FLOPs of all heads over `pairs` against the latent itself."""
        s = self.settings
        return 2 * s.num_heads * (s.latent_dim + s.kv_lora_rank) * pairs

    def core_elements(self, step: Step) -> int:
        s = self.settings
        if step.is_single:
            return s.num_heads * (s.latent_dim + s.kv_lora_rank)
        return step.new_tokens * 2 * s.num_heads * (s.qk_head_dim + s.v_head_dim)
