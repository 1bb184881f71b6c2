"""When a task becomes as hard as it is: a few stages of easier versions. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from hybridsim.train.proxy import Training

if TYPE_CHECKING:
    from hybridsim.train.tasks import Task


@final
@dataclass(frozen=True)
class Stage:
    """Steps that train on one version of a task, so that all have tensors of one shape.

    Attributes:
        task: the version.
        first: its first step.
        end: the step after its last.
    """

    task: Task
    first: int
    end: int


def stages(task: Task, training: Training) -> list[Stage]:
    """Return the versions of a task in order, up to the last step; the last is the task itself.

    Progress grows in `curriculum_stages` equal stairs over `curriculum_steps`; stairs on which
    nothing changes are one.
    """
    count = training.curriculum_stages if training.curriculum_steps else 0
    found: list[Stage] = []
    for stair in range(count + 1):
        version = task if stair == count else task.curriculum(stair / count)
        first = stair * training.curriculum_steps // count if count else 0
        if found and found[-1].task == version:
            continue
        if first < training.steps:
            found.append(Stage(version, first, training.steps))
    ends = [stage.first for stage in found[1:]] + [training.steps]
    return [Stage(s.task, s.first, end) for s, end in zip(found, ends, strict=True)]


def rate_factor(step: int, training: Training) -> float:
    """Return the factor on the peak rate at a step: linear warm-up, constant, linear decay."""
    decay_steps = training.decay_share * training.steps
    up = (step + 1) / training.warmup_steps if step < training.warmup_steps else 1.0
    down = (training.steps - step) / decay_steps if decay_steps else 1.0
    return min(1.0, up, down)
