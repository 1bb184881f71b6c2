"""Gated DeltaNet as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.gated_deltanet.ops import gated_delta_rule
from hybridsim.mixers.gated_deltanet.settings import GatedDeltaNetSettings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.linear import linear, linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm
from hybridsim.nn.precision import wide_zeros


class GatedDeltaNet(SequenceMixer):
    """A delta rule with one decay per value head, arXiv 2412.06464, as built in Qwen3-Next.

        S_t = exp(g_t) (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,  o_t = S_t^T q_t

    q, k and v pass a short convolution and SiLU; q and k are L2-normalised, q scaled by K^-1/2, and
    each is shared by HV / H value heads; g = -exp(A) softplus(W_a x + b); beta = sigmoid(W_b x), or
    twice that; the output is normalised per head and gated by SiLU(z). Differs from Kimi Delta
    Attention in g.
    """

    settings: GatedDeltaNetSettings

    def __init__(self, settings: GatedDeltaNetSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.in_proj_qkvz = nn.Linear(width, 2 * s.key_dim + 2 * s.value_dim, bias=False)
        self.in_proj_ba = nn.Linear(width, 2 * s.num_v_heads, bias=False)
        self.conv1d = ShortConvolution(s.conv_channels, s.conv_size)
        self.A_log = nn.Parameter(torch.empty(s.num_v_heads, dtype=torch.float32))
        self.dt_bias = nn.Parameter(torch.empty(s.num_v_heads, dtype=torch.float32))
        self.o_norm = RMSNorm(s.head_v_dim, NormSettings(eps=place.norm.eps).with_eps(s.norm_eps))
        self.o_proj = nn.Linear(s.value_dim, width, bias=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        mixed, scalars = linears((self.in_proj_qkvz, x), (self.in_proj_ba, x))
        q, k, v, z = self._convolved(mixed, cache)
        raw_decay, raw_strength = self._gates(scalars)
        state = cache.state if cache is not None else None
        if state is None:
            state = wide_zeros(q, x.shape[0], s.num_v_heads, s.head_k_dim, s.head_v_dim)
        out, state = gated_delta_rule(
            q,
            k,
            v,
            raw_decay,
            raw_strength,
            self.A_log,
            self.dt_bias,
            state,
            negative_eigenvalues=s.negative_eigenvalues,
            chunk_size=s.chunk_size,
        )
        if cache is not None:
            cache.state = state
        gated = gated_rms_norm(out, z, self.o_norm, "silu")
        return linear(self.o_proj, gated.to(x.dtype).flatten(-2))

    def _convolved(
        self, mixed: Tensor, cache: RecurrentCache | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return q, k [B, T, H, K], v and the output gate z [B, T, HV, V]."""
        s = self.settings
        group = s.num_v_heads // s.num_heads
        # The checkpoint's order: for each key head its q, k, the values of its group, their z.
        sizes = (s.head_k_dim, s.head_k_dim, group * s.head_v_dim, group * s.head_v_dim)
        parts = mixed.unflatten(-1, (s.num_heads, -1)).split(sizes, dim=-1)
        q, k, v = self.conv1d.split([part.flatten(-2) for part in parts[:3]], cache)
        q, k = (t.unflatten(-1, (s.num_heads, s.head_k_dim)) for t in (q, k))
        v = v.unflatten(-1, (s.num_v_heads, s.head_v_dim))
        return q, k, v, parts[3].reshape(v.shape)

    def _gates(self, scalars: Tensor) -> tuple[Tensor, Tensor]:
        """Return what decays and write strengths are computed from, [B, T, HV]."""
        parts = scalars.unflatten(-1, (self.settings.num_heads, 2, -1))
        b, a = (part.flatten(-2) for part in parts.unbind(-2))
        return a, b
