"""The records that a report is made of, found in run folders."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from omegaconf import OmegaConf

from hybridsim.errors import HybridsimError

Record = dict[str, Any]

SCHEMA_PREFIX = "hybridsim/"
DEEPEST = 3  # folders below one that was named


@dataclass(frozen=True)
class Run:
    """One record and the folder that it lies in.

    Attributes:
        path: the JSON file.
        document: its content.
    """

    path: Path
    document: Record

    @property
    def schema(self) -> str:
        """What the record is, e.g. "hybridsim/profile/1"."""
        return str(self.document["schema"])

    @property
    def kind(self) -> str:
        """The schema's word, e.g. "profile"."""
        return self.schema.split("/")[1]

    @property
    def folder(self) -> Path:
        """Where its tables lie."""
        return self.path.parent

    def rows(self, name: str) -> list[Record]:
        """Return a table beside the record, plain values; nothing where there is none."""
        parquet, text = (self.folder / f"{name}.{end}" for end in ("parquet", "csv"))
        if parquet.is_file():
            frame = pd.read_parquet(parquet)
        elif text.is_file():
            frame = pd.read_csv(text)
        else:
            return []
        # Through JSON: no NaN and no numpy number is left.
        rows: list[Record] = json.loads(frame.to_json(orient="records", double_precision=15))
        return rows

    def beside(self, name: str) -> Record:
        """Return another JSON document of the folder; nothing where there is none."""
        path = self.folder / f"{name}.json"
        found: Record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found

    def command(self) -> str:
        """Return the command line that made it, as far as the folder or the record tells."""
        hydra = self.folder / ".hydra"
        multirun = self.folder / "multirun.yaml"
        if multirun.is_file():
            found = _yaml(multirun)["hydra"]
            return _command(found["job"]["name"], ["-m", *found["overrides"]["task"]])
        if (hydra / "overrides.yaml").is_file():
            name = _yaml(hydra / "hydra.yaml")["hydra"]["job"]["name"]
            return _command(name, _yaml(hydra / "overrides.yaml") or [])
        return _command(self.kind, self.document.get("overrides", []))


def _command(name: str, overrides: Iterable[object]) -> str:
    return shlex.join(["hybridsim", str(name), *map(str, overrides)])


def _yaml(path: Path) -> Any:
    # What Hydra resolves only while it runs stays as it is written.
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


def find_runs(paths: Sequence[str | Path], known: Iterable[str]) -> list[Run]:
    """Return the records of run folders, or of folders of them, in the order given.

    Args:
        paths: folders, or JSON files themselves.
        known: schemas that a report can show.

    Raises:
        HybridsimError: a path is not there, holds no such record, or holds one that is broken.
    """
    schemas = tuple(known)
    found: dict[Path, Run] = {}
    for given in paths:
        path = Path(given).expanduser()
        if not path.exists():
            raise HybridsimError(f"runs={given}: no such folder or file")
        runs = _runs_of(path, schemas, DEEPEST)
        if not runs:
            kinds = ", ".join(sorted({schema.split("/")[1] for schema in schemas}))
            raise HybridsimError(f"runs={given}: no record of a run there (known: {kinds})")
        found |= {run.path.resolve(): run for run in runs}
    return list(found.values())


def _runs_of(path: Path, schemas: tuple[str, ...], depth: int) -> list[Run]:
    if path.is_file():
        return [run for run in [_read(path)] if run is not None and run.schema in schemas]
    here = [
        run
        for file in sorted(path.glob("*.json"))
        if (run := _read(file)) is not None and run.schema in schemas
    ]
    if here or depth == 0:
        return here
    below = sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    return [run for folder in below for run in _runs_of(folder, schemas, depth - 1)]


def _read(path: Path) -> Run | None:
    """Return the record in a file, None where it is none of ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HybridsimError(f"runs={path}: cannot be read as JSON ({error})") from None
    schema = document.get("schema") if isinstance(document, dict) else None
    ours = isinstance(schema, str) and schema.startswith(SCHEMA_PREFIX)
    return Run(path, document) if ours else None
