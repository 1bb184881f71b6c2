"""A candidate's objectives: costs at once, qualities from a provider. No torch here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hybridsim.errors import SpecError
from search.candidate import Candidate
from search.costs import Counts
from search.objectives import QUALITY, TASK_SEPARATOR, TRAINED, Objective, Value
from search.quality import Quality, Scores, check_weights, weighted
from search.space import Space


@dataclass(frozen=True)
class Evaluated:
    """What is known of a candidate.

    Attributes:
        values: by objective.
        scores: by task, empty where nothing is trained.
    """

    values: dict[str, Value]
    scores: Scores = field(default_factory=dict)


class Evaluator:
    """Evaluates candidates of a space.

    Args:
        space: whose candidates.
        objectives: what is wanted.
        quality: gives what is trained; None where nothing is.
        weights: of the tasks in the weighted quality; empty for all alike.

    Raises:
        SpecError: an objective needs a quality that there is none of.
    """

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        quality: Quality | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        self.space, self.objectives, self.quality = space, list(objectives), quality
        self.trained = [o for o in self.objectives if o.cost_class == TRAINED]
        self._check_trained()
        tasks = () if quality is None else quality.tasks
        self.weights = check_weights(weights or {}, tasks) if self.trained else {}
        self.class_costs = lru_cache(maxsize=None)(self._class_costs)

    def _check_trained(self) -> None:
        if self.trained and self.quality is None:
            raise SpecError(
                f"objectives: {self.trained[0].name} needs quality=proxy or quality=surrogate"
            )
        for objective in self.trained:
            task = objective.name.partition(TASK_SEPARATOR)[2]
            if task and self.quality is not None and task not in self.quality.tasks:
                raise SpecError(
                    f"objectives={objective.name}: no such task"
                    f" (known: {', '.join(self.quality.tasks)})"
                )

    @property
    def num_fidelities(self) -> int:
        """How many lengths of training there are; 1 where nothing is trained."""
        return len(self.quality.fidelities) if self.trained and self.quality is not None else 1

    def costs(self, candidate: Candidate) -> dict[str, Value]:
        """Return the objectives that need no training."""
        return self.class_costs(candidate.options, self.space.counts(candidate.letters))

    def _class_costs(self, options: tuple[int, ...], counts: Counts) -> dict[str, Value]:
        serving = self.space.costs(options).serving(counts)
        workload = self.space.serve.workload
        return {
            o.name: o.compute(serving, workload) for o in self.objectives if o.compute is not None
        }

    def evaluate(self, candidates: Sequence[Candidate], fidelity: int = 0) -> list[Evaluated]:
        """Return all objectives of several candidates, trained together."""
        scores: list[Scores] = [{} for _ in candidates]
        if self.trained and self.quality is not None:
            scores = self.quality.scores(candidates, fidelity)
        return [self._joined(c, s) for c, s in zip(candidates, scores, strict=True)]

    def _joined(self, candidate: Candidate, scores: Scores) -> Evaluated:
        costs = self.costs(candidate)
        values = {o.name: costs.get(o.name) or self._trained(o, scores) for o in self.objectives}
        return Evaluated(values, scores)

    def _trained(self, objective: Objective, scores: Scores) -> Value:
        if objective.name == QUALITY:
            return weighted(scores, self.weights)
        return scores[objective.name.partition(TASK_SEPARATOR)[2]]
