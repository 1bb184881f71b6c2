"""Activations of feed-forwards and mixers, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from hybridsim.components import OAI_ALPHA, OAI_LIMIT
from hybridsim.kernels.choice import choose
from hybridsim.nn.scale import scaled


def elu1(x: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
    """Return elu(x) + 1, positive everywhere: x + 1 above zero, else exp(x).

    Source: arXiv 2006.16236, eq. 7. Written out, small values are not lost beside the 1.
    """
    return torch.where(x > 0, x + 1, x.clamp(max=0).exp())


PLAIN: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),
    "elu1": elu1,
    "identity": lambda x: x,
}


def gated(
    name: str,
    gate_up: Float[Tensor, "*axes I2"],
    gate_scale: float = 1.0,
    limit: float | None = None,
) -> Float[Tensor, "*axes I"]:
    """Return act(gate_scale * gate) * up, where `gate_up` holds gate, then up.

    With a limit L, min(act(gate_scale * gate), L) * clip(up, -L, L).
    """
    kernel = choose("silu_mul", gate_up, activation=name)
    if kernel is not None:
        fused: Tensor = kernel(gate_up, gate_scale, limit)
        return fused
    gate, up = gate_up.chunk(2, dim=-1)
    gate = scaled(gate, gate_scale)
    if name == "swiglu_oai":
        gate, up = gate.clamp(max=OAI_LIMIT), up.clamp(-OAI_LIMIT, OAI_LIMIT)
        return gate * (OAI_ALPHA * gate).sigmoid() * (up + 1)
    activated = PLAIN[name](gate)
    if limit is not None:
        activated, up = activated.clamp(max=limit), up.clamp(-limit, limit)
    return activated * up
