"""Rotary position encoding (RoFormer, arXiv 2104.09864), with linear, llama3 and yarn scaling."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.components import RopeSettings
from hybridsim.kernels.choice import choose
from hybridsim.nn.cache import Past


def inverse_frequencies(settings: RopeSettings, rotary_dim: int) -> list[float]:
    """Return the angle per token of each rotated pair, scaling applied."""
    plain = [settings.theta ** (-2 * i / rotary_dim) for i in range(rotary_dim // 2)]
    if settings.scaling == "linear":
        return [f / settings.factor for f in plain]
    if settings.scaling == "llama3":
        return [_llama3(f, settings) for f in plain]
    if settings.scaling == "yarn":
        return [_yarn(i, f, settings, rotary_dim) for i, f in enumerate(plain)]
    return plain


def _llama3(frequency: float, s: RopeSettings) -> float:
    """Slow pairs are slowed by the factor, fast ones kept, those between blended."""
    turns = s.original_context * frequency / (2 * math.pi)
    blend = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    blend = min(max(blend, 0.0), 1.0)
    return frequency * (blend + (1 - blend) / s.factor)


def _yarn(index: int, frequency: float, s: RopeSettings, rotary_dim: int) -> float:
    """Pairs that turn often over the original context are kept, the others slowed (section 3.2)."""

    def pair_with(turns: float) -> float:
        period = s.original_context / (turns * 2 * math.pi)
        return rotary_dim * math.log(period) / (2 * math.log(s.theta))

    first, last = pair_with(s.beta_fast), pair_with(s.beta_slow)
    if s.truncate:
        first, last = math.floor(first), math.ceil(last)
    low, high = max(first, 0), min(last, rotary_dim - 1)
    slowed = min(max((index - low) / max(high - low, 1e-3), 0.0), 1.0)
    return frequency * (slowed / s.factor + 1 - slowed)


def _yarn_mscale(factor: float, mscale: float) -> float:
    return 1.0 if factor <= 1 or mscale == 0 else 0.1 * mscale * math.log(factor) + 1.0


def attention_factor(settings: RopeSettings) -> float:
    """Return by how much yarn stretches the rotated vectors (1 without yarn)."""
    if settings.scaling != "yarn":
        return 1.0
    return _yarn_mscale(settings.factor, settings.mscale) / _yarn_mscale(
        settings.factor, settings.mscale_all_dim
    )


def score_factor(settings: RopeSettings | None) -> float:
    """Return the factor that yarn puts on attention scores beside 1 / sqrt(head_dim)."""
    if settings is None or settings.scaling != "yarn":
        return 1.0
    return _yarn_mscale(settings.factor, settings.mscale_all_dim) ** 2


class RotaryEmbedding(nn.Module):
    """Turns the first `rotary_dim` channels of each head by position times frequency.

    Args:
        settings: base, pairing and scaling.
        head_dim: channels of a head; all are rotated where settings.rotary_dim is null.
        interleaved: overrides the settings' pairing (DeepSeek's indexer pairs halves).
    """

    inv_freq: Tensor

    def __init__(
        self, settings: RopeSettings, head_dim: int, interleaved: bool | None = None
    ) -> None:
        super().__init__()
        self.rotary_dim = settings.rotary_dim or head_dim
        self.interleaved = settings.interleaved if interleaved is None else interleaved
        self.factor = attention_factor(settings)
        frequencies = torch.tensor(inverse_frequencies(settings, self.rotary_dim))
        self.register_buffer("inv_freq", frequencies, persistent=False)

    def forward(self, x: Float[Tensor, "B T H K"], past_tokens: Past) -> Float[Tensor, "B T H K"]:
        """Return x rotated for positions past_tokens, past_tokens + 1, ..."""
        kernel = choose("rotate", x)
        if kernel is not None:
            fused: Tensor = kernel(
                x, self.inv_freq, past_tokens, self.factor, interleaved=self.interleaved
            )
            return fused
        new = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)
        positions = new + past_tokens
        angles = (positions[:, None] * self.inv_freq.float()).unsqueeze(-2)  # [T, 1, pairs]
        cos, sin = (
            (angles.cos() * self.factor).to(x.dtype),
            (angles.sin() * self.factor).to(x.dtype),
        )
        turned, kept = x[..., : self.rotary_dim], x[..., self.rotary_dim :]
        if self.interleaved:
            first, second = turned[..., 0::2], turned[..., 1::2]
        else:
            first, second = turned.chunk(2, dim=-1)
        pair = (first * cos - second * sin, first * sin + second * cos)
        turned = torch.stack(pair, dim=-1).flatten(-2) if self.interleaved else torch.cat(pair, -1)
        return torch.cat((turned, kept), dim=-1)
