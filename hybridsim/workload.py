"""What a model is used for: how long prompts and answers are, how many at once. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hybridsim.components import require_positive
from hybridsim.errors import bad_value
from hybridsim.fields import parse_dataclass


@dataclass(frozen=True)
class Workload:
    """One use of a model.

    Attributes:
        name: how commands call it.
        title: how tables call it.
        prompt_tokens: tokens read before the first answer token.
        output_tokens: tokens of the answer.
        concurrency: sequences decoded together.
        context_target: tokens that the model must be able to hold.
        quality_weights: how much each task of a proxy counts, by its name in conf/proxy; a proxy's
            other tasks count for nothing, and weights of tasks it has not are left out.
        source: where the sizes come from.
    """

    name: str
    title: str
    prompt_tokens: int
    output_tokens: int
    concurrency: int
    context_target: int
    quality_weights: dict[str, float] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        require_positive(
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            concurrency=self.concurrency,
            context_target=self.context_target,
        )
        for task, weight in self.quality_weights.items():
            require_positive(**{f"quality_weights.{task}": weight})
        if self.context_target < self.total_tokens:
            raise bad_value(
                "context_target",
                self.context_target,
                f"must be at least prompt_tokens + output_tokens = {self.total_tokens}",
            )

    @property
    def total_tokens(self) -> int:
        """Tokens in the cache when the answer is complete."""
        return self.prompt_tokens + self.output_tokens


def parse_workload(mapping: Mapping[str, Any]) -> Workload:
    """Return the workload that a mapping describes; SpecError for anything wrong."""
    workload: Workload = parse_dataclass(Workload, mapping, "workload")
    return workload
