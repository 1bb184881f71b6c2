"""Softmax attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.nn.attention import causal_attention
from hybridsim.nn.cache import KeyValueCache, LayerCache, Past, TokenBuffer
from hybridsim.nn.linear import linear, linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.rope import RotaryEmbedding
from hybridsim.nn.scale import scaled


class Attention(SequenceMixer):
    """Softmax attention with shared key heads, arXiv 1706.03762 and 2305.13245.

        o_t = sum_{s <= t} softmax_s(q_t . k_s / sqrt(K)) v_s

    Optional: norms on queries and keys, rotation of the first channels, a sliding window, an
    output gate o_t * sigmoid(W x_t) (Qwen3-Next), fixed factors on inputs, keys, scores and output,
    and a sink b_h in each head's denominator (gpt-oss model card, arXiv 2508.10925, section 2.3):

        o_t = sum_{s <= t} exp(q_t . k_s / sqrt(K)) v_s / (exp(b_h) + sum_{s <= t} exp(...))
    """

    settings: AttentionSettings
    sinks: nn.Parameter | None

    def __init__(self, settings: AttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        inner, keys = s.num_heads * s.head_dim, s.num_kv_heads * s.head_dim
        self.q_proj = nn.Linear(width, inner * (2 if s.output_gate else 1), bias=s.bias)
        self.k_proj = nn.Linear(width, keys, bias=s.bias)
        self.v_proj = nn.Linear(width, keys, bias=s.bias)
        self.o_proj = nn.Linear(inner, width, bias=s.output_bias)
        self.sinks = nn.Parameter(torch.zeros(s.num_heads)) if s.sinks else None
        self.q_norm = _qk_norm(s.qk_norm, s.num_heads, s.head_dim, place.norm)
        self.k_norm = _qk_norm(s.qk_norm, s.num_kv_heads, s.head_dim, place.norm)
        self.rope = None if s.rope is None else RotaryEmbedding(s.rope, s.head_dim)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        window = self.settings.window
        return KeyValueCache(*(TokenBuffer(window, reserved_tokens) for _ in range(2)))

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        q, k, v, gate = self.project(x, past_tokens)
        length = None
        if cache is not None:
            assert isinstance(cache, KeyValueCache)
            k, v, length = cache.keys.append(k), cache.values.append(v), cache.keys.valid
        s = self.settings
        return self.output(causal_attention(q, k, v, s.scale, s.window, self.sinks, length), gate)

    def project(self, x: Tensor, past_tokens: Past) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return queries [B, T, H, K], keys and values [B, T, H_kv, K], and the gate's input."""
        s, gate = self.settings, None
        x = scaled(x, s.input_scale)
        layers = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = linears(*((layer, x) for layer in layers))
        q = q.unflatten(-1, (s.num_heads, -1))
        if s.output_gate:
            q, gate = q.chunk(2, dim=-1)  # each head's query, then its gate
        q = self.q_norm(q)
        k = self.k_norm(k.unflatten(-1, (s.num_kv_heads, s.head_dim)))
        k = scaled(k, s.key_scale)
        v = v.unflatten(-1, (s.num_kv_heads, s.head_dim))
        if self.rope is not None:
            q, k = self.rope(q, past_tokens), self.rope(k, past_tokens)
        return q, k, v, gate

    def output(self, out: Tensor, gate: Tensor | None) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, K]."""
        if gate is not None:
            out = out * gate.sigmoid()
        return scaled(linear(self.o_proj, out.flatten(-2)), self.settings.output_scale)


class _AllHeadsNorm(RMSNorm):
    """One norm over the channels of all heads together (MiniMax-M2)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(-2)).view_as(x)


def _qk_norm(kind: str, num_heads: int, head_dim: int, norm: NormSettings) -> nn.Module:
    if kind == "head":
        return RMSNorm(head_dim, norm)
    if kind == "full":
        return _AllHeadsNorm(num_heads * head_dim, norm)
    return nn.Identity()
