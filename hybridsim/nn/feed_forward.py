"""The contract of a feed-forward's module."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Module, ABC):
    """Maps every token by itself. Submodules are named as the weights of its cost are."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the mapped tokens."""
