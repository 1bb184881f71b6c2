"""Root-mean-square normalisation, L2 normalisation, and the gated norm of linear attention."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hybridsim.components import NormSettings
from hybridsim.kernels.choice import choose
from hybridsim.nn.library import is_batched
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
        unit_offset = self.settings.unit_offset
        kernel = choose("rms_norm", x, self.weight)
        if kernel is not None:
            fused: Tensor = kernel(
                x, self.weight, self.settings.eps, unit_offset, groups=self.groups
            )
            return fused
        fusible = self.groups == 1 and not unit_offset and x.dtype == self.weight.dtype
        if x.is_cuda and fusible and not is_batched(x, self.weight):
            return F.rms_norm(x, self.weight.shape, self.weight, self.settings.eps)
        full: Tensor = wide(x).unflatten(-1, (self.groups, -1))
        full = full * torch.rsqrt(full.square().mean(-1, keepdim=True) + self.settings.eps)
        full = full.flatten(-2)
        weight = wide(self.weight)
        return (full * (1 + weight if unit_offset else weight)).to(x.dtype)


def gated_rms_norm(
    x: Float[Tensor, "*axes D"],
    gate: Float[Tensor, "*axes D"],
    norm: RMSNorm,
    activation: str,
    *,
    gate_first: bool = False,
) -> Float[Tensor, "*axes D"]:
    """Return norm(x) act(gate), or norm(x act(gate)), in float32 or half precision.

    Args:
        x: what is normalised.
        gate: the gate before its activation.
        norm: with plain weights.
        activation: "sigmoid" or "silu".
        gate_first: gate before normalising, as Mamba-2 does.
    """
    assert not norm.settings.unit_offset
    kernel = choose(
        "gated_rms_norm", x, gate, norm.weight, groups=norm.groups, gate_first=gate_first
    )
    if kernel is not None:
        given = (x, gate, norm.weight, norm.settings.eps, activation)
        fused: Tensor = kernel(*given, gate_first=gate_first, groups=norm.groups)
        return fused
    x, gate = wide(x), wide(gate)
    factor = gate.sigmoid() if activation == "sigmoid" else F.silu(gate)
    out: Tensor = norm(x * factor) if gate_first else norm(x) * factor
    return out


def l2_normalize(x: Float[Tensor, "*axes K"], eps: float = 1e-6) -> Float[Tensor, "*axes K"]:
    """Return x / sqrt(sum(x^2) + eps) along the last axis."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + eps)


def sum_normalize(x: Float[Tensor, "*axes K"], eps: float = 1e-6) -> Float[Tensor, "*axes K"]:
    """Return x over the sum of its magnitudes along the last axis, at least eps."""
    return x / x.abs().sum(-1, keepdim=True).clamp(min=eps)
