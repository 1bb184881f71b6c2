"""Lightning attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.lightning.ops import decay_slopes, lightning_attention
from hybridsim.mixers.lightning.settings import LightningAttentionSettings
from hybridsim.nn.activation import PLAIN
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.linear import linear, linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm
from hybridsim.nn.precision import wide
from hybridsim.nn.rope import RotaryEmbedding


class LightningAttention(SequenceMixer):
    """Linear attention with a fixed decay per head, arXiv 2405.17381 and 2501.08313.

        S_t = exp(-s_h) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t

    q, k and v pass an activation; the output is normalised over all heads together and gated by
    sigmoid(W_g x). The slope s_h is fixed, and weaker in later layers. Ring, arXiv 2510.19338, has
    norms and a partial rotation of q and k in place of the activation, a scale of q, and normalises
    the output in groups.
    """

    settings: LightningAttentionSettings
    slopes: Tensor

    def __init__(self, settings: LightningAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        inner_norm = NormSettings(eps=place.norm.eps)
        self.qkv_proj = nn.Linear(width, 3 * s.inner_dim, bias=False)
        normed = s.qk_norm == "head"
        self.q_norm = RMSNorm(s.head_dim, inner_norm) if normed else nn.Identity()
        self.k_norm = RMSNorm(s.head_dim, inner_norm) if normed else nn.Identity()
        self.rope = None if s.rope is None else RotaryEmbedding(s.rope, s.head_dim)
        self.output_gate = nn.Linear(width, s.inner_dim, bias=False)
        self.o_norm = RMSNorm(s.inner_dim, inner_norm.with_eps(s.norm_eps), s.num_norm_groups)
        self.o_proj = nn.Linear(s.inner_dim, width, bias=False)
        slopes = decay_slopes(s.num_heads, place.layer, place.num_layers, s.slope_schedule)
        self.register_buffer("slopes", torch.tensor(slopes), persistent=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        mixed, gate = linears((self.qkv_proj, x), (self.output_gate, x))
        q, k, v = self.project(mixed, past_tokens)
        slopes = wide(self.slopes)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_dim, s.head_dim)
        out, state = lightning_attention(q, k, v, slopes, state, chunk_size=s.chunk_size, like=x)
        if cache is not None:
            cache.state = state
        gated = gated_rms_norm(out.flatten(-2), gate, self.o_norm, "sigmoid")
        return linear(self.o_proj, gated.to(x.dtype))

    def project(self, mixed: Tensor, past_tokens: Past) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k and v in float32, [B, T, H, K] each."""
        s = self.settings
        if s.activation != "none":
            mixed = PLAIN[s.activation](mixed)
        # MiniMax's order: for each head its q, k and v.
        q, k, v = wide(mixed).unflatten(-1, (s.num_heads, 3 * s.head_dim)).chunk(3, dim=-1)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rope is not None:
            q, k = self.rope(q, past_tokens), self.rope(k, past_tokens)
        return q * s.head_dim**-0.5 if s.scale_queries else q, k, v
