"""Kimi Delta Attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.kda.ops import chunk_kda, log_decay
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.delta_rule import recurrent_delta_rule, write_strength
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, l2_normalize
from hybridsim.nn.precision import wide


class KimiDeltaAttention(SequenceMixer):
    """A delta rule with one decay per key channel, arXiv 2510.26692.

        S_t = (I - beta_t k_t k_t^T) Diag(exp(g_t)) S_{t-1} + beta_t k_t v_t^T,  o_t = S_t^T q_t

    q, k and v pass a short convolution and SiLU; q and k are L2-normalised, q scaled by K^-1/2;
    g = -exp(A) softplus(W_f x + b) per channel, or b sigmoid(exp(A) (W_f x + b)) with a lower bound
    b (see log_decay); beta = sigmoid(W_b x) per head, or twice that; the output is normalised per
    head and gated by sigmoid(W_g x). Differs from Gated DeltaNet in g.
    """

    settings: KimiDeltaAttentionSettings

    def __init__(self, settings: KimiDeltaAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.q_proj = nn.Linear(width, s.inner_dim, bias=False)
        self.k_proj = nn.Linear(width, s.inner_dim, bias=False)
        self.v_proj = nn.Linear(width, s.inner_dim, bias=False)
        self.conv1d = ShortConvolution(3 * s.inner_dim, s.conv_size)
        if s.gate_rank is None:
            self.f_proj = nn.Linear(width, s.inner_dim, bias=False)
            self.g_proj = nn.Linear(width, s.inner_dim, bias=False)
        else:
            self.f_a_proj = nn.Linear(width, s.gate_rank, bias=False)
            self.f_b_proj = nn.Linear(s.gate_rank, s.inner_dim, bias=False)
            self.g_a_proj = nn.Linear(width, s.gate_rank, bias=False)
            self.g_b_proj = nn.Linear(s.gate_rank, s.inner_dim, bias=False)
        self.b_proj = nn.Linear(width, s.num_heads, bias=False)
        self.A_log = nn.Parameter(torch.empty(s.num_heads, dtype=torch.float32))
        self.dt_bias = nn.Parameter(torch.empty(s.inner_dim, dtype=torch.float32))
        self.o_norm = RMSNorm(s.head_dim, NormSettings(eps=place.norm.eps))
        self.o_proj = nn.Linear(s.inner_dim, width, bias=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        q, k, v = self.project(x, cache)
        g, beta = self.gates(x)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_dim, s.head_dim)
        if x.shape[1] == 1:
            out, state = recurrent_delta_rule(q[:, 0], k[:, 0], v[:, 0], g[:, 0], beta[:, 0], state)
            out = out[:, None]
        else:
            out, state = chunk_kda(q, k, v, g, beta, state, s.chunk_size)
        if cache is not None:
            cache.state = state
        return self.output(x, out)

    def project(self, x: Tensor, cache: RecurrentCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v in float32, [B, T, H, K] each; q and k normalised, q scaled."""
        s = self.settings
        mixed = torch.cat((self.q_proj(x), self.k_proj(x), self.v_proj(x)), dim=-1)
        mixed = wide(self.conv1d(mixed, cache)).unflatten(-1, (3, s.num_heads, s.head_dim))
        q, k, v = mixed.unbind(-3)
        return l2_normalize(q) * s.head_dim**-0.5, l2_normalize(k), v

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return log decay [B, T, H, K] and write strength [B, T, H], in float32."""
        s = self.settings
        projected = self.f_proj(x) if s.gate_rank is None else self.f_b_proj(self.f_a_proj(x))
        raw = (wide(projected) + wide(self.dt_bias)).unflatten(-1, (s.num_heads, s.head_dim))
        g = log_decay(raw, wide(self.A_log), s.gate_lower_bound)
        return g, write_strength(wide(self.b_proj(x)), s.negative_eigenvalues)

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, K]."""
        direct = self.settings.gate_rank is None
        gate = wide(self.g_proj(x) if direct else self.g_b_proj(self.g_a_proj(x))).view_as(out)
        gated = (self.o_norm(out) * gate.sigmoid()).to(x.dtype)
        projected: Tensor = self.o_proj(gated.flatten(-2))
        return projected
