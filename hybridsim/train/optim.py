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

from hybridsim.train.flat import DECAYED, MATRICES, Layout

BETAS = (0.9, 0.95)
ADAM_EPS = 1e-8
MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # coefficients of the quintic iteration
NEWTON_SCHULZ_STEPS = 5
NEWTON_SCHULZ_EPS = 1e-7


@final
class StackedOptimizer:
    """One optimizer for many models.

    Args:
        flat: the leaf that holds all parameters.
        layout: where they are in it.
        rates: peak learning rates of each one's models.
        muon: whether hidden matrices take Muon; all others take AdamW.
        weight_decay: of matrices.
    """

    def __init__(
        self,
        flat: Tensor,
        layout: Layout,
        rates: Mapping[str, Sequence[float]],
        *,
        muon: bool,
        weight_decay: float,
    ) -> None:
        self.flat, self.layout = flat, layout
        self.weight_decay = weight_decay
        self.matrices = layout.blocks_of(MATRICES) if muon else []
        self.rates = layout.rows(rates)
        self.steps = torch.zeros((), device=flat.device)
        self.first = torch.zeros_like(flat, requires_grad=False)
        self.second = torch.zeros_like(flat, requires_grad=False)  # (of AdamW alone)

    @torch.no_grad()
    def step(self, gradient: Tensor, factor: Tensor) -> None:
        """Take one step.

        Args:
            gradient: of the whole vector.
            factor: [models], on each one's rates; 0 leaves a model alone.
        """
        self.steps += 1
        rate = self.layout.spread(self.rates * self.layout.of_rows(factor))
        decayed = slice(0, self.layout.ends[DECAYED])
        self.flat[decayed].mul_(1 - rate[decayed] * self.weight_decay)
        first = 0  # what takes AdamW
        if self.matrices:
            first = self.layout.ends[MATRICES]
            own = slice(0, first)
            self.flat[own].sub_(rate[own] * self._muon(gradient[own], self.first[own]))
        own = slice(first, None)
        change = self._adamw(gradient[own], self.first[own], self.second[own])
        self.flat[own].sub_(rate[own] * change)

    def _adamw(self, gradient: Tensor, first: Tensor, second: Tensor) -> Tensor:
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrected = second / (1 - BETAS[1] ** self.steps)
        return first / (1 - BETAS[0] ** self.steps) / (corrected.sqrt() + ADAM_EPS)

    def _muon(self, gradient: Tensor, momentum: Tensor) -> Tensor:
        momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp(momentum, MOMENTUM)  # Nesterov's
        for block in self.matrices:
            own = block.of(direction)
            scale = 0.2 * math.sqrt(max(block.shape))  # as large as AdamW's steps
            own.copy_(orthogonalized(own) * scale)
        return direction

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; the tensors themselves, not copies."""
        first, second = (self.layout.views(flat) for flat in (self.first, self.second))
        for block in self.matrices:
            for name in block.names:
                del second[name]
        return {"steps": self.steps, "first": first, "second": second}

    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned for the same parameters."""
        own = self.state()
        self.steps.copy_(state["steps"])
        for moment in ("first", "second"):
            for name, tensor in own[moment].items():
                tensor.copy_(state[moment][name])


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
