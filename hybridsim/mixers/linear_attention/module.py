"""Linear attention as a module."""

from __future__ import annotations

from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.linear_attention.ops import (
    draw_projection,
    linear_attention,
    random_features,
)
from hybridsim.mixers.linear_attention.settings import LinearAttentionSettings
from hybridsim.nn.activation import PLAIN
from hybridsim.nn.cache import LayerCache, Past, RecurrentCache
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide


class LinearAttention(SequenceMixer):
    """Linear attention, arXiv 2006.16236, or the Performer's, arXiv 2009.14794.

        S_t = S_{t-1} + phi(k_t) v_t^T,  z_t = z_{t-1} + phi(k_t)
        o_t = S_t^T phi(q_t) / z_t . phi(q_t)

    Without `normalize` the numerator alone, with `output_norm` normalised per head. Nothing
    decays: the state is a plain sum. Differs from lightning attention in that, and from gated
    linear attention in having no gates.
    """

    settings: LinearAttentionSettings
    projection: Tensor | None

    def __init__(self, settings: LinearAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.q_proj = nn.Linear(width, s.key_dim, bias=False)
        self.k_proj = nn.Linear(width, s.key_dim, bias=False)
        self.v_proj = nn.Linear(width, s.value_dim, bias=False)
        self.o_norm = (
            RMSNorm(s.head_v_dim, NormSettings(eps=place.norm.eps)) if s.output_norm else None
        )
        self.o_proj = nn.Linear(s.value_dim, width, bias=False)
        projection = None
        if s.num_features is not None:
            drawn = draw_projection(s.num_features, s.head_k_dim, s.feature_seed + place.layer)
            projection = drawn.to(self.q_proj.weight.device)
        self.register_buffer("projection", projection, persistent=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        q, k, v = self.project(x)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.feature_dim, s.state_columns)
        out, state = linear_attention(
            q, k, v, state, normalize=s.normalize, chunk_size=s.chunk_size, like=x
        )
        if cache is not None:
            cache.state = state
        if self.o_norm is not None:
            out = self.o_norm(out)
        projected: Tensor = self.o_proj(out.to(x.dtype).flatten(-2))
        return projected

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return features of q and k, [B, T, H, features], and v [B, T, H, V], in float32."""
        s = self.settings
        q, k = (wide(p(x)).unflatten(-1, (s.num_heads, -1)) for p in (self.q_proj, self.k_proj))
        v = wide(self.v_proj(x)).unflatten(-1, (s.num_heads, -1))
        if self.projection is not None:
            projection = wide(self.projection)
            return random_features(q, projection), random_features(k, projection), v
        phi = PLAIN[s.feature_map]
        return phi(q) * s.head_k_dim**-0.5, phi(k), v
