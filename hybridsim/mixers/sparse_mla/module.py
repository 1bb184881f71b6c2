"""DeepSeek sparse attention as a module."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.kernels.choice import on_gpu
from hybridsim.mixers.mla.module import MultiHeadLatentAttention
from hybridsim.mixers.sparse_mla.ops import (
    select_tokens,
    selected_attention,
    stored_index_scores,
)
from hybridsim.mixers.sparse_mla.settings import SparseLatentAttentionSettings
from hybridsim.nn.cache import LatentCache, LayerCache, Past, TokenBuffer
from hybridsim.nn.mixer import MixerPlace
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide
from hybridsim.nn.quantize import quantize
from hybridsim.nn.rope import RotaryEmbedding

SCORES_AT_ONCE = 1 << 28  # on a GPU: a long prompt's scores of all pairs would not fit


class SparseLatentAttention(MultiHeadLatentAttention):
    """MLA over the tokens a lightning indexer scores highest, DeepSeek-V3.2-Exp report.

        I_ts = sum_h w_th relu(q_th . k_s),  o_t = MLA over the top-k tokens s <= t by I_ts

    Up to k tokens everything is selected, and the layer is plain MLA. With fp8 index keys, a pass
    of its own rounds its keys as a cached one does, so both choose the same tokens. A layer with a
    shared indexer attends to the tokens that the last layer with its own has chosen.
    """

    settings: SparseLatentAttentionSettings

    def __init__(self, settings: SparseLatentAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        has_indexer = settings.has_indexer
        self.indexer = LightningIndexer(settings, place.hidden_size) if has_indexer else None

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        latents, keys, scales = (TokenBuffer(reserved_tokens=reserved_tokens) for _ in range(3))
        if self.indexer is None:
            return LatentCache(latents)
        rounded = self.settings.index_key_dtype == "fp8"
        return LatentCache(latents, keys, scales if rounded else None)

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        return self.mix(x, cache, past_tokens, None)[0]

    def step(
        self, norm: RMSNorm, x: Tensor, cache: LayerCache | None, past_tokens: Past
    ) -> Tensor | None:
        return None  # what is selected stands between

    def mix(
        self, x: Tensor, cache: LayerCache | None, past_tokens: Past, selection: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        assert cache is None or isinstance(cache, LatentCache)
        s = self.settings
        query_latent = self.query_latent(x)
        query = self.project_query(query_latent, past_tokens)
        latents, length = self.project_latent(x, past_tokens), None
        if cache is not None:
            latents, length = cache.latents.append(latents), cache.latents.valid
        if self.indexer is not None:
            stored = self.indexer.remember(x, cache, past_tokens)
        if latents.shape[1] <= s.index_topk:
            return self.output(x, self.attend(query, latents, length)), None
        if self.indexer is not None:
            selection = self.indexer(x, query_latent, *stored, past_tokens, length)
        assert selection is not None  # the spec has a layer before this one that selects
        absorbed = self.absorb(query)
        attended = selected_attention(absorbed, latents, selection, s.kv_lora_rank, self.scale)
        return self.output(x, self.values(attended)), selection


class LightningIndexer(nn.Module):
    """Scores every visible token for every query; its heads share one key per token."""

    def __init__(self, settings: SparseLatentAttentionSettings, hidden_size: int) -> None:
        super().__init__()
        s = self.settings = settings
        assert s.q_lora_rank is not None  # checked by the settings
        self.q_proj = nn.Linear(s.q_lora_rank, s.index_num_heads * s.index_head_dim, bias=False)
        self.k_proj = nn.Linear(hidden_size, s.index_head_dim, bias=False)
        self.k_norm = nn.LayerNorm(s.index_head_dim, eps=1e-6)
        self.weights_proj = nn.Linear(hidden_size, s.index_num_heads, bias=False)
        # Rotated as the shared key channels are, but DeepSeek pairs halves here, not neighbours.
        self.rope = None
        if s.rope is not None:
            rope = replace(s.rope, rotary_dim=s.qk_rope_head_dim)
            self.rope = RotaryEmbedding(rope, s.index_head_dim, s.index_rope_interleaved)

    def forward(
        self,
        x: Tensor,
        query_latent: Tensor,
        keys: Tensor,
        scales: Tensor | None,
        past_tokens: Past,
        length: Tensor | None,
    ) -> Tensor:
        """Return the tokens [B, T, k] that each new one selects among all, by their stored keys."""
        s = self.settings
        query = self.q_proj(query_latent).unflatten(-1, (s.index_num_heads, s.index_head_dim))
        if self.rope is not None:
            query = self.rope(query, past_tokens)
        weight = wide(self.weights_proj(x)) * (s.index_num_heads * s.index_head_dim) ** -0.5
        pieces, end = [], keys.shape[1] - x.shape[1]
        rows = max(1, SCORES_AT_ONCE // keys.shape[1]) if on_gpu(x) else x.shape[1]
        for part, factor in zip(query.split(rows, 1), weight.split(rows, 1), strict=True):
            end += part.shape[1]  # a part's queries are the last of the tokens it sees
            seen = None if scales is None else scales[:, :end]
            scores = stored_index_scores(part, keys[:, :end], seen, factor, length)
            tokens = select_tokens(scores, min(s.index_topk, end))
            pieces.append(F.pad(tokens, (0, s.index_topk - tokens.shape[-1]), value=-1))
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, dim=1)

    def remember(
        self, x: Tensor, cache: LatentCache | None, past_tokens: Past
    ) -> tuple[Tensor, Tensor | None]:
        """Return the stored keys of all tokens, [B, S, K], the new ones among them, and scales."""
        key = self.k_norm(self.k_proj(x))
        if self.rope is not None:
            key = self.rope(key[..., None, :], past_tokens).squeeze(-2)
        if self.settings.index_key_dtype is None:
            if cache is not None and cache.index_keys is not None:
                key = cache.index_keys.append(key)
            return key, None
        rounded, scales = quantize(key)
        if cache is not None and cache.index_keys is not None and cache.index_scales is not None:
            rounded, scales = cache.index_keys.append(rounded), cache.index_scales.append(scales)
        return rounded, scales
