"""Measuring many points: one block in memory at a time, every result on the disk at once."""

from __future__ import annotations

import gc
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hybridsim.dtypes import Dtypes
from hybridsim.errors import HybridsimError
from hybridsim.kernels import choice
from hybridsim.measure.block import Block
from hybridsim.measure.plan import Task, fits
from hybridsim.measure.point import DECODE, PASS_TOKENS, PREFILL, Model, Point, Work, key_dtypes
from hybridsim.measure.session import TORCH_DTYPES
from hybridsim.measure.store import (
    DOES_NOT_FIT,
    FAILED,
    OK,
    OUT_OF_MEMORY,
    TOO_SLOW,
    Journal,
    Row,
    Session,
    Store,
    block_record,
    row_record,
    session_record,
)
from hybridsim.measure.subject import Step, build_block, make_subject
from hybridsim.measure.timing import Captured, Subject, Timer, Timing, measure
from hybridsim.measure.warmup import tune
from hybridsim.model.quantize import wide_weights

CAPTURE_BELOW_S = 20e-3  # least time of a pass beyond which launches no longer matter
PASSES_SLOWER = 3.0  # than one pass, at worst: queries after a past need a mask
RUNNING = "running.json"  # what was being measured, for whoever finds the process dead
NOTE_CHARACTERS = 160


class DeviceLostError(HybridsimError):
    """The device answers no more in this process; what was measured is on the disk."""


@dataclass(frozen=True)
class Limits:
    """How long things may take.

    Attributes:
        cap_s: one run of a point; longer ones are marked, not run.
        sampling_s: the samples of a point.
        deadline: of the clock, after which nothing more begins; None for no end.
    """

    cap_s: float = 30.0
    sampling_s: float = 0.6
    deadline: float | None = None


def require_measurable(dtypes: Dtypes) -> None:
    """Raise HybridsimError for number formats that blocks cannot be built in."""
    weights = (*TORCH_DTYPES, "fp8")
    if dtypes.weights not in weights or dtypes.activations != dtypes.weights:
        raise HybridsimError(
            f"dtypes.weights={dtypes.weights}: measured are {', '.join(weights)},"
            f" with the same dtypes.activations (now {dtypes.activations})"
        )
    caches = ("bf16", "fp8") if dtypes.weights in ("bf16", "fp8") else (dtypes.weights,)
    if dtypes.kv not in caches:
        raise HybridsimError(
            f"dtypes.kv={dtypes.kv}: measured only as {' or '.join(caches)}"
            f" with dtypes.weights={dtypes.weights}"
        )
    if dtypes.state != "fp32":
        raise HybridsimError(f"dtypes.state={dtypes.state}: measured only as fp32")


def require_formats(dtypes: Dtypes, device: torch.device) -> None:
    """Raise HybridsimError where a device has no products or conversions of a format."""
    if "fp8" not in (dtypes.weights, dtypes.kv):
        return
    name = "dtypes.weights" if dtypes.weights == "fp8" else "dtypes.kv"
    wanted = "a CUDA device of compute capability 9.0 or more is needed"
    if device.type != "cuda":
        raise HybridsimError(f"{name}=fp8: {wanted}, device={device.type} has no fp8")
    capability = torch.cuda.get_device_capability(device)
    if capability < (9, 0):
        raise HybridsimError(f"{name}=fp8: {wanted}, here is {'.'.join(map(str, capability))}")
    if not choice.installed("triton"):
        raise HybridsimError(f"{name}=fp8: Triton is needed, whose kernels read fp8, and is absent")


