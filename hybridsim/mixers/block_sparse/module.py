"""Block-sparse grouped-query attention as a module."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.mixers.attention.module import Attention
from hybridsim.mixers.block_sparse.ops import block_attention, block_scores, select_blocks
from hybridsim.mixers.block_sparse.settings import BlockSparseAttentionSettings
from hybridsim.nn.attention import causal_attention
from hybridsim.nn.cache import KeyValueCache, LayerCache, Past, TokenBuffer
from hybridsim.nn.mixer import MixerPlace
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.rope import RotaryEmbedding


class BlockSparseAttention(Attention):
    """GQA over the blocks of keys an indexer scores highest, arXiv 2606.13392.

    A block's score for a query is the highest q . k of its visible keys, with an index query per
    key head and one index key per token. The query's own block is always taken. Up to topk_blocks
    blocks everything is selected, and the layer is plain attention.
    """

    settings: BlockSparseAttentionSettings

    def __init__(self, settings: BlockSparseAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        self.indexer = BlockIndexer(settings, place)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return KeyValueCache(*(TokenBuffer(reserved_tokens=reserved_tokens) for _ in range(3)))

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        s = self.settings
        q, k, v, gate = self.project(x, past_tokens)
        index_key, length = self.indexer.key(x, past_tokens), None
        if cache is not None:
            assert isinstance(cache, KeyValueCache)
            assert cache.index_keys is not None
            k, v, length = cache.keys.append(k), cache.values.append(v), cache.keys.valid
            index_key = cache.index_keys.append(index_key)
        if k.shape[1] <= s.selected_tokens:
            return self.output(causal_attention(q, k, v, s.scale, length=length), gate)
        index_query = self.indexer.query(x, past_tokens)
        scores = block_scores(index_query, index_key, s.block_size, length)
        blocks = select_blocks(scores, past_tokens, s.block_size, s.topk_blocks, s.local_blocks)
        return self.output(block_attention(q, k, v, blocks, s.block_size, s.scale, length), gate)


class BlockIndexer(nn.Module):
    """Index queries of each key head and one index key a token, normalised and rotated."""

    def __init__(self, settings: BlockSparseAttentionSettings, place: MixerPlace) -> None:
        super().__init__()
        s = self.settings = settings
        width, dim = place.hidden_size, s.index_head_dim
        self.q_proj = nn.Linear(width, s.index_num_heads * dim, bias=False)
        self.k_proj = nn.Linear(width, dim, bias=False)
        self.q_norm = RMSNorm(dim, place.norm)
        self.k_norm = RMSNorm(dim, place.norm)
        self.rope = None if s.rope is None else RotaryEmbedding(s.rope, dim)

    def query(self, x: Tensor, past_tokens: Past) -> Tensor:
        """Return the index queries of the new tokens, [B, T, H, K]."""
        s = self.settings
        heads = self.q_proj(x).unflatten(-1, (s.index_num_heads, s.index_head_dim))
        return self._rotated(self.q_norm(heads), past_tokens)

    def key(self, x: Tensor, past_tokens: Past) -> Tensor:
        """Return the index keys of the new tokens, [B, T, K]."""
        return self._rotated(self.k_norm(self.k_proj(x))[..., None, :], past_tokens).squeeze(-2)

    def _rotated(self, x: Tensor, past_tokens: Past) -> Tensor:
        return x if self.rope is None else self.rope(x, past_tokens)
