"""Records of any command as one pandas table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from hybridsim.errors import HybridsimError
from hybridsim.report.claims import figure_rows
from hybridsim.report.comparison import flat_rows

Record = dict[str, Any]


def load_records(*paths: str | Path) -> pd.DataFrame:
    """Return the records of runs as one table, a row for each figure, point, row or trial.

    `load_records("outputs/profile/2026-11-24_10-00-00")` has a row per context and batch size;
    several runs, files or whole folders of runs (`outputs`) are put below each other, with the
    columns `record` (the schema) and `file`.

    Args:
        *paths: JSON files that a command wrote, or folders that such files lie in, however deep.

    Raises:
        HybridsimError: a path does not exist, or has no record.
    """
    rows: list[Record] = []
    for path in paths:
        found = [(file, record) for file in _files(Path(path)) if (record := _record(file))]
        if not found:
            raise HybridsimError(f"{path}: no record of hybridsim there")
        for file, record in found:
            head = {"record": record["schema"], "file": str(file)}
            rows += [head | row for row in SCHEMAS[record["schema"]](record)]
    return pd.DataFrame(rows)


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise HybridsimError(f"{path}: no such file or folder")
    return sorted(path.rglob("*.json")) if path.is_dir() else [path]


def _record(file: Path) -> Record | None:
    """Return the record of a file, None where it holds none of a known schema."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    known = isinstance(content, dict) and content.get("schema") in SCHEMAS
    return content if known else None


def _profile_rows(record: Record) -> list[Record]:
    """Return a row per context and batch size."""
    head = {
        "spec": record["spec"]["name"],
        "layer_pattern": record["spec"]["layer_pattern"],
        "hardware": record["hardware"]["name"],
        "workload": record["workload"]["name"],
        "parameters": record["parameters"]["total"],
    }
    return [head | _flat(point) for point in record["points"]]


def _train_rows(record: Record) -> list[Record]:
    """Return a row per task; one that could not be trained has no score."""
    head = _flat({key: record[key] for key in ("spec", "proxy", "summary")})
    scores = record["scores"].items()
    return [head | {"task": task, **(score or {})} for task, score in scores]


def _search_rows(record: Record) -> list[Record]:
    """Return a row per trial of the frontier."""
    return [{"study": record["study"], **_flat(trial)} for trial in record["frontier"]]


def _flat(record: Record, prefix: str = "") -> Record:
    """Return nested mappings as keys joined by underscores."""
    found: Record = {}
    for key, value in record.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{prefix}{key}_")
        else:
            found[f"{prefix}{key}"] = value
    return found


# schema of a record -> its rows
SCHEMAS: dict[str, Callable[[Record], list[Record]]] = {
    "hybridsim/profile/1": _profile_rows,
    "hybridsim/compare/1": flat_rows,
    "hybridsim/claims/1": figure_rows,
    "hybridsim/train/1": _train_rows,
    "hybridsim/search/1": _search_rows,
}
