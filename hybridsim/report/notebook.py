"""Records as Jupyter shows them: the terminal's tables, and a picture inside the page."""

from __future__ import annotations

import base64
from collections.abc import Callable
from io import BytesIO, StringIO
from typing import IO, Any

from rich.console import Console, RenderableType

from hybridsim.report import pictures, tables
from hybridsim.report.profile_figures import cache_figure

Record = dict[str, Any]

WIDTH = 150  # columns of the tables
FRAME = '<pre style="font-family:monospace;line-height:1.2;overflow-x:auto">{code}</pre>'


def profile_html(document: Record, sweep: list[Record]) -> str:
    """Return a profile's tables and the picture of its cache."""
    report = tables.profile_report(document, sweep)
    return as_html(report, lambda file: pictures.write_png(cache_figure(document, sweep), file))


def as_html(report: RenderableType, draw: Callable[[IO[bytes]], None] | None = None) -> str:
    """Return a report as HTML that needs nothing else.

    Args:
        report: what the terminal would show.
        draw: writes a PNG that belongs below it.
    """
    console = Console(record=True, width=WIDTH, file=StringIO())
    console.print(report)
    page = console.export_html(inline_styles=True, code_format=FRAME)
    if draw is None:
        return page
    picture = BytesIO()
    draw(picture)
    data = base64.b64encode(picture.getvalue()).decode()
    return f'{page}\n<img src="data:image/png;base64,{data}" style="max-width:100%">'
