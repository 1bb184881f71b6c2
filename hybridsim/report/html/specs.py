"""The specs behind records, for the explorer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hybridsim.report.html.runs import Record, Run
from hybridsim.spec.parse import parse_spec
from hybridsim.spec.schema import ModelSpec


def run_specs(runs: list[Run]) -> dict[str, ModelSpec]:
    """Return the specs of records by title, each once; other models of a name are numbered."""
    found: dict[str, ModelSpec] = {}
    for run in runs:
        for fields in (*_spec_fields(run.document), *_spec_fields(run.beside("study"))):
            spec = parse_spec(fields)
            if spec not in found.values():
                found[_free(spec.name, found)] = spec
    return found


def _free(name: str, taken: Mapping[str, object]) -> str:
    number, title = 2, name
    while title in taken:
        title, number = f"{name} ({number})", number + 1
    return title


def _spec_fields(document: Record) -> Iterator[Mapping[str, object]]:
    spec = document.get("spec")
    if isinstance(spec, Mapping) and isinstance(spec.get("fields"), Mapping):
        yield spec["fields"]
    definition = document.get("definition")  # of a study
    if isinstance(definition, Mapping):
        yield definition["spec"]
    for profile in document.get("profiles", []):
        yield from _spec_fields(profile)
