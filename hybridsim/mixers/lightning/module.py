"""Lightning attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.mixers.lightning.ops import chunk_lightning, decay_slopes, recurrent_lightning
from hybridsim.mixers.lightning.settings import LightningAttentionSettings
from hybridsim.nn.activation import PLAIN
from hybridsim.nn.cache import LayerCache, RecurrentCache
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide


class LightningAttention(SequenceMixer):
    """Linear attention with a fixed decay per head, arXiv 2405.17381 and 2501.08313.

        S_t = exp(-s_h) S_{t-1} + k_t v_t^T,  o_t = S_t^T q_t

    q, k and v pass an activation; the output is normalised over all heads together and gated by
    sigmoid(W_g x). The slope s_h is fixed, and weaker in later layers.
    """

    settings: LightningAttentionSettings
    slopes: Tensor

    def __init__(self, settings: LightningAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        self.qkv_proj = nn.Linear(width, 3 * s.inner_dim, bias=False)
        self.output_gate = nn.Linear(width, s.inner_dim, bias=False)
        self.o_norm = RMSNorm(s.inner_dim, NormSettings(eps=place.norm.eps))
        self.o_proj = nn.Linear(s.inner_dim, width, bias=False)
        slopes = torch.tensor(decay_slopes(s.num_heads, place.layer, place.num_layers))
        self.register_buffer("slopes", slopes, persistent=False)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return RecurrentCache()

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: int = 0) -> Tensor:
        assert cache is None or isinstance(cache, RecurrentCache)
        s = self.settings
        # The checkpoint's order: for each head its q, k and v.
        mixed = wide(PLAIN[s.activation](self.qkv_proj(x)))
        q, k, v = mixed.unflatten(-1, (s.num_heads, 3 * s.head_dim)).chunk(3, dim=-1)
        slopes = wide(self.slopes)
        state = cache.state if cache is not None else None
        if state is None:
            state = q.new_zeros(x.shape[0], s.num_heads, s.head_dim, s.head_dim)
        if x.shape[1] == 1:
            out, state = recurrent_lightning(q[:, 0], k[:, 0], v[:, 0], slopes, state)
            out = out[:, None]
        else:
            out, state = chunk_lightning(q, k, v, slopes, state, s.chunk_size)
        if cache is not None:
            cache.state = state
        gate = wide(self.output_gate(x)).sigmoid()
        projected: Tensor = self.o_proj((self.o_norm(out.flatten(-2)) * gate).to(x.dtype))
        return projected
