"""Specs to quality profiles: twins, learning rates, populations, and what it took."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch

from hybridsim.errors import HybridsimError
from hybridsim.mixers import MixerSettings
from hybridsim.spec.parse import spec_dict
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.population import Member
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.quality import QualityProfile, score_of
from hybridsim.train.rates import Rate, digest, find_rates, layer_rates
from hybridsim.train.scale import scale_spec
from hybridsim.train.trainer import OUT_OF_MEMORY, Look, Outcome, Trainer

DEVICES = ("auto", "cpu", "cuda")


@final
@dataclass
class Ledger:
    """What trainings took.

    Attributes:
        models: trained, the learning-rate grid's among them.
        failed: of these, those without a score.
        steps: optimizer steps of all models.
        tokens: tokens of all models.
        wall_s: seconds by task; the grid's under "learning rates".
        notes: how steps ran: "eager" or "CUDA graph".
    """

    models: int = 0
    failed: int = 0
    steps: int = 0
    tokens: int = 0
    wall_s: dict[str, float] = field(default_factory=dict)
    notes: set[str] = field(default_factory=set)

    def add(self, outcomes: Sequence[Outcome], what: str, wall_s: float) -> None:
        """Count some trainings."""
        self.models += len(outcomes)
        self.failed += sum(outcome.score is None for outcome in outcomes)
        self.steps += sum(outcome.steps for outcome in outcomes)
        self.tokens += sum(outcome.tokens for outcome in outcomes)
        self.wall_s[what] = self.wall_s.get(what, 0.0) + wall_s

    def document(self) -> dict[str, Any]:
        """Return the ledger as the record has it."""
        return {**vars(self), "wall_s": dict(self.wall_s), "notes": sorted(self.notes)}


@final
@dataclass(frozen=True)
class Trained:
    """One spec's result.

    Attributes:
        spec: the full model.
        twin: what was trained.
        rates: learning rates of its mixers by letter.
        outcomes: of each task, one a seed.
        profile: the scores.
    """

    spec: ModelSpec
    twin: ModelSpec
    rates: dict[str, Rate]
    outcomes: dict[str, list[Outcome]]
    profile: QualityProfile


def pick_device(wanted: str) -> str:
    """Return "cpu" or "cuda"; "auto" takes a GPU where there is one.

    Raises:
        HybridsimError: no such device here.
    """
    if wanted not in DEVICES:
        raise HybridsimError(f"device={wanted}: no such device (known: {', '.join(DEVICES)})")
    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise HybridsimError("device=cuda: torch sees no CUDA device here")
    return "cuda" if there and wanted != "cpu" else "cpu"


@final
class ProxyRun:
    """Trains specs at the sizes of a proxy.

    Args:
        proxy: sizes, tasks, training, seeds.
        device: "cpu" or "cuda".
        folder: where checkpoints and learning rates are kept between runs.
        on_look: called after every validation, with how many steps are left in all.
        context_target: see `scale_spec`.
        keep_finished: whether checkpoints of finished trainings stay, for a command of many of
            them: killed, it goes on with the first that is not finished. `forget` removes them.
    """

    def __init__(
        self,
        proxy: ProxySettings,
        *,
        device: str,
        folder: Path,
        on_look: Callable[[Look], None] | None = None,
        context_target: int | None = None,
        keep_finished: bool = False,
    ) -> None:
        self._keep_finished = keep_finished
        self._finished: list[Path] = []
        self.proxy, self.device, self.folder = proxy, device, folder
        self.on_look, self.context_target = on_look, context_target
        self.ledger = Ledger()
        self.models_at_once = int(proxy.models_at_once[device])

    def train(self, specs: Sequence[ModelSpec]) -> list[Trained]:
        """Return the results of all specs, all trained together as far as memory goes."""
        twins = [scale_spec(s, self.proxy, context_target=self.context_target) for s in specs]
        rates = find_rates(
            twins,
            self.proxy,
            folder=self.folder / "learning_rates",
            device=self.device,
            train=lambda members, task: self.train_task(members, task, "learning rates"),
        )
        seeds = range(self.proxy.seeds)
        members = [Member(t, seed, layer_rates(t, rates)) for t in twins for seed in seeds]
        outcomes = {task: self.train_task(members, task, task) for task in self.proxy.tasks}
        return [
            self._trained(number, spec, twin, rates, outcomes)
            for number, (spec, twin) in enumerate(zip(specs, twins, strict=True))
        ]

    def _trained(
        self,
        number: int,
        spec: ModelSpec,
        twin: ModelSpec,
        rates: dict[MixerSettings, Rate],
        outcomes: dict[str, list[Outcome]],
    ) -> Trained:
        count = self.proxy.seeds
        own = {task: found[number * count :][:count] for task, found in outcomes.items()}
        scores = {
            task: score_of([o.score for o in found], self.proxy.task(task).chance)
            for task, found in own.items()
        }
        by_letter = {letter: rates[twin.mixers[letter]] for letter in twin.mixers}
        return Trained(spec, twin, by_letter, own, QualityProfile(scores))

    def train_task(self, members: list[Member], name: str, what: str) -> list[Outcome]:
        """Return the outcomes of models on one task, as many at once as memory takes."""
        outcomes: list[Outcome] = []
        at_once = self.models_at_once
        while len(outcomes) < len(members):
            some = members[len(outcomes) :][:at_once]
            started = time.perf_counter()
            found = self._together(some, name)
            if found is not None:
                self.ledger.add(found, what, time.perf_counter() - started)
                outcomes += found
            elif len(some) > 1:
                at_once = len(some) // 2
            else:
                cause = f"one model does not fit into the memory of {device_title(self.device)}"
                outcomes.append(Outcome(some[0], OUT_OF_MEMORY, cause=cause))
                self.ledger.add(outcomes[-1:], what, time.perf_counter() - started)
        return outcomes

    def _together(self, members: list[Member], name: str) -> list[Outcome] | None:
        """Return the outcomes of models trained together, None where memory is too small."""
        checkpoint = self._checkpoint(members, name)
        try:
            trainer = Trainer(
                members,
                self.proxy.task(name),
                name=name,
                training=self.proxy.task_training(name),
                conv_size=self.proxy.model.conv_size,
                device=self.device,
                precision=str(self.proxy.precision[self.device]),
                checkpoint=checkpoint,
                on_look=self.on_look,
            )
            found = trainer.run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            found = None
        else:
            self.ledger.notes |= trainer.notes
        if found is not None and self._keep_finished:
            self._finished.append(checkpoint)
        else:
            checkpoint.unlink(missing_ok=True)
        if found is None and self.device == "cuda":
            torch.cuda.empty_cache()
        return found

    def forget(self) -> None:
        """Remove the checkpoints of what is finished."""
        while self._finished:
            self._finished.pop().unlink(missing_ok=True)

    def _checkpoint(self, members: Sequence[Member], name: str) -> Path:
        """Return the file of these trainings: the same command finds it again after a kill."""
        models = [[spec_dict(m.spec), m.seed, m.rates] for m in members]
        training = vars(self.proxy.task_training(name))
        key = digest([models, self.proxy.tasks[name], training, vars(self.proxy.model),
                      self.proxy.precision, self.device])  # fmt: skip
        return self.folder / "checkpoints" / f"{key}.pt"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory is too small; on a CPU torch has only the text."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    told = any(text in str(error).lower() for text in texts)
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or told


def device_title(device: str) -> str:
    """Return what people call the device that trains."""
    if device == "cuda":
        return str(torch.cuda.get_device_name())
    return f"CPU ({platform.machine()}), one thread"
