"""The one table of proxy tasks: kind -> class. Adding a task is one file and one row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsim.errors import unknown
from hybridsim.fields import parse_dataclass, require_mapping
from hybridsim.train.tasks.base import IGNORED, Batch, Split, Task
from hybridsim.train.tasks.compression import Compression
from hybridsim.train.tasks.forgetting import ForgettingRecall
from hybridsim.train.tasks.fuzzy_recall import FuzzyRecall
from hybridsim.train.tasks.grammar import GrammarModelling
from hybridsim.train.tasks.in_context_recall import InContextRecall
from hybridsim.train.tasks.memorization import Memorization
from hybridsim.train.tasks.mqar import MultiQueryRecall
from hybridsim.train.tasks.needle import Needle
from hybridsim.train.tasks.noisy_recall import NoisyRecall
from hybridsim.train.tasks.palindrome import Palindrome
from hybridsim.train.tasks.pointer_chase import PointerChase
from hybridsim.train.tasks.selective_copy import SelectiveCopy
from hybridsim.train.tasks.stacks import Stacks
from hybridsim.train.tasks.text import TextModelling
from hybridsim.train.tasks.variable_tracking import VariableTracking

__all__ = ["IGNORED", "TASKS", "Batch", "Split", "Task", "language_task", "parse_task"]

TASKS: dict[str, type[Task]] = {
    task.kind: task
    for task in (
        MultiQueryRecall,
        ForgettingRecall,
        InContextRecall,
        FuzzyRecall,
        NoisyRecall,
        SelectiveCopy,
        Compression,
        Memorization,
        Palindrome,
        Stacks,
        PointerChase,
        VariableTracking,
        Needle,
        GrammarModelling,
        TextModelling,
    )
}


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


def language_task(path: str | None, **settings: Any) -> Task:
    """Return language modelling on the bytes of a text, or on the built-in grammar without one."""
    return GrammarModelling(**settings) if path is None else TextModelling(path=path, **settings)
