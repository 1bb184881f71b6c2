"""The one HTML file: its parts put together, nothing loaded from elsewhere."""

from __future__ import annotations

import html
import json
from importlib.resources import files
from string import Template
from typing import Any

from hybridsim.errors import HybridsimError
from hybridsim.report.figures import COLOURS
from hybridsim.report.html.sections import Section

Record = dict[str, Any]

MAX_BYTES = 3_000_000
# In this order: each uses what stands before it when the page is read.
SCRIPTS = (
    "numbers",
    "dom",
    "forms",
    "crossing",
    "scale",
    "tables",
    "charts",
    "patterns",
    "results",
    "explorer",
    "pareto",
    "main",
)


def page(
    title: str, lead: str, sections: list[Section], explorer: Record | None, version: str
) -> str:
    """Return the HTML of a report.

    Raises:
        HybridsimError: it would be larger than a report may be.
    """
    data = {
        "colours": COLOURS,
        "sections": [section.data() for section in sections],
        "explorer": explorer,
    }
    made = Template(_asset("page.html")).substitute(
        title=html.escape(title),
        lead=html.escape(lead),
        version=html.escape(version),
        style=_asset("page.css"),
        data=_json(data),
        script="\n".join([READ_DATA, *(_asset(f"{name}.js") for name in SCRIPTS)]),
    )
    size = len(made.encode())
    if size > MAX_BYTES:
        raise HybridsimError(
            f"runs: the report would have {size:,} bytes, {MAX_BYTES:,} at most; give fewer runs"
        )
    return made


READ_DATA = 'const report = JSON.parse(document.getElementById("data").textContent);'


def _asset(name: str) -> str:
    return (files("hybridsim.report.html") / "assets" / name).read_text(encoding="utf-8")


def _json(data: Record) -> str:
    # What is in a script element ends at "</": no "<" is left in it.
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
