"""AdamW and Muon over stacked parameters: a rate for every model, one step for all of them.

The steps are those of torch.optim.AdamW and torch.optim.Muon (adjust_lr_fn="match_rms_adamw"),
with a model axis in front. Nothing here waits for the device, so that a CUDA graph can hold a step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_EPS = 1e-7


def takes_muon(name: str, parameter: Tensor) -> bool:
    """Return whether a stacked parameter is a hidden matrix, which Muon is for."""
    return name.endswith(("proj.weight", "proj.linear.weight")) and parameter.dim() == 3


def takes_decay(parameter: Tensor) -> bool:
    """Return whether weight decay applies: to matrices, not to vectors."""
    return parameter.dim() >= 3


@final
class StackedOptimizer:
    """One optimizer for many models.

    Args:
        parameters: leaves by name, [models, ...] each.
        rates: peak learning rates of each one's models.
        muon: whether hidden matrices take Muon; all others take AdamW.
        weight_decay: of matrices.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        rates: Mapping[str, Sequence[float]],
        *,
        muon: bool,
        weight_decay: float,
    ) -> None:
        self.parameters = dict(parameters)
        self.weight_decay = weight_decay
        self.muon = {n for n, p in self.parameters.items() if muon and takes_muon(n, p)}
        self.rates = {
            name: torch.tensor(list(rates[name]), device=p.device)
            for name, p in self.parameters.items()
        }
        device = next(iter(self.parameters.values())).device
        self.steps = torch.zeros((), device=device)
        self.first = {n: torch.zeros_like(p) for n, p in self.parameters.items()}
        self.second = {
            n: torch.zeros_like(p) for n, p in self.parameters.items() if n not in self.muon
        }

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], factors: Mapping[str, Tensor]) -> None:
        """Take one step.

        Args:
            gradients: of every parameter.
            factors: [models], on the rate of each parameter's models; 0 leaves a model alone.
        """
        self.steps += 1
        for name, parameter in self.parameters.items():
            rate = _beside(self.rates[name] * factors[name], parameter)
            if takes_decay(parameter):
                parameter.mul_(1 - rate * self.weight_decay)
            change = self._muon if name in self.muon else self._adamw
            parameter.sub_(rate * change(name, gradients[name]))

    def _adamw(self, name: str, gradient: Tensor) -> Tensor:
        first, second = self.first[name], self.second[name]
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected = second / (1 - BETAS[1] ** self.steps)
        return first / (1 - BETAS[0] ** self.steps) / (corrected.sqrt() + ADAM_EPS)

    def _muon(self, name: str, gradient: Tensor) -> Tensor:
        momentum = self.first[name]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(momentum, MOMENTUM)  # Nesterov's
        scale = 0.2 * math.sqrt(max(gradient.shape[1:]))  # as large as AdamW's steps
        return orthogonalized(direction) * scale

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; the tensors themselves, not copies."""
        return {"steps": self.steps, "first": self.first, "second": self.second}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned for the same parameters."""
        self.steps.copy_(state["steps"])
        for own, given in ((self.first, state["first"]), (self.second, state["second"])):
            for name, tensor in own.items():
                tensor.copy_(given[name])


def orthogonalized(matrices: Tensor) -> Tensor:
    """Return the nearest half-orthogonal matrices of [models, rows, columns], roughly.

    Five Newton-Schulz steps, in bfloat16 as torch.optim.Muon has them on every device. Source:
    Keller Jordan, Muon; the coefficients make singular values lie in about 0.5..1.5.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=NEWTON_SCHULZ_EPS)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _beside(per_model: Tensor, parameter: Tensor) -> Tensor:
    return per_model.view(-1, *[1] * (parameter.dim() - 1))
