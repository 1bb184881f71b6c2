"""Settings of softmax attention."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from hybridsim.components import RopeSettings, require_choice, require_multiple, require_positive
from hybridsim.mixers.base import MixerSettings

QK_NORMS = ("none", "head", "full")


@dataclass(frozen=True)
class AttentionSettings(MixerSettings):
    """Multi-head attention, grouped-query where `num_kv_heads` is smaller than `num_heads`.

    Attributes:
        num_heads: query heads H.
        num_kv_heads: key and value heads; must divide `num_heads`.
        head_dim: channels K of a head, independent of the model's width.
        qk_norm: "none", "head" (over a head's channels, Qwen3) or "full" (over all heads,
            MiniMax-M2).
        output_gate: a sigmoid gate on the output, projected beside the queries (Qwen3-Next).
        window: keys a query sees at most, itself included; null for all.
        bias: biases on the query, key and value projections.
        rope: rotary encoding, or null for none.
        output_bias: a bias on the output projection.
        sinks: one learned score a head that joins the softmax's denominator, without a value
            (gpt-oss).
        softmax_scale: factor on the scores; null takes 1 / sqrt(head_dim).
        key_scale: factor on the keys, after their norm (Falcon-H1).
        input_scale: factor on the input of the query, key and value projections (Falcon-H1).
        output_scale: factor on the layer's output (Falcon-H1).
    """

    kind: ClassVar[str] = "attention"

    num_heads: int
    num_kv_heads: int
    head_dim: int
    qk_norm: str = "none"
    output_gate: bool = False
    window: int | None = None
    bias: bool = False
    rope: RopeSettings | None = None
    output_bias: bool = False
    sinks: bool = False
    softmax_scale: float | None = None
    key_scale: float = 1.0
    input_scale: float = 1.0
    output_scale: float = 1.0

    def __post_init__(self) -> None:
        require_positive(
            num_heads=self.num_heads, num_kv_heads=self.num_kv_heads, head_dim=self.head_dim
        )
        require_multiple("num_heads", self.num_heads, "num_kv_heads", self.num_kv_heads)
        require_choice("qk_norm", self.qk_norm, QK_NORMS)
        if self.window is not None:
            require_positive(window=self.window)
        require_positive(
            softmax_scale=self.scale,
            key_scale=self.key_scale,
            input_scale=self.input_scale,
            output_scale=self.output_scale,
        )
        if self.rope is not None:
            self.rope.check_head(self.head_dim)

    @property
    def is_full_attention(self) -> bool:
        return self.window is None

    @property
    def scale(self) -> float:
        """Factor on the scores."""
        return self.head_dim**-0.5 if self.softmax_scale is None else self.softmax_scale

    def canonical(self) -> AttentionSettings:
        return replace(self, softmax_scale=self.scale)

    def full_twin(self) -> AttentionSettings:
        return replace(self, window=None)
