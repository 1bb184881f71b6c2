"""Kimi Delta Attention as a module."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.kda.ops import kimi_delta_attention
from hybridsim.mixers.kda.settings import KimiDeltaAttentionSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.linear import added_linear, kernel_of, linear, linears, normed_linears
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
        layers = (self.q_proj, self.k_proj, self.v_proj, self.b_proj, *self._first_gates())
        *mixed, raw_strength, raw_decay, gate = linears(*((layer, x) for layer in layers))
        raw_decay, gate = self._gates(raw_decay, gate)
        q, k, v = self._convolved(mixed, cache)
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
        gated = gated_rms_norm(out, gate.view_as(out), self.o_norm, "sigmoid")
        return linear(self.o_proj, gated.to(x.dtype).flatten(-2))

    def step(
        self, norm: RMSNorm, x: Tensor, cache: LayerCache | None, past_tokens: Past
    ) -> Tensor | None:
        if not isinstance(cache, RecurrentCache) or cache.state is None or cache.conv is None:
            return None
        s = self.settings
        layers = [self.q_proj, self.k_proj, self.v_proj, self.b_proj, *self._first_gates()]
        seconds = [] if s.gate_rank is None else [self.f_b_proj, self.g_b_proj]
        sizes = {"key_dim": s.head_dim, "rank": s.gate_rank or 0}
        kernel = kernel_of("kda_step", [*layers, *seconds, self.o_proj], x, **sizes)
        if kernel is None:
            return None
        # The state and the columns are updated in place.
        mixed: Tensor = kernel(
            *normed_linears(norm, x, *layers),
            *([layer.weight for layer in seconds] or (None, None)),
            self.conv1d.weight,
            cache.conv,
            self.A_log,
            self.dt_bias,
            cache.state,
            self.o_norm.weight,
            self.o_norm.settings.eps,
            lower_bound=s.gate_lower_bound,
            negative_eigenvalues=s.negative_eigenvalues,
        )
        return added_linear(self.o_proj, mixed, x)

    def _convolved(
        self, parts: Sequence[Tensor], cache: RecurrentCache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v [B, T, H, K] from the projections [B, T, H K]."""
        s = self.settings
        mixed = self.conv1d.split(parts, cache)
        q, k, v = (part.unflatten(-1, (s.num_heads, s.head_dim)) for part in mixed)
        return q, k, v

    def _first_gates(self) -> tuple[nn.Linear, nn.Linear]:
        """Return what the layer's input goes through on the way to the decay and to the gate."""
        if self.settings.gate_rank is None:
            return self.f_proj, self.g_proj
        return self.f_a_proj, self.g_a_proj

    def _gates(self, decay: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
        """Return what decays [B, T, H, K] are computed from, and the output gate [B, T, H K]."""
        s = self.settings
        if s.gate_rank is not None:
            decay, gate = linears((self.f_b_proj, decay), (self.g_b_proj, gate))
        return decay.unflatten(-1, (s.num_heads, s.head_dim)), gate
