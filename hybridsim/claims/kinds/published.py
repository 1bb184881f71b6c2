"""Arithmetic on what a publication says itself, and figures that nothing here can compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.claims.figure import PUBLISHED, Kind, Ours
from hybridsim.claims.subject import Subject
from hybridsim.mixers import MixerSettings
from hybridsim.mixers.attention.settings import AttentionSettings
from hybridsim.mixers.mla.settings import MultiHeadLatentAttentionSettings


@dataclass(frozen=True)
class PublishedRatio(Kind):
    """One published number over another."""

    unit: ClassVar[str] = "x"
    numerator: float
    denominator: float

    def compute(self) -> Ours:
        ratio = self.numerator / self.denominator
        text = f"{self.numerator:g} / {self.denominator:g} = {ratio:.3f}x"
        return Ours(ratio, text, PUBLISHED)


@dataclass(frozen=True)
class CurveRatio(Kind):
    """One published curve a N + b N^2 over another, at N tokens."""

    unit: ClassVar[str] = "%"
    numerator: tuple[float, ...]
    denominator: tuple[float, ...]
    tokens: int

    def compute(self) -> Ours:
        ours, theirs = (_curve(c, self.tokens) for c in (self.numerator, self.denominator))
        text = f"a N + b N^2 at {self.tokens:,} tokens: {ours:.5g} / {theirs:.5g}"
        return Ours(ours / theirs, f"{text} = {ours / theirs:.2%}", PUBLISHED)


def _curve(coefficients: tuple[float, ...], tokens: int) -> float:
    return sum(c * float(tokens) ** power for power, c in enumerate(coefficients, start=1))


@dataclass(frozen=True)
class CurveWeight(Kind):
    """Softmax layers x heads x (key + 2 value width) of a model: what a curve's b stands for.

    Attributes:
        model: the model.
        letter: of its softmax attention.
    """

    unit: ClassVar[str] = ""
    model: Subject
    letter: str

    def compute(self) -> Ours:
        settings, layers = self.model.mixer(self.letter), self.model.num_layers_of(self.letter)
        heads: int = getattr(settings, "num_heads")  # noqa: B009
        key, value = _head_dims(settings)
        weight = layers * heads * (key + 2 * value)
        text = f"{layers} layers x {heads} heads x ({key} + 2 x {value}) = {weight:,}"
        return Ours(weight, text)


def _head_dims(settings: MixerSettings) -> tuple[int, int]:
    """Return the widths of a head's keys and values."""
    if isinstance(settings, MultiHeadLatentAttentionSettings):
        return settings.qk_head_dim, settings.v_head_dim
    assert isinstance(settings, AttentionSettings), settings.kind
    return settings.head_dim, settings.head_dim


@dataclass(frozen=True)
class Missing(Kind):
    """A figure that takes what is not here.

    Attributes:
        needs: what it would take.
    """

    unit: ClassVar[str] = ""
    needs: str

    def compute(self) -> str:
        return self.needs
