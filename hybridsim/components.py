"""Settings that parts of a model share: normalisation, rotary position encoding. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from hybridsim.errors import bad_value, unknown

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu2", "swiglu_oai")
OAI_ALPHA = 1.702  # slope and limit of the clamped SwiGLU of gpt-oss, used by MiniMax-M3
OAI_LIMIT = 7.0
GATED_ACTIVATIONS = ("swiglu_oai",)  # they are functions of a gate and of what it gates
ROPE_SCALINGS = ("none", "linear", "llama3", "yarn")
SCALINGS_FROM_A_CONTEXT = ("llama3", "yarn")


def require_positive(**values: int | float) -> None:
    """Raise SpecError for the first value that is not above zero."""
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise bad_value(
                key, value, "must be at least 1" if isinstance(value, int) else "must be above 0"
            )


def require_at_least(minimum: int, **values: int) -> None:
    """Raise SpecError for the first value below `minimum`."""
    for key, value in values.items():
        if value < minimum:
            raise bad_value(key, value, f"must be at least {minimum}")


def require_multiple(key: str, value: int, of_key: str, of: int) -> None:
    """Raise SpecError unless `value` is a multiple of `of`."""
    if of <= 0 or value % of:
        raise bad_value(key, value, f"must be a multiple of {of_key}={of}")


def require_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise SpecError unless `value` is one of `allowed`."""
    if value not in allowed:
        raise unknown(key, value, allowed, "choice")


def require_activation(activation: str, *, gated: bool) -> None:
    """Raise SpecError unless a feed-forward with, or without, a gate can have the activation."""
    require_choice("activation", activation, ACTIVATIONS)
    if activation in GATED_ACTIVATIONS and not gated:
        raise bad_value("activation", activation, "needs gated=true")


def require_limit(key: str, limit: float | None, activation: str, *, gated: bool) -> None:
    """Raise SpecError unless a feed-forward with this activation can have the limit."""
    if limit is None:
        return
    require_positive(**{key: limit})
    if not gated:
        raise bad_value(key, limit, "needs gated=true")
    if activation in GATED_ACTIVATIONS:
        raise bad_value(key, limit, f"activation={activation} has a limit of its own")


@dataclass(frozen=True)
class NormSettings:
    """Root-mean-square normalisation over the last axis (Zhang and Sennrich, arXiv 1910.07467).

    Attributes:
        eps: added to the mean square.
        unit_offset: multiply by 1 + weight instead of weight (Gemma, Qwen3-Next, MiniMax-M3).
    """

    eps: float = 1e-6
    unit_offset: bool = False

    def __post_init__(self) -> None:
        require_positive(eps=self.eps)

    def with_eps(self, eps: float | None) -> NormSettings:
        """Return the same normalisation with another `eps`, or as it is where that is null."""
        return self if eps is None else replace(self, eps=eps)


@dataclass(frozen=True)
class RopeSettings:
    """Rotary position encoding (RoFormer, arXiv 2104.09864), over all or the first part of a head.

    Attributes:
        theta: base of the frequencies.
        rotary_dim: rotated channels of each head; null rotates all of them.
        interleaved: pairs are neighbours (0, 1), (2, 3) as in DeepSeek, not halves.
        scaling: "none", "linear" (every frequency over the factor, arXiv 2306.15595), "llama3"
            (Llama 3.1 report) or "yarn" (arXiv 2309.00071).
        factor: by how much the context was stretched; low_freq_factor and high_freq_factor belong
            to llama3; beta_fast, beta_slow, mscale, mscale_all_dim and truncate to yarn.
        original_context: tokens of the context before stretching, for llama3 and yarn.
        truncate: yarn blends between whole pairs; false lets the blend begin and end between two
            of them (gpt-oss).
    """

    theta: float = 10000.0
    rotary_dim: int | None = None
    interleaved: bool = False
    scaling: str = "none"
    factor: float = 1.0
    original_context: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float = 1.0
    mscale_all_dim: float = 0.0
    truncate: bool = True

    def __post_init__(self) -> None:
        require_positive(
            factor=self.factor,
            low_freq_factor=self.low_freq_factor,
            high_freq_factor=self.high_freq_factor,
            beta_fast=self.beta_fast,
            beta_slow=self.beta_slow,
        )
        require_at_least(0, original_context=self.original_context)
        require_choice("scaling", self.scaling, ROPE_SCALINGS)
        if not self.theta > 1:
            raise bad_value("theta", self.theta, "must be above 1")
        if self.rotary_dim is not None and (self.rotary_dim < 2 or self.rotary_dim % 2):
            raise bad_value(
                "rotary_dim", self.rotary_dim, "must be an even number of at least 2, or null"
            )
        if self.scaling in SCALINGS_FROM_A_CONTEXT and self.original_context < 1:
            raise bad_value(
                "original_context",
                self.original_context,
                f"must be at least 1 with scaling={self.scaling}",
            )
        if self.scaling == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise bad_value(
                "high_freq_factor",
                self.high_freq_factor,
                f"must be above low_freq_factor={self.low_freq_factor}",
            )

    def check_head(self, head_dim: int) -> None:
        """Raise SpecError where the rotated part does not fit a head of `head_dim` channels."""
        if self.rotary_dim is not None and self.rotary_dim > head_dim:
            raise bad_value(
                "rope.rotary_dim", self.rotary_dim, f"must be at most head_dim={head_dim}"
            )
        if self.rotary_dim is None and head_dim % 2:
            raise bad_value("head_dim", head_dim, "must be even to be rotated")
