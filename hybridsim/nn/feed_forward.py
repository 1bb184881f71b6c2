"""The contract of a feed-forward's module."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.nn.norm import RMSNorm


class FeedForward(nn.Module, ABC):
    """Maps every token by itself. Submodules are named as the weights of its cost are."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Return the mapped tokens."""

    def step(self, norm: RMSNorm, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"] | None:
        """Return x + self(norm(x)) of few tokens in few launches.

        None where no kernels do that: callers then go the long way.
        """
        return None
