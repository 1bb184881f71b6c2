"""Kimi Delta Attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.kda.ops import kimi_delta_attention
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm
from hybridsim.nn.precision import wide_zeros


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
        raw_decay, raw_strength = self.gates(x)
        state = cache.state if cache is not None else None
        if state is None:
            state = wide_zeros(q, x.shape[0], s.num_heads, s.head_dim, s.head_dim)
        out, state = kimi_delta_attention(
            q,
            k,
            v,
            raw_decay,
            raw_strength,
            self.A_log,
            self.dt_bias,
            state,
            lower_bound=s.gate_lower_bound,
            negative_eigenvalues=s.negative_eigenvalues,
            chunk_size=s.chunk_size,
        )
        if cache is not None:
            cache.state = state
        return self.output(x, out)

    def project(self, x: Tensor, cache: RecurrentCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v after the convolution, [B, T, H, K] each."""
        s = self.settings
        parts = self.conv1d.split((self.q_proj(x), self.k_proj(x), self.v_proj(x)), cache)
        q, k, v = (part.unflatten(-1, (s.num_heads, s.head_dim)) for part in parts)
        return q, k, v

    def gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return what decays [B, T, H, K] and write strengths [B, T, H] are computed from."""
        s = self.settings
        raw = self.f_proj(x) if s.gate_rank is None else self.f_b_proj(self.f_a_proj(x))
        return raw.unflatten(-1, (s.num_heads, s.head_dim)), self.b_proj(x)

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, K]."""
        direct = self.settings.gate_rank is None
        gate = self.g_proj(x) if direct else self.g_b_proj(self.g_a_proj(x))
        gated = gated_rms_norm(out, gate.view_as(out), self.o_norm, "sigmoid")
        projected: Tensor = self.o_proj(gated.to(x.dtype).flatten(-2))
        return projected
