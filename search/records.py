"""Trials as rows: what each tried, what it found, at which fidelity. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hybridsim.spec.pattern import compress_pattern
from search.candidate import Candidate, parse_key
from search.evaluate import Evaluated
from search.objectives import Value
from search.quality import Scores

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

# User attributes of a trial.
KEY, FIDELITY, PROMOTED_FROM, BASELINE, RECORD = (
    "key",
    "fidelity",
    "promoted_from",
    "baseline",
    "record",
)


@dataclass(frozen=True)
class Tried:
    """A finished trial.

    Attributes:
        number: of the trial.
        candidate: what was tried.
        fidelity: index of the length of training.
        values: by objective.
        scores: by task.
        wall_s: its share of the time that its evaluation took.
        baseline: "ladder", "periodic" or "" for what the sampler proposed.
        promoted_from: the trial of the next shorter training, None for a first one.
    """

    number: int
    candidate: Candidate
    fidelity: int
    values: dict[str, Value]
    scores: Scores = field(default_factory=dict)
    wall_s: float = 0.0
    baseline: str = ""
    promoted_from: int | None = None


def record_of(evaluated: Evaluated, wall_s: float) -> dict[str, Any]:
    """Return what a trial keeps of its evaluation, as plain data."""
    return {
        "values": {name: asdict(value) for name, value in evaluated.values.items()},
        "scores": {name: asdict(value) for name, value in evaluated.scores.items()},
        "wall_s": wall_s,
    }


class Log:
    """The finished trials of a study; each is read once."""

    def __init__(self) -> None:
        self._known: dict[int, Tried] = {}

    def tried(self, trials: Iterable[FrozenTrial]) -> list[Tried]:
        """Return those among a study's trials that finished, in the order of their numbers."""
        for trial in trials:
            if trial.number not in self._known and _is_finished(trial):
                self._known[trial.number] = _tried(trial)
        return [self._known[number] for number in sorted(self._known)]


def _is_finished(trial: FrozenTrial) -> bool:
    return trial.state.name == "COMPLETE" and RECORD in trial.user_attrs


def _tried(trial: FrozenTrial) -> Tried:
    given = trial.user_attrs
    record = given[RECORD]
    return Tried(
        number=trial.number,
        candidate=parse_key(given[KEY]),
        fidelity=given.get(FIDELITY, 0),
        values=_values(record["values"]),
        scores=_values(record["scores"]),
        wall_s=record["wall_s"],
        baseline=given.get(BASELINE, ""),
        promoted_from=given.get(PROMOTED_FROM),
    )


def _values(mapping: Mapping[str, Any]) -> dict[str, Value]:
    return {name: Value(**fields) for name, fields in mapping.items()}


def best_known(found: Sequence[Tried]) -> list[Tried]:
    """Return each candidate once: its trial of the longest training."""
    longest: dict[Candidate, Tried] = {}
    for one in found:
        known = longest.get(one.candidate)
        if known is None or one.fidelity >= known.fidelity:
            longest[one.candidate] = one
    return list(longest.values())


def trial_rows(found: Sequence[Tried], changes: Mapping[Candidate, Any]) -> list[dict[str, Any]]:
    """Return one flat row a trial, for tables and for rebuilding it.

    Args:
        found: finished trials.
        changes: the fields that each candidate's options set.
    """
    return [
        {
            "trial": one.number,
            "layer_pattern": compress_pattern(one.candidate.letters),
            "layers": one.candidate.letters,
            "options": one.candidate.key.partition("|")[2],
            "changes": str(changes[one.candidate]) if changes[one.candidate] else "",
            "fidelity": one.fidelity,
            "promoted_from": one.promoted_from,
            "baseline": one.baseline,
            "wall_s": one.wall_s,
            **_flat("", one.values),
            **_flat("score_", one.scores),
        }
        for one in found
    ]


def _flat(prefix: str, values: Mapping[str, Value]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, value in values.items():
        made[f"{prefix}{name}"] = value.value
        made[f"{prefix}{name}_low"] = value.low
        made[f"{prefix}{name}_high"] = value.high
        made[f"{prefix}{name}_provenance"] = value.provenance
    return made
