"""Gated linear attention as a module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.gla.ops import gated_linear_attention
from hybridsim.mixers.gla.settings import GatedLinearAttentionSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.linear import linear, linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm
from hybridsim.nn.precision import wide


class GatedLinearAttention(SequenceMixer):
    """Linear attention with a decay per key channel, arXiv 2312.06635.

        S_t = Diag(exp(g_t)) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t

    q is scaled by K^-1/2; g = logsigmoid(W_2 W_1 x + b) / normalizer; the output is normalised per
    head and gated by SiLU(W_g x). With `conv_size`, q, k and v pass a short convolution and SiLU.
    Kimi Delta Attention is this with the delta rule.
    """

    settings: GatedLinearAttentionSettings

    def __init__(self, settings: GatedLinearAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.q_proj = nn.Linear(width, s.key_dim, bias=False)
        self.k_proj = nn.Linear(width, s.key_dim, bias=False)
        self.v_proj = nn.Linear(width, s.value_dim, bias=False)
        self.conv1d = ShortConvolution(s.qkv_dim, s.conv_size) if s.conv_size is not None else None
        self.gk_a_proj = nn.Linear(width, s.gate_rank, bias=False)
        self.gk_b_proj = nn.Linear(s.gate_rank, s.key_dim)
        self.g_proj = nn.Linear(width, s.value_dim, bias=False) if s.output_gate else None
        self.o_norm = RMSNorm(s.head_v_dim, NormSettings(eps=place.norm.eps))
        self.o_proj = nn.Linear(s.value_dim, width, bias=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        q, k, v = self.project(x, cache)
        g = self.log_decay(x)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_k_dim, s.head_v_dim)
        out, state = gated_linear_attention(q, k, v, g, state, chunk_size=s.chunk_size, like=x)
        if cache is not None:
            cache.state = state
        return self.output(x, out)

    def project(self, x: Tensor, cache: RecurrentCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k [B, T, H, K], q scaled, and v [B, T, H, V], in float32."""
        s = self.settings
        mixed = torch.cat(linears(*((p, x) for p in (self.q_proj, self.k_proj, self.v_proj))), -1)
        if self.conv1d is not None:
            mixed = self.conv1d(mixed, cache)
        parts = wide(mixed).split((s.key_dim, s.key_dim, s.value_dim), dim=-1)
        q, k, v = (part.unflatten(-1, (s.num_heads, -1)) for part in parts)
        return q * s.head_k_dim**-0.5, k, v

    def log_decay(self, x: Tensor) -> Tensor:
        """Return g, [B, T, H, K] in float32."""
        s = self.settings
        logits = wide(self.gk_b_proj(self.gk_a_proj(x))).unflatten(-1, (s.num_heads, s.head_k_dim))
        return F.logsigmoid(logits) / s.gate_logit_normalizer

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, V]."""
        if self.g_proj is None:
            out = self.o_norm(out)
        else:
            out = gated_rms_norm(out, self.g_proj(x).view_as(out), self.o_norm, "silu")
        return linear(self.o_proj, out.to(x.dtype).flatten(-2))
