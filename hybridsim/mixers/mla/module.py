"""Multi-head latent attention as a module."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings
from hybridsim.nn.attention import causal_attention, latent_attention
from hybridsim.nn.cache import LatentCache, LayerCache, Past, TokenBuffer
from hybridsim.nn.linear import added_linear, kernel_of, linear, norm_of, normed_linears
from hybridsim.nn.mixer import MixerPlace, SequenceMixer
from hybridsim.nn.norm import RMSNorm
from hybridsim.nn.precision import wide
from hybridsim.nn.rope import RotaryEmbedding, score_factor


class MultiHeadLatentAttention(SequenceMixer):
    """Attention whose keys and values are rebuilt from one latent per token, arXiv 2405.04434.

        c_t = norm(W_a x_t),  [k_nope_h, v_h] = W_b,h c_t,  k_h = [k_nope_h, k_rope],
        o_h = softmax(q_h . k_h / sqrt(nope + rope)) v_h

    Only c_t and k_rope are cached. Several tokens rebuild keys and values (the MHA form); one token
    works on the latents themselves: q_nope_h W_b,h replaces the key's part of W_b, and the value's
    part is applied to the attended latent (the absorbed form). Both give the same numbers.
    Optional: o_h sigmoid(w_h x), one gate a head (Ling 3.0).
    """

    settings: MultiHeadLatentAttentionSettings

    def __init__(self, settings: MultiHeadLatentAttentionSettings, place: MixerPlace) -> None:
        super().__init__(settings, place)
        width, s = place.hidden_size, settings
        queries, norm = s.num_heads * s.qk_head_dim, place.norm.with_eps(s.norm_eps)
        if s.q_lora_rank is None:
            self.q_proj = nn.Linear(width, queries, bias=False)
        else:
            self.q_a_proj = nn.Linear(width, s.q_lora_rank, bias=False)
            self.q_a_norm = RMSNorm(s.q_lora_rank, norm)
            self.q_b_proj = nn.Linear(s.q_lora_rank, queries, bias=False)
        self.kv_a_proj = nn.Linear(width, s.latent_dim, bias=False)
        self.kv_a_norm = RMSNorm(s.kv_lora_rank, norm)
        rebuilt = s.num_heads * (s.qk_nope_head_dim + s.v_head_dim)
        self.kv_b_proj = nn.Linear(s.kv_lora_rank, rebuilt, bias=False)
        self.o_proj = nn.Linear(s.num_heads * s.v_head_dim, width, bias=False)
        if s.head_gate:
            self.g_proj = nn.Linear(width, s.num_heads, bias=False)
        self.rope = None if s.rope is None else RotaryEmbedding(s.rope, s.qk_rope_head_dim)
        self.scale = s.qk_head_dim**-0.5 * score_factor(s.rope)

    def new_cache(self, reserved_tokens: int) -> LayerCache:
        return LatentCache(TokenBuffer(reserved_tokens=reserved_tokens))

    def forward(self, x: Tensor, cache: LayerCache | None = None, past_tokens: Past = 0) -> Tensor:
        query = self.project_query(self.query_latent(x), past_tokens)
        latents, length = self.project_latent(x, past_tokens), None
        if cache is not None:
            assert isinstance(cache, LatentCache)
            latents, length = cache.latents.append(latents), cache.latents.valid
        return self.output(x, self.attend(query, latents, length))

    def step(
        self, norm: RMSNorm, x: Tensor, cache: LayerCache | None, past_tokens: Past
    ) -> Tensor | None:
        s, turned = self.settings, 0 if self.rope is None else self.rope.rotary_dim
        if (
            not isinstance(cache, LatentCache)
            or s.head_gate
            or turned not in (0, s.qk_rope_head_dim)
        ):
            return None
        first = self._first_queries()
        layers = [first, self.kv_a_proj, self.kv_b_proj, self.o_proj]
        absorb, values = (kernel_of(name, layers, x) for name in ("absorb", "latent_values"))
        if absorb is None or values is None or (place := cache.latents.place()) is None:
            return None
        query, latent = normed_linears(norm, x, first, self.kv_a_proj)
        if s.q_lora_rank is not None:
            (query,) = normed_linears(self.q_a_norm, query, self.q_b_proj)
        weight, nope, (storage, position) = self.kv_b_proj.weight, s.qk_nope_head_dim, place
        rotation = {}
        if self.rope is not None:
            rotation = {
                "frequencies": self.rope.inv_freq,
                "factor": self.rope.factor,
                "interleaved": self.rope.interleaved,
            }
        given = (query, latent, norm_of(self.kv_a_norm), weight, storage, position)
        absorbed = absorb(*given, s.num_heads, nope, **rotation)[:, None]
        length = cache.latents.valid
        attended = latent_attention(absorbed, storage, s.kv_lora_rank, self.scale, length)
        out = values(attended[:, 0], weight, nope)[:, None]
        return added_linear(self.o_proj, out, x)

    def _first_queries(self) -> nn.Linear:
        """Return what the layer's input goes through on the way to the queries."""
        return self.q_proj if self.settings.q_lora_rank is None else self.q_a_proj

    def query_latent(self, x: Tensor) -> Tensor:
        """Return the query's bottleneck [B, T, q_lora_rank], or x where there is none."""
        return x if self.settings.q_lora_rank is None else self.q_a_norm(linear(self.q_a_proj, x))

    def project_query(self, latent: Tensor, past_tokens: Past) -> Tensor:
        """Return queries [B, T, H, nope + rope], rotated."""
        s = self.settings
        projection = self.q_proj if s.q_lora_rank is None else self.q_b_proj
        query: Tensor = linear(projection, latent).unflatten(-1, (s.num_heads, s.qk_head_dim))
        if self.rope is None:
            return query
        nope, rope = query.split((s.qk_nope_head_dim, s.qk_rope_head_dim), dim=-1)
        return torch.cat((nope, self.rope(rope, past_tokens)), dim=-1)

    def project_latent(self, x: Tensor, past_tokens: Past) -> Tensor:
        """Return the cached [B, T, R + rope]: the normalised latent and the rotated channels."""
        s = self.settings
        latent, rope = linear(self.kv_a_proj, x).split((s.kv_lora_rank, s.qk_rope_head_dim), dim=-1)
        if self.rope is not None:
            rope = self.rope(rope[..., None, :], past_tokens).squeeze(-2)
        return torch.cat((self.kv_a_norm(latent), rope), dim=-1)

    def attend(self, query: Tensor, latents: Tensor, length: Tensor | None) -> Tensor:
        """Return the heads' outputs [B, T, H, V] for queries over all visible latents."""
        if query.shape[1] == 1:
            rank = self.settings.kv_lora_rank
            absorbed = self.absorb(query)
            return self.values(latent_attention(absorbed, latents, rank, self.scale, length))
        key, value = self.rebuild(latents)
        return causal_attention(query, key, value, self.scale)

    def rebuild(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys [B, S, H, nope + rope] and values [B, S, H, V] of the latents."""
        s = self.settings
        latent, rope = latents.split((s.kv_lora_rank, s.qk_rope_head_dim), dim=-1)
        both = self.kv_b_proj(latent).unflatten(-1, (s.num_heads, -1))
        nope, value = both.split((s.qk_nope_head_dim, s.v_head_dim), dim=-1)
        shared = rope[..., None, :].expand(*nope.shape[:-1], -1)
        return torch.cat((nope, shared), dim=-1), value

    def _rebuilding_weights(self) -> tuple[Tensor, Tensor]:
        """Return the key's part [H, nope, R] and the value's part [H, V, R] of `kv_b_proj`."""
        s = self.settings
        weight = self.kv_b_proj.weight.unflatten(0, (s.num_heads, -1))
        key, value = weight.split((s.qk_nope_head_dim, s.v_head_dim), dim=1)
        return key, value

    def absorb(self, query: Tensor) -> Tensor:
        """Return queries against latents, [B, T, H, R + rope], from queries against keys."""
        s = self.settings
        nope, rope = query.split((s.qk_nope_head_dim, s.qk_rope_head_dim), dim=-1)
        return torch.cat((_per_head(nope, self._rebuilding_weights()[0]), rope), dim=-1)

    def values(self, attended: Tensor) -> Tensor:
        """Return the heads' outputs [B, T, H, V] from attended latents [B, T, H, R]."""
        return _per_head(attended, self._rebuilding_weights()[1].mT)

    def output(self, x: Tensor, out: Tensor) -> Tensor:
        """Return the layer's output from the heads' [B, T, H, V]."""
        if self.settings.head_gate:
            gate = wide(self.g_proj(x)).sigmoid().to(out.dtype)
            out = out * gate[..., None]
        return linear(self.o_proj, out.flatten(-2))


def _per_head(x: Tensor, weight: Tensor) -> Tensor:
    """Return x [B, T, H, I] times weight [H, I, O], each head by its own."""
    batch, tokens, heads, width = x.shape
    rows = x.permute(2, 0, 1, 3).reshape(heads, batch * tokens, width)
    return (rows @ weight).reshape(heads, batch, tokens, -1).permute(1, 2, 0, 3)
