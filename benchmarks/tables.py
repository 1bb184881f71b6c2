"""The tables of docs/benchmarks.md, from the records of the other benchmarks.

python benchmarks/tables.py docs/records/*.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Cells = list[str]


def table(heads: Cells, rows: Iterable[Cells]) -> str:
    """Return a Markdown table; columns after the second are numbers."""
    marks = ["---" if index < 2 else "---:" for index in range(len(heads))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heads, marks, *rows))


def number(value: Any, digits: int = 1) -> str:
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value or "-")


def kernels(record: Record) -> str:
    heads = [
        "kernel",
        "shape",
        "us",
        "spread",
        "floor, us",
        "bound by",
        "ratio",
        "error",
        "others, us",
    ]

    def cells(row: Record) -> Cells:
        others = ", ".join(f"{name} {1e6 * s:.1f}" for name, s in row["rivals_s"].items())
        return [
            row["kernel"], row["shape"], number(1e6 * row["time_s"]), f"{row['spread']:.1%}",
            number(1e6 * row["roofline_s"]), row["bound"],
            number(row["time_s"] / row["roofline_s"], 2), f"{row['error']:.0e}", others or "-",
        ]  # fmt: skip

    return table(heads, (cells(row) for row in record["rows"] if "failure" not in row))


def fla_calls(record: Record) -> str:
    heads = ["operator", "shape", "ours, us", "fla, us", "ratio", "error"]

    def cells(row: Record) -> Cells:
        ours, fla = row["time_s"], row["rivals_s"]["fla"]
        figures = [number(1e6 * ours), number(1e6 * fla), number(ours / fla, 2)]
        return [row["kernel"], row["shape"], *figures, f"{row['error']:.0e}"]

    return table(heads, (cells(row) for row in record["rows"] if "failure" not in row))


def decode(record: Record) -> str:
    heads = ["step", "of", "ours, ms", "roofline, ms", "ratio", "transformers, ms", "times faster"]
    of = f"{record['context_tokens']:,} tokens"

    def cells(name: str, row: Record) -> Cells:
        columns = ("ours_ms", "roofline_ms", "times_roofline", "transformers_ms", "times_faster")
        return [name, of, *(number(row.get(column), 2) for column in columns)]

    return table(heads, (cells(name, row) for name, row in record["rows"].items()))


def compared(record: Record, heads: Cells, names: Cells, scale: float) -> str:
    """Return the table of two figures of a model's points, their errors, and a line on all."""
    heads = ["model", "phase", "sequences", "context", *heads, "error"]

    def cells(row: Record) -> Cells:
        place = [row["model"], row["phase"], f"{row['batch']:,}", f"{row['context']:,}"]
        return [*place, *(number(scale * row[n], 3) for n in names), f"{row['error']:+.1%}"]

    found = record["summary"]
    ends = f"median {found['median_error']:.1%}, worst {found['worst_error']:.1%}"
    timed = [row for row in record["rows"] if "error" in row]
    return table(heads, map(cells, timed)) + f"\n\n{found['points']} points: {ends}"


def blocks(record: Record) -> str:
    return compared(record, ["model, ms", "sum, ms"], ["model_s", "sum_s"], 1e3)


def profiles(record: Record) -> str:
    shown = compared(record, ["model, ms", "profile, ms"], ["model_s", "sum_s"], 1e3)
    inside = record["summary"]["inside_interval"]
    return f"{shown}, {inside:.0%} of the models inside the 90 % interval"


def memory(record: Record) -> str:
    names = ["predicted_bytes", "allocated_bytes"]
    return compared(record, ["predicted, GB", "allocated, GB"], names, 1e-9)


def held_out(record: Record) -> str:
    heads = ["device", "phase, left out", "points", "median error", "90 % below"]

    def cells(row: Record) -> Cells:
        figures = [f"{row[name]:.1%}" for name in ("median_error", "p90_error")]
        place = f"{row['phase']}, {row['left_out']}"
        return [row["device"], place, str(row["points"]), *figures]

    def covered(row: Record) -> Cells:
        kind = row["provenance"] + (", other blocks" if row["from_other_blocks"] else "")
        place = f"{row['phase']}, {kind}"
        return [row["device"], place, str(row["held_out"]), f"{row['coverage']:.1%}"]

    first = table(heads, (cells(row) for row in record["rows"] if row["points"]))
    heads = ["device", "phase, provenance", "points", "covered"]
    return f"{first}\n\n{table(heads, map(covered, record['coverage']))}"


# What a record's name begins with -> how it is shown.
TABLES: dict[str, Callable[[Record], str]] = {
    "kernels": kernels,
    "fla_calls": fla_calls,
    "decode": decode,
    "blocks_vs_models": blocks,
    "profiles_vs_models": profiles,
    "memory": memory,
    "held_out": held_out,
}


def origin(record: Record) -> str:
    shown = {name: v for name, v in record["versions"].items() if name in ("torch", "triton")}
    versions = ", ".join(f"{name} {version}" for name, version in shown.items())
    revision = str(record.get("git_revision", "")).partition("+")[0][:12]
    return f"{record.get('date', '')}, {record['device']}, {versions}, revision {revision}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", nargs="+", type=Path)
    for path in parser.parse_args().records:
        shown = [show for start, show in TABLES.items() if path.name.startswith(start)]
        if not shown:
            parser.error(f"{path}: no table for it (known: {', '.join(TABLES)})")
        record = json.loads(path.read_text(encoding="utf-8"))
        print(f"\n{path.name}: {origin(record)}\n\n{shown[0](record)}")


if __name__ == "__main__":
    main()
