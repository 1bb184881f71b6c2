"""The trials of a search as flat rows: frontier, all candidates, published designs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hybridsim.report.html.letters import FULL, Letters, meanings
from hybridsim.report.html.runs import Record, Run
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec

KINDS = {"s": "seconds", "B": "bytes", "tokens/s": "count", "USD": "usd"}
ENDS = ("", "_low", "_high", "_provenance")
FRONT, PLAIN, TRIED = "frontier", "plain pattern", "tried"
MAX_TRIALS = 4000  # on the page; the files have all
# Where published hybrids have full attention: who, every so many layers, and which of them.
CADENCES = (
    ("3:1 as Qwen3-Next", 4, 3),
    ("7:1 as MiniMax-M1", 8, 7),
    ("7:1 as Jamba", 8, 4),
    ("full as MiniMax-M2", 1, 0),
)


class StudyRows:
    """A study's record and the tables beside it.

    Args:
        run: the record, schema `hybridsim/search/1`.
    """

    def __init__(self, run: Run) -> None:
        document = run.document
        self.name = str(document["study"])
        self.objectives = [_objective(o) for o in document["objectives"]]
        self.base = _base(run)
        self.letters: Letters = meanings(self.base) if self.base is not None else {}
        self.frontier = [self._front_row(row) for row in document["frontier"]]
        self.trials = self._trials(run.rows("trials"))

    def _full_layers(self, letters: str) -> int:
        return sum(self.letters.get(letter, {}).get("role") == FULL for letter in letters)

    def _front_row(self, row: Record) -> Record:
        """Return a design flat: NAME, NAME_low, NAME_high, NAME_provenance for each objective."""
        letters = str(row["layers"])
        flat = {"trial": row["trial"], "layers": letters, "ratio": row.get("ratio", "")}
        flat |= {"changes": _changes(row.get("changes")), "probability": row.get("probability")}
        for name, value in row["values"].items():
            flat |= {f"{name}{end}": value.get(end.lstrip("_") or "value") for end in ENDS}
        return {**flat, "full_layers": self._full_layers(letters), "group": FRONT}

    def _trials(self, rows: list[Record]) -> list[Record]:
        """Return each candidate once, as its longest training found it; the frontier first."""
        best = {row["trial"]: row for row in self.frontier}
        longest: dict[tuple[str, str], Record] = {}
        for row in rows:
            key = str(row["layers"]), str(row.get("options") or "")
            known = longest.get(key)
            if known is None or row["fidelity"] >= known["fidelity"]:
                longest[key] = row
        others = [self._row(row) for row in longest.values() if row["trial"] not in best]
        return [*self.frontier, *(row for row in others if self._complete(row))]

    def _row(self, row: Record) -> Record:
        names = [f"{o['name']}{end}" for o in self.objectives for end in ENDS]
        return {
            "trial": row["trial"],
            "layers": row["layers"],
            "changes": row.get("changes") or "",
            **{name: row.get(name) for name in names},
            "full_layers": self._full_layers(row["layers"]),
            "group": PLAIN if row.get("baseline") else TRIED,
        }

    def _complete(self, row: Record) -> bool:
        return all(row.get(objective["name"]) is not None for objective in self.objectives)

    def published(self) -> list[Record]:
        """Return the trials of published designs: the base's own, and others' cadences."""
        designs = self._designs()
        return [
            {**row, "name": designs.pop(row["layers"])}
            for row in self.trials
            if row["layers"] in designs and not row["changes"]
        ]

    def _designs(self) -> dict[str, str]:
        """Return what published designs are called, by the base's pattern in their place."""
        if self.base is None:
            return {}
        own = self.base.layer_letters
        full = [letter for letter in dict.fromkeys(own) if self._full_layers(letter)]
        cheap = [letter for letter in dict.fromkeys(own) if letter not in full]
        found = {}
        if len(full) == len(cheap) == 1:
            for name, period, place in CADENCES:
                letters = (full[0] if i % period == place else cheap[0] for i in range(len(own)))
                found["".join(letters)] = name
        return {**found, own: self.base.name}

    def thinned(self) -> list[Record]:
        """Return at most MAX_TRIALS, the frontier whole and the others evenly."""
        others = self.trials[len(self.frontier) :]
        room = max(0, MAX_TRIALS - len(self.frontier))
        if len(others) > room:
            others = [others[i * len(others) // room] for i in range(room)]
        return [*self.frontier, *others]


def _objective(objective: Record) -> Record:
    words, unit = objective["name"].replace("_", " "), objective["unit"]
    return {
        "name": objective["name"],
        "unit": unit,
        "direction": objective["direction"],
        "title": f"{words} ({unit})" if unit else words,
        "kind": KINDS.get(unit, "number"),
    }


def _base(run: Run) -> ModelSpec | None:
    """Return the spec that candidates are variants of, from the study's own record."""
    definition = run.beside("study").get("definition")
    return parse_spec(definition["spec"]) if isinstance(definition, Mapping) else None


def _changes(changes: Any) -> str:
    return " ".join(f"{key}={value}" for key, value in (changes or {}).items())
