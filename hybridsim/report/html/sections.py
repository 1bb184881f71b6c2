"""Sections of a report: one for each record, by what the record is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from hybridsim.report.figures import Figure, Table
from hybridsim.report.html.runs import Run

Record = dict[str, Any]
Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Section:
    """One part of the page.

    Attributes:
        title: its heading.
        lead: sentences below it.
        facts: names and values.
        pattern: a layer pattern drawn as a strip, or "".
        letters: what the letters of patterns mean: title, and role (full, cheap, other).
        figures: drawn on the page and as files.
        files: figures that are files only, where the page has its own that answers the reader.
        tables: shown on the page and as files.
        pareto: the trials of a search, for the scatter that the reader arranges.
        made: how it was made: `command` and `facts`.
        id: its place on the page and its folder.
    """

    title: str
    lead: tuple[str, ...] = ()
    facts: Facts = ()
    pattern: str = ""
    letters: dict[str, dict[str, str]] = field(default_factory=dict)
    figures: tuple[Figure, ...] = ()
    files: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    pareto: Record | None = None
    made: Record | None = None
    id: str = ""

    def named(self, id: str, run: Run) -> Section:
        """Return the section with its place, its parts named after it and how it was made."""
        return replace(
            self,
            id=id,
            made=made_by(run),
            figures=tuple(replace(f, name=f"{id}/{f.name}") for f in self.figures),
            files=tuple(replace(f, name=f"{id}/{f.name}") for f in self.files),
            tables=tuple(replace(t, name=f"{id}/{t.name}") for t in self.tables),
            pareto=self.pareto and {**self.pareto, "name": f"{id}/pareto"},
        )

    def data(self) -> Record:
        """Return the section as plain data."""
        return {
            "id": self.id,
            "title": self.title,
            "lead": self.lead,
            "facts": self.facts,
            "pattern": self.pattern,
            "letters": self.letters,
            "figures": [figure.data() for figure in self.figures],
            "tables": [table.data() for table in self.tables if table.on_page],
            "pareto": self.pareto,
            "made": self.made,
        }


def sentence(line: str) -> str:
    """Return a line of a record as a sentence of the page."""
    return f"{line[0].upper()}{line[1:]}."


Builder = Callable[[Run], Section]


def builders() -> dict[str, Builder]:
    """Return what makes a section of each schema."""
    from hybridsim.report.html import claims, comparison, profile, reliability, study, training

    return {
        "hybridsim/search/1": study.section,
        "hybridsim/compare/1": comparison.section,
        "hybridsim/profile/1": profile.section,
        "hybridsim/train/1": training.section,
        "hybridsim/validate/1": reliability.section,
        "hybridsim/claims/1": claims.section,
    }


def commands() -> dict[str, Callable[[Run], str]]:
    """Return what tells the command of a record that lies in no run's folder."""
    from hybridsim.report.html import study

    return {"hybridsim/search/1": study.command}


def command_of(run: Run) -> str:
    """Return the command line that made a record."""
    return commands().get(run.schema, Run.command)(run)


def sections(runs: list[Run]) -> list[Section]:
    """Return a section for each record, numbered."""
    table = builders()
    return [
        table[run.schema](run).named(f"{place}-{run.kind}", run)
        for place, run in enumerate(runs, start=1)
    ]


def made_by(run: Run) -> Record:
    """Return the command, versions, revision and devices behind a record."""
    document = {**run.document.get("origin", {}), **run.document}
    facts = [("record", f"{run.schema}, {run.path.name}")]
    versions = document.get("versions")
    if versions:
        facts.append(("versions", ", ".join(f"{k} {v}" for k, v in versions.items() if v)))
    if document.get("git_revision"):
        facts.append(("git revision", str(document["git_revision"])))
    if document.get("host"):
        facts.append(("computed on", ", ".join(str(v) for v in document["host"].values())))
    facts += _devices(document)
    return {"command": command_of(run), "facts": facts}


def _devices(document: Record) -> list[tuple[str, str]]:
    facts = []
    hardware = document.get("hardware")
    if isinstance(hardware, dict):
        facts.append(("device of the times", f"{hardware['num_devices']} x {hardware['title']}"))
        facts += [(f"source: {k}", str(v)) for k, v in hardware.get("sources", {}).items()]
    elif document.get("device"):
        facts.append(("device", str(document["device"])))
    measurements = document.get("measurements")
    if measurements:
        facts.append(("measured rows", f"{measurements['rows']:,}"))
        for session in measurements["sessions"]:
            facts.append(("measured on", f"{session['title']}, {session['started']}"))
    return facts
