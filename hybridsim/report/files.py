"""A profile's files: JSON, CSV and Parquet beside every picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd


def json_text(document: Any) -> str:
    """Return a document as JSON; a number that is not finite is an error."""
    return json.dumps(document, indent=2, allow_nan=False)


def write_json(path: Path, document: Any) -> None:
    """Write a document as JSON."""
    path.write_text(json_text(document) + "\n", encoding="utf-8")


def write_table(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    """Write rows as NAME.csv and NAME.parquet."""
    frame = pd.DataFrame(rows)
    frame.to_csv(folder / f"{name}.csv", index=False)
    # Parquet's integers end at 2^63; FLOPs of a large batch do not.
    wide = [c for c in frame if frame[c].map(lambda v: isinstance(v, int) and v >= 1 << 63).any()]
    frame.astype(dict.fromkeys(wide, float)).to_parquet(folder / f"{name}.parquet", index=False)
