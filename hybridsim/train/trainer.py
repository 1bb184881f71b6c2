"""Trains a population on one task, from the first step or from a checkpoint, to its scores."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from hybridsim.train.checkpoint import read_checkpoint, write_checkpoint
from hybridsim.train.curriculum import rate_factor, stages
from hybridsim.train.data import Examples, TrainingData, held_out
from hybridsim.train.population import Member, Population
from hybridsim.train.proxy import Training
from hybridsim.train.step import CapturedStep, PopulationStep
from hybridsim.train.tasks import Task

TRAINED, LEARNT, DIVERGED, OUT_OF_MEMORY = "trained", "learnt", "diverged", "out_of_memory"
VALIDATION, TEST = 0, 1  # which held-out sequences
SEQUENCES_AT_ONCE = 64  # of an evaluation


@final
@dataclass
class Outcome:
    """What became of one model.

    Attributes:
        member: the model.
        status: "trained" (to the last step), "learnt" (stopped at the score that is enough),
            "diverged" or "out_of_memory".
        score: mean held-out score over the test sequences; None without a trained model.
        loss: mean cross entropy over all targets of the same sequences, nats.
        steps: optimizer steps taken.
        tokens: tokens trained on.
        curve: rows of step, loss (training, nats a target) and score (validation; None between
            looks).
        cause: why there is no score.
    """

    member: Member
    status: str = TRAINED
    score: float | None = None
    loss: float | None = None
    steps: int = 0
    tokens: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    cause: str = ""


@final
@dataclass(frozen=True)
class Look:
    """What a progress bar may show after a validation, of one population or of many.

    Attributes:
        task: the task's name.
        step: steps done.
        steps: steps at most.
        best: best validation score of the models.
        training: models still training.
    """

    task: str
    step: int
    steps: int
    best: float
    training: int


@final
class Trainer:
    """Trains models of one shape on one task.

    Args:
        members: the models.
        task: what they learn.
        name: the task's name in results.
        training: how.
        conv_size: of the convolution on each layer's input.
        device: where.
        precision: of matrix products.
        checkpoint: file to go on from and to write at every look; None for none.
        on_look: called after every validation.
    """

    def __init__(
        self,
        members: Sequence[Member],
        task: Task,
        *,
        name: str,
        training: Training,
        conv_size: int,
        device: torch.device | str,
        precision: str = "fp32",
        checkpoint: Path | None = None,
        on_look: Callable[[Look], None] | None = None,
    ) -> None:
        self.task, self.name, self.training = task, name, training
        self.conv_size, self.device = conv_size, torch.device(device)
        self.precision = precision
        self.checkpoint, self.on_look = checkpoint, on_look
        self.outcomes = [Outcome(member) for member in members]
        self.active = list(range(len(members)))  # of the outcomes, those still training
        self.placed = self.active  # and those whose models are there, with some that are done
        self.at = 0  # steps done
        self.wall_s = 0.0
        self.notes: set[str] = set()
        self._losses: list[Tensor] = []  # since the last look, [M] each
        self._place(self.placed)

    def _place(self, chosen: list[int]) -> None:
        """Build the models of some outcomes, to train."""
        self.placed = chosen
        members = [self.outcomes[i].member for i in chosen]
        population = Population(members, self.conv_size, self.device, reads_at=self.task.reads_at)
        self.step = PopulationStep(population, self.training, self.precision)
        self.seeds = sorted({member.seed for member in members})
        rows = [self.seeds.index(member.seed) for member in members]
        self.rows = torch.tensor(rows, device=self.device)
        self._validation: Examples | None = None

    def run(self) -> list[Outcome]:
        """Return the outcomes of all models, in their order."""
        with matrix_products(self.precision), one_thread(self.device):
            self._resume()
            for stage in stages(self.task, self.training):
                self._run_stage(stage.task, max(stage.first, self.at), stage.end)
            self._finish(self._places(self.active), TRAINED)
        if self.active:
            self.active = []  # what is kept of a finished training is its outcomes
            self._save()
        return self.outcomes

    def _run_stage(self, task: Task, first: int, end: int) -> None:
        data, taken = self._data(task), self._captured()
        for step in range(first, end):
            if not self.active:
                return
            started = time.perf_counter()
            self.step.factor.fill_(rate_factor(step, self.training))
            batch = data.batch(step)
            taken(*(tensor.index_select(0, self.rows) for tensor in batch))
            self._losses.append(self.step.losses.clone())
            self._count(task)
            self.at = step + 1
            if self.at % self.training.evaluate_every == 0 or self.at == self.training.steps:
                if self._look():
                    self._note_how(taken)
                    data, taken = self._data(task), self._captured()
                self.wall_s += time.perf_counter() - started
                self._save()
            else:
                self.wall_s += time.perf_counter() - started
        self._note_how(taken)

    def _note_how(self, taken: CapturedStep) -> None:
        if taken.note:
            self.notes.add(taken.note)

    def _data(self, task: Task) -> TrainingData:
        return TrainingData(task, self.seeds, self.training.batch_size, self.device)

    def _captured(self) -> CapturedStep:
        return CapturedStep(self.step)

    def _count(self, task: Task) -> None:
        for i in self.active:
            self.outcomes[i].steps += 1
            self.outcomes[i].tokens += self.training.batch_size * task.length

    def _places(self, chosen: Sequence[int]) -> list[int]:
        """Return where the models of some outcomes are among those that are there."""
        return [self.placed.index(i) for i in chosen]

    def _look(self) -> bool:
        """Validate, note the curves, end models that are done; return whether others moved."""
        if self._validation is None:
            size = self.training.validation_size
            self._validation = held_out(self.task, self.seeds, size, VALIDATION, self.device)
        scores = self.scores(self._validation)[0].tolist()
        losses = torch.stack(self._losses, dim=1).tolist()
        self._losses = []
        diverged = self.step.diverged.tolist()
        training = self._places(self.active)
        for place in training:
            score = None if diverged[place] else scores[place]
            self._note(self.outcomes[self.placed[place]], losses[place], score)
        learnt = [n for n in training if scores[n] >= self.training.stop_at and not diverged[n]]
        failed = [n for n in training if diverged[n]]
        self._finish(learnt, LEARNT)
        for place in failed:
            outcome = self.outcomes[self.placed[place]]
            outcome.status = DIVERGED
            outcome.cause = f"loss or gradient not finite by step {self.at}"
        done = {self.placed[place] for place in (*learnt, *failed)}
        self.active = [i for i in self.active if i not in done]
        if self.on_look is not None:
            best = max((scores[n] for n in training if n not in failed), default=0.0)
            look = Look(self.name, self.at, self.training.steps, best, len(self.active))
            self.on_look(look)
        return self._let_go()

    def _note(self, outcome: Outcome, losses: Sequence[float], score: float | None) -> None:
        """Add the steps since the last look to a curve."""
        first = self.at - len(losses) + 1
        rows = [{"step": first + n, "loss": x, "score": None} for n, x in enumerate(losses)]
        rows[-1]["score"] = score
        outcome.curve += rows

    def _finish(self, chosen: list[int], status: str) -> None:
        """Score models, by their places, on the test sequences."""
        if not chosen:
            return
        test = held_out(self.task, self.seeds, self.training.test_size, TEST, self.device)
        scores, losses = (found.tolist() for found in self.scores(test))
        for n in chosen:
            outcome = self.outcomes[self.placed[n]]
            outcome.status, outcome.score, outcome.loss = status, scores[n], losses[n]

    def _let_go(self) -> bool:
        """Leave models that are done alone, and be rid of them once they are half of all.

        To build the others anew, and their step, takes longer than to carry some along.
        """
        if 2 * len(self.active) > len(self.placed):
            self.step.leave_all_but(self._places(self.active))
            return False
        if self.active:
            before, kept = self.step, self._places(self.active)
            self._place(self.active)
            self.step.take_over(before, kept)
        return True

    @torch.no_grad()
    def scores(self, examples: Examples) -> tuple[Tensor, Tensor]:
        """Return mean score and mean loss of each active model on examples, [M] each."""
        count = examples.tokens.shape[1]
        scores, losses = [], []
        for start in range(0, count, SEQUENCES_AT_ONCE):
            part = slice(start, start + SEQUENCES_AT_ONCE)
            tokens, positions, targets, answers = (
                tensor.index_select(0, self.rows)[:, part]
                for tensor in (
                    examples.tokens, examples.positions, examples.targets, examples.answers
                )
            )  # fmt: skip
            predicted = self.step.predictions(tokens, positions)
            full = torch.full_like(answers, -1).scatter(-1, positions, predicted)
            found = self.task.score(full.flatten(0, 1), answers.flatten(0, 1))
            scores.append(found.view(answers.shape[:2]))
            losses.append(self.step.model_losses(tokens, positions, targets) * tokens.shape[1])
        return torch.cat(scores, dim=1).nanmean(1), torch.stack(losses).sum(0) / count

    def _save(self) -> None:
        if self.checkpoint is None:
            return
        document = {
            "at": self.at,
            "active": self.active,
            "placed": self.placed,
            "wall_s": self.wall_s,
            "outcomes": [
                {k: v for k, v in vars(outcome).items() if k != "member"}
                for outcome in self.outcomes
            ],
            "step": self.step.state() if self.active else None,
        }
        write_checkpoint(self.checkpoint, document)

    def _resume(self) -> None:
        found = read_checkpoint(self.checkpoint, self.device)
        if found is None:
            return
        for outcome, kept in zip(self.outcomes, found["outcomes"], strict=True):
            vars(outcome).update(kept)
        self.at, self.wall_s, self.active = found["at"], found["wall_s"], found["active"]
        if self.active:
            self._place(found["placed"])
            self.step.load(found["step"])


@contextmanager
def matrix_products(precision: str) -> Iterator[None]:
    """Round float32 products to TF32 inside, where that is the precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def one_thread(device: torch.device) -> Iterator[None]:
    """Let a CPU's products run on one thread inside.

    They are too small to share: two threads are no faster alone, and many times slower beside
    another program. Two processes use two cores.
    """
    before = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
