"""What profiles say from the shipped rows, against whole models that were timed in another run.

    python benchmarks/profiles_vs_models.py docs/records/blocks_vs_models_*.json --record FILE

Needs no GPU: the models' times are those of the records of blocks_vs_models.py, the sums are what
`hybridsim profile` prints for the same model, step and device.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from whole_models import CASES, start_of

from hybridsim.cost.op import Deployment
from hybridsim.dtypes import Dtypes
from hybridsim.graph import build_graph
from hybridsim.measure.estimate import BlockTimes
from hybridsim.measure.model_times import ModelTimes
from hybridsim.measure.session import device_name
from hybridsim.measure.store import SHIPPED, read_store
from hybridsim.origin import git_revision

Row = dict[str, Any]
SPECS = {case.title: case for cases in CASES.values() for case in cases}


def rows(record: dict[str, Any]) -> Iterator[Row]:
    """Compare each model of a record."""
    device = device_name(record["device"])
    store = read_store([SHIPPED / f"{device}.jsonl"])
    session = store.latest_session()
    if session is None:
        raise SystemExit(f"no rows of {record['device']} are shipped")
    times, hardware = BlockTimes(store, Dtypes()), session.ceilings.hardware()
    for row in record["rows"]:
        if "model_s" not in row:
            continue
        graph = build_graph(SPECS[row["model"]].load())
        found = ModelTimes(graph, Deployment(), hardware, times).estimate(
            row["phase"], row["batch"], row["context"]
        )
        yield {
            **{key: row[key] for key in ("model", "phase", "batch", "context", "model_s")},
            "device": device,
            "sum_s": found.latency_s,
            "low_s": found.low_s,
            "high_s": found.high_s,
            "provenance": found.provenance,
            "error": found.latency_s / row["model_s"] - 1,
        }


def summary(found: list[Row]) -> dict[str, Any]:
    errors = [abs(row["error"]) for row in found]
    inside = [row["low_s"] <= row["model_s"] <= row["high_s"] for row in found]
    return {
        "points": len(found),
        "median_error": statistics.median(errors),
        "worst_error": max(errors),
        "inside_interval": sum(inside) / len(inside),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--record", type=Path)
    asked = parser.parse_args()
    given = [json.loads(path.read_text(encoding="utf-8")) for path in asked.records]
    found = [row for record in given for row in rows(record)]
    for row in found:
        milliseconds = f"{1e3 * row['model_s']:10.3f} {1e3 * row['sum_s']:10.3f}"
        print(f"{start_of(row)} {milliseconds} {row['error']:+8.1%}  {row['provenance']}")
    print(", ".join(f"{name} {value:.3g}" for name, value in summary(found).items()))
    if asked.record:
        document = {
            "device": ", ".join(sorted({record["device"] for record in given})),
            "date": given[0]["date"],
            "versions": given[0]["versions"],
            "git_revision": git_revision(),
            "summary": summary(found),
            "rows": found,
        }
        asked.record.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
