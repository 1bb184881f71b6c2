"""Settings of a dense feed-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hybridsim.components import ACTIVATIONS, require_choice, require_positive
from hybridsim.ffn.base import FfnSettings


@dataclass(frozen=True)
class DenseSettings(FfnSettings):
    """One MLP for every token.

    Attributes:
        intermediate_size: width between the projections.
        activation: see components.ACTIVATIONS.
        gated: down(act(gate(x)) * up(x)) (arXiv 2002.05202), else down(act(up(x))) (Nemotron-H).
    """

    kind: ClassVar[str] = "dense"

    intermediate_size: int
    activation: str = "silu"
    gated: bool = True

    def __post_init__(self) -> None:
        require_positive(intermediate_size=self.intermediate_size)
        require_choice("activation", self.activation, ACTIVATIONS)
