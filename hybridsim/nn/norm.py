"""Root-mean-square normalisation, L2 normalisation, and the gated norm of linear attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.kernels.choice import choose
from hybridsim.nn.precision import wide


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, or * (1 + weight); computed in float32.

    Source: Zhang and Sennrich, arXiv 1910.07467.

    Args:
        width: D, channels of the last axis.
        settings: epsilon and what the weight means.
        groups: equal parts of the channels, each with a mean square of its own.
    """

    def __init__(self, width: int, settings: NormSettings, groups: int = 1) -> None:
        super().__init__()
        self.settings = settings
        self.groups = groups
        start = torch.zeros if settings.unit_offset else torch.ones
        self.weight = nn.Parameter(start(width))

    def forward(self, x: Float[Tensor, "*axes D"]) -> Float[Tensor, "*axes D"]:
        """Return x with unit mean square along each part of its last axis, times the weight."""
        plain = self.groups == 1 and not self.settings.unit_offset
        if x.is_cuda and plain and x.dtype == self.weight.dtype and x.dtype != torch.float64:
            return F.rms_norm(x, self.weight.shape, self.weight, self.settings.eps)
        full: Tensor = wide(x).unflatten(-1, (self.groups, -1))
        full = full * torch.rsqrt(full.square().mean(-1, keepdim=True) + self.settings.eps)
        full = full.flatten(-2)
        weight = wide(self.weight)
        return (full * (1 + weight if self.settings.unit_offset else weight)).to(x.dtype)


def gated_rms_norm(
    x: Float[Tensor, "*axes D"], gate: Float[Tensor, "*axes D"], norm: RMSNorm, activation: str
) -> Float[Tensor, "*axes D"]:
    """Return norm(x) times the activation of the gate, in float32 or in the dtype of x.

    Args:
        x: what is normalised.
        gate: the gate before its activation.
        norm: of plain weights, in one group.
        activation: "sigmoid" or "silu".
    """
    assert norm.groups == 1
    assert not norm.settings.unit_offset
    kernel = choose("gated_rms_norm", x, gate, norm.weight, activation=activation)
    if kernel is not None:
        fused: Tensor = kernel(x, gate, norm.weight, norm.settings.eps, activation)
        return fused
    gate = wide(gate)
    normed: Tensor = norm(wide(x))
    return normed * (gate.sigmoid() if activation == "sigmoid" else F.silu(gate))


def l2_normalize(x: Float[Tensor, "*axes K"], eps: float = 1e-6) -> Float[Tensor, "*axes K"]:
    """Return x / sqrt(sum(x^2) + eps) along the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def sum_normalize(x: Float[Tensor, "*axes K"], eps: float = 1e-6) -> Float[Tensor, "*axes K"]:
    """Return x over the sum of its magnitudes along the last axis, at least eps."""
    return x / x.abs().sum(-1, keepdim=True).clamp(min=eps)
