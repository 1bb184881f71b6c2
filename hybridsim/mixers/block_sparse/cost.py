"""Closed-form costs of block-sparse grouped-query attention."""

from __future__ import annotations

import math

from hybridsim.conventions import FlopConventions
from hybridsim.dtypes import Dtypes, bytes_of
from hybridsim.mixers.attention.cost import AttentionCost
from hybridsim.mixers.base import CacheShape
from hybridsim.mixers.block_sparse.settings import BlockSparseAttentionSettings
from hybridsim.steps import Step, capped_sum


class BlockSparseAttentionCost(AttentionCost):
    """The indexer scores every pair; attention runs over `topk_blocks` blocks a query.

    A score takes 2 d_I FLOPs a head. The cache is GQA's whole cache and one index key a token:
    sparsity saves reads and FLOPs, not memory. Source: MiniMax Sparse Attention, arXiv 2606.13392.
    """

    settings: BlockSparseAttentionSettings

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        s, width = self.settings, self.hidden_size
        return super().linears | {
            "indexer.q_proj": (width, s.index_num_heads * s.index_head_dim),
            "indexer.k_proj": (width, s.index_head_dim),
        }

    @property
    def vectors(self) -> dict[str, int]:
        dim = self.settings.index_head_dim
        return super().vectors | {"indexer.q_norm": dim, "indexer.k_norm": dim}

    def index_bytes_per_token(self, dtypes: Dtypes) -> int:
        """Return the bytes of one cached index key."""
        return math.floor(bytes_of(self.settings.index_head_dim, dtypes.kv))

    def cache(self, dtypes: Dtypes) -> CacheShape:
        kv_bytes = super().cache(dtypes).bytes_per_token
        return CacheShape(bytes_per_token=kv_bytes + self.index_bytes_per_token(dtypes))

    def selects_all(self, step: Step) -> bool:
        """Whether every block is selected: then nothing needs scores, only keys are cached."""
        return step.total_tokens <= self.settings.selected_tokens

    def idle_linears(self, step: Step) -> tuple[str, ...]:
        return ("indexer.q_proj",) if self.selects_all(step) else ()

    def core_flops(self, step: Step, conventions: FlopConventions) -> int:
        s = self.settings
        if self.selects_all(step):
            return super().core_flops(step, conventions)
        scored = step.scored_pairs(causal=conventions.causal)
        index = 2 * s.index_num_heads * s.index_head_dim * scored
        return index + 4 * s.num_heads * s.head_dim * self.attended_pairs(step, conventions)

    def attended_pairs(self, step: Step, conventions: FlopConventions) -> int:
        """Return the (query, key) pairs of one head: every visible key of the selected blocks."""
        s = self.settings
        if not conventions.causal:
            return step.new_tokens * s.selected_tokens
        return self._attended_before(step.total_tokens) - self._attended_before(step.past_tokens)

    def _attended_before(self, position: int) -> int:
        """Return the pairs of all queries before `position`.

        While every visible block is selected a query sees all its past; later it sees whole blocks
        but for the last, its own, which it sees up to itself.
        """
        s = self.settings
        dense = min(position, s.selected_tokens)
        cycles, rest = divmod(position - dense, s.block_size)
        own_block = cycles * capped_sum(0, s.block_size, None) + capped_sum(0, rest, None)
        whole_blocks = (position - dense) * (s.topk_blocks - 1) * s.block_size
        return capped_sum(0, dense, None) + whole_blocks + own_block

    def core_elements(self, step: Step) -> int:
        s = self.settings
        index = (s.index_num_heads + 1) * s.index_head_dim
        return super().core_elements(step) + step.new_tokens * index

    def cache_read_bytes(self, step: Step, dtypes: Dtypes) -> int:
        # Every index key, but keys and values of the selected blocks only; each key head selects
        # its own blocks, so the bytes are those of `selected_tokens` of the whole cache.
        tokens = min(step.past_tokens, self.settings.selected_tokens * step.new_tokens)
        kv_bytes = super().cache(dtypes).bytes_per_token
        index_keys = 0 if self.selects_all(step) else step.past_tokens
        return index_keys * self.index_bytes_per_token(dtypes) + tokens * kv_bytes