class Bench:
    """Measures points one after the other and writes each down.

    Args:
        session: from `begin_session`.
        timer: of the session's device.
        journal: where rows go.
        store: what is there already; new rows are added.
        dtypes: number formats.
        limits: how long things may take.
        now: the clock of the deadline.
    """

    def __init__(
        self,
        session: Session,
        timer: Timer,
        journal: Journal,
        store: Store,
        dtypes: Dtypes,
        limits: Limits,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        require_measurable(dtypes)
        require_formats(dtypes, timer.device)
        self.session, self.timer, self.journal, self.store = session, timer, journal, store
        self.dtypes, self.limits, self.now = dtypes, limits, now
        self.model = Model(session.ceilings.hardware(), dtypes)
        self._module: tuple[Block, nn.Module] | None = None
        self._slowness: dict[tuple[Block, str], float] = {}
        self._tuned: set[Block] = set()
        self._write(session_record(session))

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        """Return the tasks that the store has no row for."""
        return [task for task in tasks if not self.store.has(self._key(task), self.session)]

    def run(self, tasks: Sequence[Task], done: Callable[[Task, Row], None]) -> None:
        """Measure the tasks in their order, as far as the deadline allows.

        Args:
            tasks: from `missing`.
            done: called with each task and its row.

        Raises:
            DeviceLostError: the device stopped working.
        """
        gc.freeze()  # what is there now stays: `_collect` need not look at it each time
        for task in tasks:
            if not self._in_time(task):
                continue
            self._mark_running(task)
            row = self._row(task)
            if task.block.signature not in self.store.blocks:
                self._write(block_record(task.block))
            self._write(row_record(row))
            self._running_path.unlink()
            done(task, row)
            if row.status == FAILED:
                self._require_device()
        self._release()

    def _in_time(self, task: Task) -> bool:
        if self.limits.deadline is None:
            return True
        left = self.limits.deadline - self.now()
        return left > self._expected_s(task.block, task.point)

    def _expected_s(self, block: Block, point: Point) -> float:
        """Return about how long a run takes, from the block's last run and the closed form."""
        slowness = self._slowness.get((block, point.phase), 1.0)
        return slowness * self.model.work(block, point).bound_s

    def _write(self, record: dict[str, Any]) -> None:
        self.journal.append(record)
        self.store.add(record)

    @property
    def _running_path(self) -> Path:
        return self.journal.path.with_name(RUNNING)

    def _mark_running(self, task: Task) -> None:
        row = self._marked(task, FAILED)
        temporary = self._running_path.with_suffix(".new")
        temporary.write_text(json.dumps(row_record(row)), encoding="utf-8")
        os.replace(temporary, self._running_path)

    def _key(self, task: Task) -> tuple[Any, ...]:
        return self._marked(task, OK).key

    def _marked(self, task: Task, status: str, note: str = "") -> Row:
        """Return a row without a time."""
        point = task.point
        return Row(
            block=task.block.signature,
            part=task.block.part,
            phase=point.phase,
            batch=point.batch,
            context=point.context,
            skew=point.skew,
            dtypes=key_dtypes(task.block, self.dtypes),
            repeat=task.repeat,
            session=self.session.id,
            status=status,
            note=note[:NOTE_CHARACTERS],
        )

    def _row(self, task: Task) -> Row:
        block, point = task.block, task.point
        if not fits(block, point, self.dtypes, self.session.memory_bytes):
            return self._marked(task, DOES_NOT_FIT)
        expected_s = self._expected_s(block, point)
        if expected_s > self.limits.cap_s:
            return self._marked(task, TOO_SLOW, f"about {expected_s:.0f} s")
        try:
            return self._timed(task, passes=False)
        except torch.OutOfMemoryError:
            return self._in_passes(task)
        except Exception as error:
            return self._marked(task, FAILED, _first_line(error))
        finally:
            self._collect()

    def _in_passes(self, task: Task) -> Row:
        """Return the row of a prompt that does not fit at once, taken piece by piece."""
        self._collect()
        long = task.point.phase == PREFILL and task.point.context > PASS_TOKENS
        expected_s = PASSES_SLOWER * self._expected_s(task.block, task.point)
        if not long or expected_s > self.limits.cap_s:
            return self._marked(task, OUT_OF_MEMORY)
        try:
            return self._timed(task, passes=True)
        except torch.OutOfMemoryError:
            return self._marked(task, OUT_OF_MEMORY)

    def _timed(self, task: Task, *, passes: bool) -> Row:
        block, point = task.block, task.point
        module = self._block_module(task)
        self._tune_once(module, task)
        choice.clear_report()
        if self.dtypes.weights == "fp8":
            for name in wide_weights(module):
                choice.note("bf16", name)
        step = make_subject(module, block, point, passes=passes, fp8_cache=self.dtypes.kv == "fp8")
        work = self.model.work(block, point)
        subject, mode = self._captured(step, work)
        known = (block, point.phase) in self._slowness
        timing = measure(
            subject,
            self.timer,
            limit_s=self.limits.sampling_s,
            warm=known and mode == "eager",
        )
        latency_s = timing.latency_s - (self.timer.overhead_s if mode == "graph" else 0.0)
        self._slowness[block, point.phase] = max(1.0, latency_s / work.bound_s)
        return self._finished(task, step, timing, latency_s, "passes" if passes else mode)

    def _captured(self, step: Step, work: Work) -> tuple[Subject, str]:
        """Return the step as a captured graph where launches could hide its time."""
        short = step.point.phase == DECODE or work.bound_s < CAPTURE_BELOW_S
        if self.timer.device.type != "cuda" or not short:
            return step, "eager"
        try:
            return Captured(step), "graph"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            # Some run waits for the device; its time includes its launches, and is marked so.
            torch.cuda.synchronize()
            return step, "eager"

    def _finished(self, task: Task, step: Step, timing: Timing, latency_s: float, mode: str) -> Row:
        work = self.model.work(task.block, task.point)
        row = self._marked(task, OK)
        values = {
            "latency_s": float(f"{latency_s:.4g}"),
            "spread": None if timing.spread is None else round(timing.spread, 4),
            "runs": timing.runs,
            "mode": mode,
            "backend": _backend(),
            "experts": None if step.experts is None else round(step.experts, 2),
            "flops_share": round(work.flops / latency_s / self._flops_per_s, 3),
            "bytes_share": round(work.moved_bytes / latency_s / self.session.bytes_per_s, 3),
        }
        return Row(**{**row.__dict__, **values})

    @property
    def _flops_per_s(self) -> float:
        return self.model.hardware.total_flops_per_s(self.dtypes.products)

    def _block_module(self, task: Task) -> nn.Module:
        """Return the block's module; a repetition has one of its own."""
        if self._module is None or self._module[0] != task.block or task.repeat:
            self._release()
            device = self.timer.device.type
            self._module = task.block, build_block(task.block, device, self.dtypes.weights)
        return self._module[1]

    def _tune_once(self, module: nn.Module, task: Task) -> None:
        gpu = self.timer.device.type == "cuda"
        if gpu and task.point.phase == PREFILL and task.block not in self._tuned:
            self._tuned.add(task.block)
            tune(module, task.block)
            self._collect()

    def _release(self) -> None:
        self._module = None
        self._collect()

    def _collect(self) -> None:
        """Give memory back, so that the next point finds as much as the first."""
        gc.collect()
        if self.timer.device.type == "cuda":
            torch.cuda.empty_cache()

    def _require_device(self) -> None:
        if self.timer.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize()
            torch.zeros(1, device="cuda").add_(1).item()
        except RuntimeError as error:
            raise DeviceLostError(f"device=cuda: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or repr(error)
    return f"{type(error).__name__}: {text.splitlines()[0]}"


def _backend() -> str:
    """Return which implementations ran since the report was cleared."""
    return "; ".join(f"{name}: {label}" for name, label in choice.report().items())
