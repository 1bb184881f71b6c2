"""Retention as a module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide
from hybridsim.nn.rope import RotaryEmbedding
from retention_mixer.ops import chunk_retention, recurrent_retention, retention_slopes
from retention_mixer.settings import RetentionSettings


class Retention(SequenceMixer):
    """Multi-scale retention, RetNet, arXiv 2307.08621.

        S_t = exp(-s_h) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t

    q and k are rotated, q scaled by K^-1/2; the output is normalised per head and gated by
    SiLU(W_g x).
    """

    settings: RetentionSettings
    slopes: Tensor

    def __init__(self, settings: RetentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.q_proj = nn.Linear(width, s.key_dim, bias=False)
        self.k_proj = nn.Linear(width, s.key_dim, bias=False)
        self.v_proj = nn.Linear(width, s.value_dim, bias=False)
        self.g_proj = nn.Linear(width, s.value_dim, bias=False)
        self.o_norm = RMSNorm(s.head_v_dim, NormSettings(eps=place.norm.eps))
        self.o_proj = nn.Linear(s.value_dim, width, bias=False)
        self.rope = RotaryEmbedding(s.rope, s.head_k_dim)
        slopes = torch.tensor(retention_slopes(s.num_heads), dtype=torch.float32)
        self.register_buffer("slopes", slopes, persistent=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        q, k, v = (
            wide(projection(x)).unflatten(-1, (s.num_heads, -1))
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.rope(q, past_tokens) * s.head_k_dim**-0.5, self.rope(k, past_tokens)
        slopes = wide(self.slopes)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_k_dim, s.head_v_dim)
        if x.shape[1] == 1:
            out, state = recurrent_retention(q[:, 0], k[:, 0], v[:, 0], slopes, state)
            out = out[:, None]
        else:
            out, state = chunk_retention(q, k, v, slopes, state, s.chunk_size)
        if cache is not None:
            cache.state = state
        out = self.o_norm(out).flatten(-2) * F.silu(wide(self.g_proj(x)))
        projected: Tensor = self.o_proj(out.to(x.dtype))
        return projected
