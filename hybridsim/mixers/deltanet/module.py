"""DeltaNet as a module."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.deltanet.ops import deltanet
from hybridsim.mixers.deltanet.settings import DeltaNetSettings
from hybridsim.nn.activation import PLAIN
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.conv import ShortConvolution
from hybridsim.nn.delta_rule import write_strength
from hybridsim.nn.linear import linear, linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm, gated_rms_norm, l2_normalize, sum_normalize
from hybridsim.nn.precision import wide


class DeltaNet(SequenceMixer):
    """The delta rule, arXiv 2406.06484.

        S_t = (I - beta_t k_t k_t^T) S_{t-1} + beta_t k_t v_t^T,  o_t = S_t^T q_t

    q, k and v pass a short convolution, v then SiLU and q and k their activation and norm; q is
    scaled by K^-1/2; beta = sigmoid(W_b x) per head, or twice that. The output is normalised per
    head and may be gated by SiLU(W_g x). Differs from Gated DeltaNet in having no decay.
    """

    settings: DeltaNetSettings

    def __init__(self, settings: DeltaNetSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.q_proj = nn.Linear(width, s.key_dim, bias=False)
        self.k_proj = nn.Linear(width, s.key_dim, bias=False)
        self.v_proj = nn.Linear(width, s.value_dim, bias=False)
        self.b_proj = nn.Linear(width, s.num_heads, bias=False)
        self.conv1d = (
            ShortConvolution(s.qkv_dim, s.conv_size, activation="identity")
            if s.conv_size is not None
            else None
        )
        self.g_proj = nn.Linear(width, s.value_dim, bias=False) if s.output_gate else None
        self.o_norm = RMSNorm(s.head_v_dim, NormSettings(eps=place.norm.eps))
        self.o_proj = nn.Linear(s.value_dim, width, bias=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        q, k, v = self.project(x, cache)
        beta = write_strength(wide(self.b_proj(x)), s.negative_eigenvalues)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_k_dim, s.head_v_dim)
        out, state = deltanet(q, k, v, beta, state, chunk_size=s.chunk_size, like=x)
        if cache is not None:
            cache.state = state
        return self.output(x, out)

    def project(self, x: Tensor, cache: RecurrentCache | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k [B, T, H, K], normalised and q scaled, and v [B, T, H, V], in float32."""
        s = self.settings
        mixed = torch.cat(linears(*((p, x) for p in (self.q_proj, self.k_proj, self.v_proj))), -1)
        if self.conv1d is not None:
            mixed = self.conv1d(mixed, cache)
        parts = wide(mixed).split((s.key_dim, s.key_dim, s.value_dim), dim=-1)
        q, k, v = (part.unflatten(-1, (s.num_heads, -1)) for part in parts)
        normalize = l2_normalize if s.qk_norm == "l2" else sum_normalize
        q, k = (normalize(PLAIN[s.qk_activation](part)) for part in (q, k))
        return q * s.head_k_dim**-0.5, k, F.silu(v)

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, V]."""
        if self.g_proj is None:
            out = self.o_norm(out)
        else:
            out = gated_rms_norm(out, self.g_proj(x).view_as(out), self.o_norm, "silu")
        return linear(self.o_proj, out.to(x.dtype).flatten(-2))
