"""What a job's result is worth: objectives and constraints, by path into its record or by value."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridsim.errors import HybridsimError, unknown
from search.worker import Outcome, TrialFailedError

DIRECTIONS = ("minimize", "maximize")
_BOUND = re.compile(r"(?P<sign><=|>=)\s*(?P<number>\S+)")


@dataclass(frozen=True)
class Bound:
    """A constraint: a number of the record that has to be at most, or at least, a limit."""

    path: str
    sign: str
    limit: float

    def excess(self, value: float) -> float:
        """Return by how much a value breaks the bound; at most 0 where it holds."""
        return value - self.limit if self.sign == "<=" else self.limit - value


@dataclass(frozen=True)
class Wanted:
    """What a sweep optimises.

    Attributes:
        directions: "minimize" or "maximize", one an objective.
        paths: of the objectives in the job's record; None for what the job returns.
        bounds: constraints on numbers of the record.
    """

    directions: tuple[str, ...]
    paths: tuple[str, ...] | None = None
    bounds: tuple[Bound, ...] = ()

    def outcome(self, returned: Any, record_file: Path) -> Outcome:
        """Return the values of a finished job.

        Args:
            returned: by the job.
            record_file: JSON that it may have left.

        Raises:
            TrialFailedError: there is no such number.
        """
        if self.paths is None and not self.bounds:
            return Outcome(_returned_numbers(returned))
        record = returned if isinstance(returned, Mapping) else _record(record_file)
        values = (
            _returned_numbers(returned)
            if self.paths is None
            else [_number(record, path) for path in self.paths]
        )
        broken = {b.path: b.excess(_number(record, b.path)) for b in self.bounds}
        return Outcome(values, broken)


def parse_wanted(
    direction: str | Sequence[str],
    objectives: Mapping[str, str] | None,
    constraints: Mapping[str, Any] | None,
) -> Wanted:
    """Return what the sweeper's settings ask for.

    Args:
        direction: of the number that jobs return, or of each of several.
        objectives: direction by path; then the directions of what is returned do not matter.
        constraints: `<= LIMIT` or `>= LIMIT` by path.

    Raises:
        HybridsimError: a direction or a limit is none.
    """
    returned = [direction] if isinstance(direction, str) else list(direction)
    directions = list(objectives.values()) if objectives else returned
    for found in directions:
        if found not in DIRECTIONS:
            key = "objectives" if objectives else "direction"
            raise unknown(f"hydra.sweeper.{key}", found, DIRECTIONS, "direction")
    return Wanted(
        tuple(directions),
        tuple(objectives) if objectives else None,
        tuple(_bound(path, limit) for path, limit in (constraints or {}).items()),
    )


def _bound(path: str, limit: Any) -> Bound:
    match = _BOUND.fullmatch(str(limit).strip())
    try:
        if match:
            return Bound(path, match["sign"], float(match["number"]))
    except ValueError:
        pass
    raise HybridsimError(
        f"hydra.sweeper.constraints.{path}={limit}: must be '<= NUMBER' or '>= NUMBER'"
    )


def _returned_numbers(returned: Any) -> list[float]:
    many = isinstance(returned, Sequence) and not isinstance(returned, str)
    return [_checked("the job's result", value) for value in (returned if many else [returned])]


def _record(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise TrialFailedError(f"objectives: the job left no {file.name}") from None


def _number(record: Any, path: str) -> float:
    """Return a number of a record, `points.0.decode.latency_s`."""
    found = record
    for word in path.split("."):
        try:
            found = found[int(word)] if isinstance(found, list) else found[word]
        except (KeyError, IndexError, TypeError, ValueError):
            known = f" (known: {', '.join(map(str, found))})" if isinstance(found, Mapping) else ""
            raise TrialFailedError(f"{path}: the record has no {word}{known}") from None
    return _checked(path, found)


def _checked(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise TrialFailedError(f"{name} is {value!r}, not a number")
    return float(value)
