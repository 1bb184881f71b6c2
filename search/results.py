"""A study's folder: every trial, the frontier, pictures; written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from hybridsim.report.files import json_text
from search.answer import hypervolume_history
from search.records import Tried, trial_rows
from search.reference import Box
from search.space import Space

TRIALS, FRONTIER = "trials", "frontier.json"

Document = dict[str, Any]


def write_trials(folder: Path, space: Space, found: Sequence[Tried]) -> list[Document]:
    """Write all finished trials as trials.csv, .parquet and .json; return them as rows."""
    changes = {one.candidate: space.variants.changes(one.candidate.options) for one in found}
    rows = trial_rows(found, changes)
    frame = pd.DataFrame(rows)
    _replace(folder / f"{TRIALS}.csv", lambda path: frame.to_csv(path, index=False))
    _replace(folder / f"{TRIALS}.parquet", lambda path: frame.to_parquet(path, index=False))
    _replace(folder / f"{TRIALS}.json", lambda path: path.write_text(json_text(rows) + "\n"))
    return rows


def num_written(folder: Path) -> int:
    """Return how many finished trials a folder has; 0 where there are none, or none readable."""
    try:
        return len(json.loads((folder / f"{TRIALS}.json").read_text()))
    except (OSError, ValueError):
        return 0


def write_results(
    folder: Path,
    document: Document,
    space: Space,
    found: Sequence[Tried],
    box: Box,
    pictures: bool,
) -> None:
    """Write everything that a search ends with."""
    rows = write_trials(folder, space, found)
    _replace(folder / FRONTIER, lambda path: path.write_text(json_text(document) + "\n"))
    history = hypervolume_history(box, found)
    for name, table in (("importance", document["importance"]), ("hypervolume", history)):
        if table:
            frame = pd.DataFrame(table)
            frame.to_csv(folder / f"{name}.csv", index=False)
            frame.to_parquet(folder / f"{name}.parquet", index=False)
    if pictures and document["frontier"]:
        from search import pictures as draw

        draw.pareto_picture(folder / "pareto.png", document, rows)
        draw.hypervolume_picture(folder / "hypervolume.png", document, history)
        if document["importance"]:
            draw.importance_picture(folder / "importance.png", document)


def _replace(path: Path, write: Any) -> None:
    """Write beside the file, then put the whole in its place: a reader sees one or the other."""
    beside = path.with_name(f".{path.name}.new")
    write(beside)
    beside.replace(path)
