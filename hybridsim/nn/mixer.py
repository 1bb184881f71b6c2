"""The contract of a token mixer's module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.nn.cache import LayerCache


@dataclass(frozen=True)
class MixerPlace:
    """Where in a model a mixer stands, and what it shares with the model.

    Attributes:
        hidden_size: width D of the residual stream.
        norm: the model's normalisation, for norms inside the mixer.
        layer: index of the layer, from 0.
        num_layers: layers of the model.
    """

    hidden_size: int
    norm: NormSettings
    layer: int = 0
    num_layers: int = 1


class SequenceMixer(nn.Module, ABC):
    """Mixes tokens causally. Submodules are named as the weights of the mixer's cost are."""

    def __init__(self, settings: Any, place: MixerPlace) -> None:
        super().__init__()
        self.settings = settings
        self.place = place

    @abstractmethod
    def new_cache(self, reserved_tokens: int) -> LayerCache:
        """Return an empty cache with room for `reserved_tokens` where it grows with tokens."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "B T D"], cache: LayerCache | None = None, past_tokens: int = 0
    ) -> Float[Tensor, "B T D"]:
        """Mix tokens; with a cache, continue after its tokens and leave the new ones in it.

        Args:
            x: new tokens.
            cache: what `new_cache` made, or None for a pass of its own.
            past_tokens: tokens that the cache has seen.
        """
