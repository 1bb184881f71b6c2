"""The one table of proxy tasks: kind -> class. Adding a task is one file and one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsim.errors import unknown
from hybridsim.fields import parse_dataclass, require_mapping
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task
from hybridsim.train.tasks.mqar import MultiQueryRecall

__all__ = ["IGNORED", "TASKS", "Batch", "Split", "Task", "parse_task"]

TASKS: dict[str, type[Task]] = {task.kind: task for task in (MultiQueryRecall,)}


def parse_task(mapping: Mapping[str, Any], key: str = "task") -> Task:
    """Return the task that a mapping describes: its `kind`, and settings where they differ.

    Raises:
        SpecError: there is no such task, or a setting is wrong.
    """
    given = dict(require_mapping(mapping, key))
    kind = given.pop("kind", None)
    if kind not in TASKS:
        raise unknown(f"{key}.kind", kind, TASKS, "task")
    task: Task = parse_dataclass(TASKS[kind], given, key)
    return task
