"""How far times are off at rows that were left out, and whether their intervals cover them.

    python benchmarks/held_out.py [--devices h100,h200] [--record FILE]

Needs no GPU: it reads the rows that ship. Each row is left out by itself, with all rows of its
block's context, with all of its batch, and, where other blocks differ in numbers of heads alone,
with its whole block; then it is estimated from the others. An interval covers a row if it was drawn
without any row of that block.
"""

from __future__ import annotations

import argparse
import json
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hybridsim.dtypes import Dtypes
from hybridsim.measure.estimate import LEFT_OUT, REPETITION, BlockTimes, Residual
from hybridsim.measure.point import PHASES
from hybridsim.measure.store import SHIPPED, read_store
from hybridsim.origin import git_revision

COLUMNS = ("device", "phase", "left_out", "points", "median_error", "p90_error")


def errors(device: str, phase: str, left_out: str, found: list[Residual]) -> dict[str, Any]:
    sizes = sorted(abs(residual.error) for residual in found)
    return {
        "device": device,
        "phase": phase,
        "left_out": left_out,
        "points": len(sizes),
        "median_error": statistics.median(sizes) if sizes else None,
        "p90_error": sizes[int(0.9 * (len(sizes) - 1))] if sizes else None,
    }


def rows_of(device: str, times: BlockTimes) -> list[dict[str, Any]]:
    """Return the errors by phase and by what was left out, and those of all but repetitions."""
    found = []
    for phase in PHASES:
        residuals = [r for r in times.residuals if r.phase == phase]
        for left_out in LEFT_OUT:
            chosen = [r for r in residuals if r.left_out == left_out]
            found.append(errors(device, phase, left_out, chosen))
        estimated = [r for r in residuals if r.left_out != REPETITION]
        found.append(errors(device, phase, "all", estimated))
    return found


def coverage_of(device: str, times: BlockTimes) -> list[dict[str, Any]]:
    return [{"device": device, **record} for record in times.coverage()]


def cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1%}"
    return "-" if value is None else str(value)


def show(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    print("  ".join(f"{name:>18s}" for name in columns))
    for row in rows:
        print("  ".join(f"{cell(row[name]):>18s}" for name in columns))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", default="h100,h200")
    parser.add_argument("--record", type=Path, default=Path("outputs/benchmarks/held_out.json"))
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    coverage: list[dict[str, Any]] = []
    sessions: dict[str, Any] = {}
    for device in args.devices.split(","):
        path = SHIPPED / f"{device}.jsonl"
        if not path.is_file():
            parser.error(f"--devices: no rows of {device} (known: {known_devices()})")
        times = BlockTimes(read_store([path]), Dtypes())
        rows += rows_of(device, times)
        coverage += coverage_of(device, times)
        sessions |= {s.id: {"title": s.title, **s.versions} for s in times.sessions}
    record = {
        "device": ", ".join(sorted({s["title"] for s in sessions.values()})),
        "versions": next(iter(sessions.values())),
        "date": datetime.now(UTC).date().isoformat(),
        "git_revision": git_revision(),
        "sessions": sessions,
        "rows": rows,
        "coverage": coverage,
    }
    args.record.parent.mkdir(parents=True, exist_ok=True)
    args.record.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    show(rows, COLUMNS)
    print()
    show(
        coverage,
        ("device", "phase", "provenance", "from_other_blocks", "held_out", "coverage"),
    )


def known_devices() -> str:
    return ", ".join(path.stem for path in sorted(SHIPPED.glob("*.jsonl")))


if __name__ == "__main__":
    main()
