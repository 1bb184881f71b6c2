"""Mamba as a module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.mamba1.ops import selective_scan
from hybridsim.mixers.mamba1.settings import Mamba1Settings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide


class Mamba1(SequenceMixer):
    """A selective state space model, arXiv 2312.00752; with inner norms as in Jamba, 2403.19887.

        h_t = exp(dt_t A) h_{t-1} + dt_t B_t u_t,  y_t = sum_s C_t h_t + D u_t

    u = SiLU(conv(W_u x)); dt, B and C are projections of u, dt through a narrow one and a softplus;
    A = -exp(A_log) per channel and state. The output is y SiLU(W_z x), projected. Differs from
    Mamba-2 in A, which there is one number a head.
    """

    settings: Mamba1Settings

    def __init__(self, settings: Mamba1Settings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.in_proj = nn.Linear(width, 2 * s.inner_dim, bias=s.proj_bias)
        self.conv1d = ShortConvolution(s.inner_dim, s.conv_size, bias=s.conv_bias)
        self.x_proj = nn.Linear(s.inner_dim, s.dt_rank + 2 * s.state_size, bias=False)
        self.dt_proj = nn.Linear(s.dt_rank, s.inner_dim, bias=False)
        self.dt_bias = nn.Parameter(torch.empty(s.inner_dim, dtype=torch.float32))
        self.A_log = nn.Parameter(torch.empty(s.inner_dim, s.state_size, dtype=torch.float32))
        self.D = nn.Parameter(torch.ones(s.inner_dim))
        self.o_proj = nn.Linear(s.inner_dim, width, bias=s.proj_bias)
        self.dt_norm = self._inner_norm(s.dt_rank)
        self.b_norm = self._inner_norm(s.state_size)
        self.c_norm = self._inner_norm(s.state_size)

    def _inner_norm(self, width: int) -> nn.Module:
        if not self.settings.inner_norms:
            return nn.Identity()
        return RMSNorm(width, NormSettings(eps=self.place.norm.eps))

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = self.conv1d(u, cache)
        dt, b, c = self.steps(u)
        u = wide(u)
        state = cache.state if cache is not None else None
        if state is None:
            state = u.new_zeros(x.shape[0], s.inner_dim, s.state_size)
        a = -wide(self.A_log).exp()
        out, state = selective_scan(u, dt, a, b, c, state, s.chunk_size)
        if cache is not None:
            cache.state = state
        gated = (out + u * wide(self.D)) * F.silu(wide(z))
        projected: Tensor = self.o_proj(gated.to(x.dtype))
        return projected

    def steps(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return step sizes [B, T, D], B and C [B, T, S], in float32."""
        s = self.settings
        dt, b, c = self.x_proj(u).split((s.dt_rank, s.state_size, s.state_size), dim=-1)
        raw = wide(self.dt_proj(self.dt_norm(dt))) + wide(self.dt_bias)
        return F.softplus(raw), wide(self.b_norm(b)), wide(self.c_norm(c))
