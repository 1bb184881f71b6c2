"""Mamba-2 as a module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.mamba2.ops import state_space
from hybridsim.mixers.mamba2.settings import Mamba2Settings
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm
from hybridsim.nn.precision import wide
from hybridsim.nn.scale import scaled


class Mamba2(SequenceMixer):
    """A state space with one decay per head, arXiv 2405.21060.

        S_t = exp(dt_t a) S_{t-1} + dt_t B_t x_t^T,  y_t = S_t^T C_t + D x_t

    One projection gives z, x, B, C and dt; x, B and C pass a short convolution and an activation;
    a = -exp(A_log), dt = softplus(W_dt u + dt_bias) within its limits; the heads of a group share
    B and C; the output is gated by silu(z) and normalised in groups.

    Bamba, Granite 4 and Nemotron-H normalise after the gate, Falcon-H1 before or after it or not at
    all, with factors on every projection. The limits of dt hold for every token here; the decode
    step of the reference implementation leaves them out, so that there, with limits that take hold,
    a token depends on whether it came in alone.
    """

    settings: Mamba2Settings

    def __init__(self, settings: Mamba2Settings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.in_proj = nn.Linear(width, sum(s.projection_widths), bias=s.bias)
        self.conv1d = ShortConvolution(
            s.conv_channels, s.conv_size, bias=s.conv_bias, activation=s.activation
        )
        self.dt_bias = nn.Parameter(torch.empty(s.num_heads, dtype=torch.float32))
        self.A_log = nn.Parameter(torch.empty(s.num_heads, dtype=torch.float32))
        self.D = nn.Parameter(torch.ones(s.num_heads))
        if s.norm != "none":
            groups = s.norm_groups or s.num_groups
            self.o_norm = RMSNorm(s.inner_dim, NormSettings(eps=place.norm.eps), groups)
        self.o_proj = nn.Linear(s.inner_dim, width, bias=s.output_bias)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        z, x_heads, b, c, dt = self.project(x, cache)
        rate = -wide(self.A_log).exp()
        state = cache.state if cache is not None else None
        if state is None:
            state = x_heads.new_zeros(x.shape[0], s.num_heads, s.state_size, s.head_dim)
        out, state = state_space(x_heads, dt, rate, b, c, state, chunk_size=s.chunk_size, like=x)
        if cache is not None:
            cache.state = state
        out = out + wide(self.D)[:, None] * x_heads
        projected: Tensor = self.o_proj(self.gated(out.flatten(-2), z).to(x.dtype))
        return scaled(projected, s.output_scale)

    def project(
        self, x: Tensor, cache: RecurrentCache | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return z [B, T, H P]; in float32 x [B, T, H, P], B and C [B, T, G, S], dt [B, T, H]."""
        s = self.settings
        mixed = self.in_proj(scaled(x, s.input_scale))
        if any(scale != 1 for scale in s.projection_scales):
            parts = zip(mixed.split(s.projection_widths, -1), s.projection_scales, strict=True)
            mixed = torch.cat([scaled(part, factor) for part, factor in parts], dim=-1)
        z, mixed, dt = mixed.split((s.inner_dim, s.conv_channels, s.num_heads), dim=-1)
        mixed = wide(self.conv1d(mixed, cache))
        x, b, c = mixed.split((s.inner_dim, s.group_dim, s.group_dim), dim=-1)
        b, c = (each.unflatten(-1, (s.num_groups, s.state_size)) for each in (b, c))
        dt = F.softplus(wide(dt) + wide(self.dt_bias)).clamp(s.dt_min, s.dt_max)
        return z, x.unflatten(-1, (s.num_heads, s.head_dim)), b, c, dt

    def gated(self, out: Tensor, z: Tensor) -> Tensor:
        """Return the output [B, T, H P] gated by z and normalised, in the settings' order."""
        if self.settings.norm == "none":
            return out * F.silu(wide(z))
        first = self.settings.norm == "after_gate"
        return gated_rms_norm(out, z, self.o_norm, "silu", gate_first=first)
