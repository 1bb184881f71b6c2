"""Rows of a device that never was: a known law of times, with known noise."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hybridsim import load_spec
from hybridsim.dtypes import Dtypes
from hybridsim.measure.block import Block
from hybridsim.measure.plan import Task, sweep_tasks
from hybridsim.measure.point import Model, Point, key_dtypes
from hybridsim.measure.store import (
    Row,
    Session,
    Store,
    block_record,
    line,
    row_record,
    session_record,
)

BF16 = Dtypes()
SESSION = Session(
    id="h100-1",
    device="h100",
    title="NVIDIA H100 80GB HBM3",
    started="2026-01-01T00:00:00Z",
    versions={"torch": "1"},
    flops_per_s={"bf16": 7e14},
    bytes_per_s=2.9e12,
    memory_bytes=80 * 10**9,
)
MODEL = Model(SESSION.ceilings.hardware(), BF16)
LAUNCH_S = 6e-6  # of one op; the estimator assumes less


def truth_s(block: Block, point: Point) -> float:
    """The law: launches, and work that gets more efficient the more of it there is."""
    work = MODEL.work(block, point)
    size = work.bound_s / 1e-4
    efficiency = 0.45 + 0.4 * size / (1 + size)
    slower = 1.0 + 0.2 * (int(block.signature, 16) % 5)
    return slower * (work.num_ops * LAUNCH_S + work.bound_s / efficiency)


def a_row(block: Block, point: Point, latency_s: float, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "block": block.signature,
        "part": block.part,
        **asdict(point),
        "dtypes": key_dtypes(block, BF16),
        "session": SESSION.id,
        "backend": f"{block.part}: ours",
        "latency_s": latency_s,
    }
    return Row(**(values | changes))


def make_store(tasks: Iterable[Task], noise: float = 0.0, seed: int = 0) -> Store:
    draw, store = random.Random(seed), Store()
    store.add(session_record(SESSION))
    for task in tasks:
        store.add(block_record(task.block))
        time = truth_s(task.block, task.point) * math.exp(draw.gauss(0.0, noise))
        store.add(row_record(a_row(task.block, task.point, time, repeat=task.repeat)))
    return store


def sweep(*names: str) -> list[Task]:
    specs = [load_spec(name) for name in names]
    return sweep_tasks(specs, specs[:1], [], BF16, SESSION.memory_bytes)


def write_store(folder: Path, device: str, tasks: Iterable[Task], noise: float = 0.0) -> None:
    """Write rows where `HYBRIDSIM_MEASUREMENTS` points to."""
    records = make_store(tasks, noise).records()
    (folder / f"{device}.jsonl").write_text("".join(map(line, records)))
