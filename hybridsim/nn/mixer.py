"""The contract of a token mixer's module."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.nn.cache import LayerCache, Past
from hybridsim.nn.norm import RMSNorm


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
        self, x: Float[Tensor, "B T D"], cache: LayerCache | None = None, past_tokens: Past = 0
    ) -> Float[Tensor, "B T D"]:
        """Mix tokens; with a cache, continue after its tokens and leave the new ones in it.

        Args:
            x: new tokens.
            cache: what `new_cache` made, or None for a pass of its own.
            past_tokens: tokens that the cache has seen.
        """

    def step(
        self,
        norm: RMSNorm,
        x: Float[Tensor, "B 1 D"],
        cache: LayerCache | None,
        past_tokens: Past,
    ) -> Float[Tensor, "B 1 D"] | None:
        """Return x + self(norm(x), cache, past_tokens) of one token a sequence in few launches.

        None, and nothing done, where no kernels do that: callers then go the long way.

        Args:
            norm: what stands before the mixer.
            x: the residual stream, few rows.
            cache, past_tokens: as for `forward`.
        """
        return None

    def mix(
        self,
        x: Float[Tensor, "B T D"],
        cache: LayerCache | None,
        past_tokens: Past,
        selection: Int[Tensor, "B T k"] | None,
    ) -> tuple[Float[Tensor, "B T D"], Int[Tensor, "B T k"] | None]:
        """Mix tokens as `forward` does, with the selection that layers may share.

        Args:
            x, cache, past_tokens: as for `forward`.
            selection: the tokens that the last layer with an indexer chose for each query; None
                where it chose all.

        Returns:
            The mixed tokens, and the selection for the layers that follow.
        """
        return self(x, cache, past_tokens), selection
