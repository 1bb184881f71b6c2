"""Closed-form costs of DeepSeek sparse attention."""

from __future__ import annotations

import math
from functools import cached_property

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of, scaled_fp8_bytes
from hybridsim.mixers.base import CacheShape
from hybridsim.mixers.mla.cost import MultiHeadLatentAttentionCost
from hybridsim.mixers.sparse_mla.settings import SparseLatentAttentionSettings
from hybridsim.steps import Step, capped_sum


class SparseLatentAttentionCost(MultiHeadLatentAttentionCost):
    """The indexer scores every pair; attention runs over `index_topk` tokens a query.

    Up to `index_topk` tokens all are selected: no scores are needed, and it is plain MLA.

    Indexer, per pair: 2 d_I FLOPs a head for the score and 2 a head for the weighted sum. Attention
    is the absorbed form over the selected latents, as in the released kernels, 2 H (2 R + rope) a
    selected pair. Still quadratic, with a constant 5 (prefill, against the MHA form) to 17 times
    (decode) smaller. A layer that shares a selection has no indexer and keeps no index keys.
    """

    settings: SparseLatentAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        if not s.has_indexer:
            return super().linears
        assert s.q_lora_rank is not None  # checked by the settings
        return super().linears | {
            "indexer.q_proj": (s.q_lora_rank, s.index_num_heads * s.index_head_dim),
            "indexer.k_proj": (width, s.index_head_dim),
            "indexer.weights_proj": (width, s.index_num_heads),
        }

    @property
    def vectors(self) -> dict[str, int]:
        if not self.settings.has_indexer:
            return super().vectors
        # The index key's norm is a LayerNorm: weight and bias.
        return super().vectors | {"indexer.k_norm": 2 * self.settings.index_head_dim}

    def cache(self, dtypes: Dtypes) -> CacheShape:
        latent = super().cache(dtypes).bytes_per_token
        return CacheShape(bytes_per_token=latent + self.index_bytes_per_token(dtypes))

    def index_bytes_per_token(self, dtypes: Dtypes) -> int:
        """Return the bytes of one cached index key."""
        s = self.settings
        if not s.has_indexer:
            return 0
        if s.index_key_dtype is None:
            return math.floor(bytes_of(s.index_head_dim, dtypes.kv))
        return scaled_fp8_bytes(s.index_head_dim)

    def selects_all(self, step: Step) -> bool:
        """Whether every token is selected: then nothing needs scores, only keys are cached."""
        return step.total_tokens <= self.settings.index_topk

    def idle_linears(self, step: Step) -> tuple[str, ...]:
        idle = self.settings.has_indexer and self.selects_all(step)
        return ("indexer.q_proj", "indexer.weights_proj") if idle else ()

    @cached_property
    def peak_elements_per_token(self) -> int:
        s = self.settings
        rank = s.kv_lora_rank
        # Queries, absorbed queries, attended latents, heads' outputs in two layouts, the
        # projection, and int64 numbers of the selected tokens.
        heads = s.num_heads * (s.qk_head_dim + s.latent_dim + rank + 2 * s.v_head_dim)
        return heads + self.hidden_size + (s.q_lora_rank or 0) + 4 * s.index_topk

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        if self.selects_all(step):
            return super().core_flops(step, conventions)
        scored = step.scored_pairs(causal=conventions.causal) if s.has_indexer else 0
        index = 2 * s.index_num_heads * (s.index_head_dim + 1) * scored
        if conventions.causal:
            selected = capped_sum(step.past_tokens, step.total_tokens, s.index_topk)
        else:
            selected = step.new_tokens * s.index_topk
        return index + self.absorbed_flops(selected)

    def core_elements(self, step: Step) -> int:
        s = self.settings
        attention = 2 * s.num_heads * (s.latent_dim + s.kv_lora_rank)
        if self.selects_all(step):
            attention = super().core_elements(step) // step.new_tokens
        index = 0
        if s.has_indexer:
            index = (s.index_num_heads + 1) * s.index_head_dim + s.index_num_heads
        return step.new_tokens * (attention + index)

    def cache_read_bytes(self, step: Step, dtypes: Dtypes) -> int:
        # Every index key, but the latents of the selected tokens only. A longer prompt selects
        # other tokens for each query: then all latents are read once.
        latents = min(step.past_tokens, self.settings.index_topk * step.new_tokens)
        latent_bytes = super().cache(dtypes).bytes_per_token
        index_keys = 0 if self.selects_all(step) else step.past_tokens
        return index_keys * self.index_bytes_per_token(dtypes) + latents * latent_bytes
