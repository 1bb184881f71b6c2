"""The unit of training: some models on one task, with a checkpoint of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import torch

from hybridsim.fields import digest
from hybridsim.spec.parse import spec_dict
from hybridsim.train.curriculum import stages
from hybridsim.train.devices import device_title, is_out_of_memory
from hybridsim.train.population import Member
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.trainer import OUT_OF_MEMORY, Look, Outcome, Trainer


@final
@dataclass(frozen=True)
class Chunk:
    """Models that train together where memory takes them.

    Attributes:
        members: the models.
        task: the task's name in the proxy.
        what: what the ledger counts them under.
    """

    members: tuple[Member, ...]
    task: str
    what: str

    def tokens(self, proxy: ProxySettings) -> int:
        """Return the tokens of its models' trainings at most, a measure of how long they take."""
        training = proxy.task_training(self.task)
        parts = stages(proxy.task(self.task), training)
        length = sum((part.end - part.first) * part.task.length for part in parts)
        return len(self.members) * training.batch_size * length


@final
@dataclass
class Done:
    """What became of a chunk.

    Attributes:
        outcomes: of its members, in their order.
        wall_s: seconds that it took where it trained.
        notes: how steps ran.
        checkpoints: of its trainings, where they stay.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    wall_s: float = 0.0
    notes: set[str] = field(default_factory=set)
    checkpoints: list[Path] = field(default_factory=list)

    @property
    def lacked_memory(self) -> bool:
        """Whether a model of it did not fit."""
        return any(outcome.status == OUT_OF_MEMORY for outcome in self.outcomes)


@final
@dataclass(frozen=True)
class Setup:
    """What all chunks of a run share.

    Attributes:
        proxy: sizes, tasks, training.
        device: "cpu" or "cuda".
        folder: of checkpoints.
    """

    proxy: ProxySettings
    device: str
    folder: Path

    def checkpoint(self, members: Sequence[Member], task: str) -> Path:
        """Return the file of these trainings: the same command finds it again after a kill."""
        models = [[spec_dict(m.spec), m.seed, m.rate] for m in members]
        training = vars(self.proxy.task_training(task))
        key = digest([models, self.proxy.tasks[task], training, vars(self.proxy.model),
                      self.proxy.precision, self.device])  # fmt: skip
        return self.folder / f"{key}.pt"


@final
class ChunkTrainer:
    """Trains chunks in this process, one after the other.

    What did not fit once is halved from there on, in the chunks after it too.

    Args:
        setup: what they share.
    """

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._at_once: int | None = None  # models that memory takes; None: all so far

    def train(self, chunk: Chunk, on_look: Callable[[Look], None]) -> Done:
        """Return what became of a chunk; a model that does not fit alone is a failed one.

        Args:
            chunk: what to train.
            on_look: called after every validation.
        """
        done, started = Done(), time.perf_counter()
        while len(done.outcomes) < len(chunk.members):
            some = chunk.members[len(done.outcomes) :][: self._at_once]
            found = self._together(some, chunk.task, on_look, done)
            if found is not None:
                done.outcomes += found
            elif len(some) > 1:
                self._at_once = len(some) // 2
            else:
                title = device_title(self.setup.device)
                cause = f"one model does not fit into the memory of {title}"
                done.outcomes.append(Outcome(some[0], OUT_OF_MEMORY, cause=cause))
        done.wall_s = time.perf_counter() - started
        return done

    def _together(
        self, members: Sequence[Member], task: str, on_look: Callable[[Look], None], done: Done
    ) -> list[Outcome] | None:
        """Return the outcomes of models trained together, None where memory is too small."""
        setup = self.setup
        checkpoint = setup.checkpoint(members, task)
        try:
            trainer = Trainer(
                members,
                setup.proxy.task(task),
                name=task,
                training=setup.proxy.task_training(task),
                conv_size=setup.proxy.model.conv_size,
                device=setup.device,
                precision=str(setup.proxy.precision[setup.device]),
                checkpoint=checkpoint,
                on_look=on_look,
            )
            found = trainer.run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            checkpoint.unlink(missing_ok=True)
            if setup.device == "cuda":
                torch.cuda.empty_cache()
            return None
        done.notes |= trainer.notes
        done.checkpoints.append(checkpoint)
        return found
