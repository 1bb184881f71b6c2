"""Times for people: with a letter for where they come from, and their interval."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hybridsim.report.units import seconds_text

Record = dict[str, Any]

LETTERS = {"measured": "M", "interpolated": "I", "extrapolated": "X", "modelled": "R"}
LEGEND = "M measured, I interpolated, X extrapolated, R modelled (roofline); +- 90 % interval"


def time_text(record: Record, name: str = "latency", start: str = "") -> str:
    """Return a time, its letter and interval, e.g. "12.3 ms M +-2%"; only itself if modelled.

    Args:
        record: with NAME_s, NAME_low_s, NAME_high_s and a provenance.
        name: what the time's keys begin with.
        start: what the provenance's key begins with.
    """
    time_s, low_s, high_s = (record[f"{name}{end}_s"] for end in ("", "_low", "_high"))
    provenance = record[f"{start}provenance"]
    text = seconds_text(time_s)
    if low_s is None or high_s is None:
        return text if provenance == "modelled" else f"{text} {LETTERS[provenance]}"
    below, above = 100 * (1 - low_s / time_s), 100 * (high_s / time_s - 1)
    even = abs(above - below) < 1 + 0.1 * above
    interval = f"+-{max(above, below):.0f}%" if even else f"-{below:.0f}+{above:.0f}%"
    return f"{text} {LETTERS[provenance]} {interval}"


def origin_text(provenances: Iterable[str | None]) -> str:
    """Return the words for where times come from, the strongest first, e.g. "modelled"."""
    found = {p for p in provenances if p is not None}
    return ", ".join(word for word in LETTERS if word in found)


def measurements_text(document: Record) -> str:
    """Return where a profile's times come from."""
    record = document["measurements"]
    if record is None:
        return "times are modelled (roofline)"
    last = record["sessions"][-1]
    versions = ", ".join(
        f"{name} {last['versions'][name]}"
        for name in ("torch", "triton", "fla-core")
        if last["versions"].get(name)
    )
    return (
        f"times from {record['rows']} rows of {last['title']} ({versions}, {last['started'][:10]})"
    )
