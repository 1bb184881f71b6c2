"""One optimizer step of a population: forward, losses, gradients, clipping, update."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, final

import torch
import torch.nn.functional as F
from torch import Tensor

from hybridsim.train.optim import StackedOptimizer
from hybridsim.train.population import Population
from hybridsim.train.proxy import Training
from hybridsim.train.tasks import IGNORED
from hybridsim.train.twin import is_output

# Before a step is captured: libraries must have made their workspaces, after which one does.
EAGER_STEPS, LATER_EAGER_STEPS = 3, 1


@final
class PopulationStep:
    """Trains all models of a population by one batch each.

    A model whose loss or gradient is not finite has diverged: from then on its rate is 0. What a
    step changes lives in tensors that stay where they are, so that a CUDA graph can hold it.

    Args:
        population: the models.
        training: optimizer and clipping.
        precision: "fp32", "tf32" or "bf16" of matrix products.
    """

    def __init__(self, population: Population, training: Training, precision: str) -> None:
        self.population = population
        self.training = training
        self.precision = precision
        self.optimizer = StackedOptimizer(
            population.flat,
            population.layout,
            {name: _rates(population, name, training) for name in population.parameters},
            muon=training.optimizer == "muon",
            weight_decay=training.weight_decay,
        )
        count, device = len(population.members), population.device
        self.factor = torch.ones((), device=device)  # of the schedule
        self.trains = torch.ones(count, device=device)  # 0 once a model has stopped or diverged
        self.diverged = torch.zeros(count, dtype=torch.bool, device=device)
        self.losses = torch.zeros(count, device=device)

    def __call__(self, tokens: Tensor, positions: Tensor, targets: Tensor) -> None:
        """Take a step; `losses` then holds the models' mean losses [M], in nats a target.

        Args:
            tokens: [M, B, T].
            positions: [M, B, n].
            targets: [M, B, n].
        """
        losses = self.model_losses(tokens, positions, targets)
        # (An indexer that chooses tokens has no gradient of the loss: zeros, it keeps its weights.)
        (gradient,) = torch.autograd.grad(losses.sum(), [self.population.flat])
        self.population.join()
        layout = self.population.layout
        norms = layout.norms(gradient)
        finite = losses.isfinite() & norms.isfinite()
        self.diverged.logical_or_(~finite & (self.trains > 0))
        self.trains.mul_(finite)
        self.losses.copy_(losses.detach())
        clip = (self.training.clip / norms.clamp(min=self.training.clip)).nan_to_num(0.0)
        clipped = (gradient * layout.spread(layout.of_rows(clip))).nan_to_num(0.0, 0.0, 0.0)
        self.optimizer.step(clipped, self.trains * self.factor)

    def model_losses(self, tokens: Tensor, positions: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross entropy of each model, [M], in nats."""
        with self.products():
            logits = self.population.logits(tokens, positions)
        flat = F.cross_entropy(
            logits.float().flatten(0, 2),
            targets.flatten(),
            ignore_index=IGNORED,
            reduction="none",
        ).view(targets.shape)
        counted = (targets != IGNORED).sum((1, 2)).clamp(min=1)
        return flat.sum((1, 2)) / counted

    @torch.no_grad()
    def predictions(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return the likeliest tokens [M, B, n] at positions."""
        with self.products():
            return self.population.logits(tokens, positions).argmax(-1)

    def products(self) -> AbstractContextManager[object]:
        """Return the context in which matrix products have the precision."""
        if self.precision != "bf16":
            return nullcontext()
        return torch.autocast(self.population.device.type, dtype=torch.bfloat16)

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; the tensors themselves, not copies."""
        return {
            "parameters": dict(self.population.parameters),
            "optimizer": self.optimizer.state(),
            "trains": self.trains,
            "diverged": self.diverged,
        }

    @torch.no_grad()
    def load(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned for the same models."""
        for name, parameter in self.population.parameters.items():
            parameter.copy_(state["parameters"][name])
        self.optimizer.load(state["optimizer"])
        self.trains.copy_(state["trains"])
        self.diverged.copy_(state["diverged"])

    def leave_all_but(self, kept: list[int]) -> None:
        """Train only some of the models that still do from here on."""
        mask = torch.zeros_like(self.trains)
        mask[kept] = 1.0
        self.trains.mul_(mask)

    def take_over(self, before: PopulationStep, kept: list[int]) -> None:
        """Go on from where some of the models of another step are.

        Args:
            before: the step of all of them.
            kept: for each model here, its number there.
        """
        theirs, ours = before.population, self.population
        optimizer = before.optimizer.state()
        self.load(
            {
                "parameters": ours.picked(theirs, theirs.parameters, kept),
                "optimizer": {
                    "steps": optimizer["steps"],
                    "first": ours.picked(theirs, optimizer["first"], kept),
                    "second": ours.picked(theirs, optimizer["second"], kept),
                },
                "trains": before.trains[kept],
                "diverged": before.diverged[kept],
            }
        )


def _rates(population: Population, name: str, training: Training) -> list[float]:
    """Return the peak rates of a parameter's models."""
    share = training.output_rate_share if is_output(name) else 1.0
    return [share * rate for rate in population.rates(name)]


@final
class CapturedStep:
    """A step as a CUDA graph: a few launches instead of thousands.

    The first steps run as they are, and train; then one is captured, and replayed from there on. A
    step that cannot be captured goes on as it is, and `note` says why.

    Args:
        step: what to capture.
    """

    _has_captured = False  # this process

    def __init__(self, step: PopulationStep) -> None:
        self.step = step
        self._eager_steps = LATER_EAGER_STEPS if self._has_captured else EAGER_STEPS
        self.note = ""  # how steps ran: none yet
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._taken = 0
        self._captures = step.population.device.type == "cuda"

    def __call__(self, *batch: Tensor) -> None:
        """Take a step on a batch whose shapes are those of every batch before."""
        self.note = self.note or "eager"
        if not self._captures:
            return self.step(*batch)
        if self._inputs:
            for kept, given in zip(self._inputs, batch, strict=True):
                kept.copy_(given)
        else:
            self._inputs = tuple(tensor.clone() for tensor in batch)
        self._taken += 1
        if self._graph is not None:
            return self._graph.replay()
        if self._taken <= self._eager_steps:
            return self._on_side_stream(lambda: self.step(*self._inputs))
        self._capture()
        return self._graph.replay() if self._graph is not None else self.step(*self._inputs)

    def _on_side_stream(self, work: Callable[[], None]) -> None:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work()
        torch.cuda.current_stream().wait_stream(stream)

    def _capture(self) -> None:
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                self.step(*self._inputs)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._captures = False
            self.note = f"eager: {' '.join(str(error).split())[:200]}"
            torch.cuda.synchronize()
        else:
            self._graph, self.note = graph, "CUDA graph"
            CapturedStep._has_captured = True
