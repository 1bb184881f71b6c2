"""Specs to quality profiles: twins, learning rates, populations, and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, final

from hybridsim.mixers import MixerSettings
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.chunk import Chunk, ChunkTrainer, Done, Setup
from hybridsim.train.overview import Overview
from hybridsim.train.population import Member
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.quality import QualityProfile, score_of
from hybridsim.train.rates import Rate, find_rates, model_rate
from hybridsim.train.scale import scale_spec
from hybridsim.train.trainer import Look, Outcome
from hybridsim.train.workers import close_pool, process_count, train_chunks

GRID = "learning rates"  # what the ledger calls the grid's trainings


@final
@dataclass
class Ledger:
    """What trainings took.

    Attributes:
        models: trained, the learning-rate grid's among them.
        failed: of these, those without a score.
        steps: optimizer steps of all models.
        tokens: tokens of all models.
        wall_s: seconds by task; the grid's under "learning rates". Tasks that train beside each
            other share the seconds as they do the processes.
        processes: that trained beside each other at most.
        notes: how steps ran: "eager" or "CUDA graph".
    """

    models: int = 0
    failed: int = 0
    steps: int = 0
    tokens: int = 0
    wall_s: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    notes: set[str] = field(default_factory=set)

    def add(
        self, chunks: Sequence[Chunk], done: Sequence[Done], wall_s: float, processes: int
    ) -> None:
        """Count some trainings.

        Args:
            chunks: that were trained.
            done: what became of each.
            wall_s: seconds from the first's start to the last's end.
            processes: that trained.
        """
        busy_s = sum(one.wall_s for one in done) or 1.0
        for chunk, one in zip(chunks, done, strict=True):
            self.models += len(one.outcomes)
            self.failed += sum(outcome.score is None for outcome in one.outcomes)
            self.steps += sum(outcome.steps for outcome in one.outcomes)
            self.tokens += sum(outcome.tokens for outcome in one.outcomes)
            share_s = wall_s * one.wall_s / busy_s
            self.wall_s[chunk.what] = self.wall_s.get(chunk.what, 0.0) + share_s
            self.notes |= one.notes
        self.processes = max(self.processes, processes)

    def document(self) -> dict[str, Any]:
        """Return the ledger as the record has it."""
        return {**vars(self), "wall_s": dict(self.wall_s), "notes": sorted(self.notes)}


@final
@dataclass(frozen=True)
class Trained:
    """One spec's result.

    Attributes:
        spec: the full model.
        twin: what was trained on the first task; other tasks' have their own tokens and lengths.
        rates: learning rates of its mixers by letter, of which all layers have the smallest.
        outcomes: of each task, one a seed.
        profile: the scores.
    """

    spec: ModelSpec
    twin: ModelSpec
    rates: dict[str, Rate]
    outcomes: dict[str, list[Outcome]]
    profile: QualityProfile


@final
class ProxyRun:
    """Trains specs at the sizes of a proxy.

    Checkpoints of finished trainings stay until `forget`: a command that is killed goes on with the
    first one that is not finished.

    Args:
        proxy: sizes, tasks, training, seeds.
        device: "cpu" or "cuda".
        folder: where checkpoints and learning rates are kept between runs.
        on_look: called after every validation, with how many steps are left in all.
        context_target: see `scale_spec`.
        rates_of: the proxy whose learning rates these models take; by default their own.
    """

    def __init__(
        self,
        proxy: ProxySettings,
        *,
        device: str,
        folder: Path,
        on_look: Callable[[Look], None] | None = None,
        context_target: int | None = None,
        rates_of: ProxySettings | None = None,
    ) -> None:
        self.rates_of = rates_of or proxy
        self.setup = Setup(proxy, device, folder / "checkpoints")
        self._finished: list[Path] = []
        self.proxy, self.device, self.folder = proxy, device, folder
        self.on_look, self.context_target = on_look, context_target
        self.ledger = Ledger()
        self.models_at_once = int(proxy.models_at_once[device])

    def train(
        self, specs: Sequence[ModelSpec], tasks: Sequence[str] | None = None
    ) -> list[Trained]:
        """Return the results of all specs, all trained together as far as memory goes.

        Args:
            specs: the full models.
            tasks: of the proxy, all where None; rates are measured on the proxy's first one anyway.
        """
        every = tuple(self.proxy.tasks)
        wanted = every if tasks is None else tasks
        twins = {task: self._twins(specs, task) for task in {every[0], *wanted}}
        first = twins[every[0]]
        rates = find_rates(
            first,
            self.rates_of,
            folder=self.folder / "learning_rates",
            device=self.device,
            train=self._train_grid,
        )
        taken = [model_rate(twin, rates) for twin in first]
        members = {
            task: [
                Member(twin, seed, rate)
                for twin, rate in zip(twins[task], taken, strict=True)
                for seed in range(self.proxy.seeds)
            ]
            for task in wanted
        }
        outcomes = self._train(members)
        return [
            self._trained(number, spec, twin, rates, outcomes)
            for number, (spec, twin) in enumerate(zip(specs, first, strict=True))
        ]

    def _twins(self, specs: Sequence[ModelSpec], task: str) -> list[ModelSpec]:
        target = self.context_target
        return [scale_spec(spec, self.proxy, task, context_target=target) for spec in specs]

    def _train_grid(self, members: list[Member], task: str) -> list[Outcome]:
        return self._train({task: members}, GRID)[task]

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

    def _train(
        self, members: Mapping[str, Sequence[Member]], what: str | None = None
    ) -> dict[str, list[Outcome]]:
        """Return the outcomes of each task's models; the ledger calls them `what`, or the task."""
        chunks = [
            Chunk(tuple(own[first:][: self.models_at_once]), task, what or task)
            for task, own in members.items()
            for first in range(0, len(own), self.models_at_once)
        ]
        done = self._done(chunks)
        outcomes: dict[str, list[Outcome]] = {task: [] for task in members}
        for chunk, one in zip(chunks, done, strict=True):
            outcomes[chunk.task] += one.outcomes
            self._finished += one.checkpoints
        return outcomes

    def _done(self, chunks: Sequence[Chunk]) -> list[Done]:
        """Return what became of chunks, trained in as many processes as are worth it."""
        started, processes = time.perf_counter(), process_count(self.setup, chunks)
        steps = [self.proxy.task_training(chunk.task).steps for chunk in chunks]
        overview = Overview(steps, self.on_look)
        done: dict[int, Done] = {}
        if processes > 1:
            for number, one in train_chunks(self.setup, chunks, processes, overview.look):
                overview.end(number)
                if not one.lacked_memory:  # alone in memory it may fit
                    done[number] = one
        if processes > 1 and len(done) < len(chunks):
            close_pool()  # whose processes hold memory
        trainers = {chunk.what: ChunkTrainer(self.setup) for chunk in chunks}
        for number, chunk in enumerate(chunks):
            if number not in done:
                look = partial(overview.look, number)
                done[number] = trainers[chunk.what].train(chunk, look)
                overview.end(number)
        found = [done[number] for number in range(len(chunks))]
        self.ledger.add(chunks, found, time.perf_counter() - started, processes)
        return found

    def forget(self) -> None:
        """Remove the checkpoints of what is finished."""
        while self._finished:
            self._finished.pop().unlink(missing_ok=True)
