"""What kernels take together: a norm, a gate. No Triton."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Norm(NamedTuple):
    """A root-mean-square norm: its weight, its epsilon, and whether it multiplies by 1 + weight."""

    weight: Tensor
    eps: float
    unit_offset: bool = False


class Gate(NamedTuple):
    """What a gated layer's halves become: act(scale * gate) * up, see nn.activation.gated."""

    activation: str
    scale: float = 1.0
    limit: float | None = None
