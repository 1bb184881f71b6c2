"""A report's files: the page, every figure as PNG and SVG, every table as CSV and Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hybridsim.report.figures import Figure, Table
from hybridsim.report.files import write_table
from hybridsim.report.html.sections import Section

FORMATS = ("png", "svg")


def write_parts(folder: Path, sections: list[Section], *, pictures: bool) -> None:
    """Write figures and tables, a folder for each section."""
    for section in sections:
        (folder / section.id).mkdir(exist_ok=True)
        for table in section.tables:
            _write_table(folder / section.id, table)
        if pictures:
            for figure in section.figures:
                _write_figure(folder / section.id, figure)


def _write_table(folder: Path, table: Table) -> None:
    rows = table.data()["rows"]
    if rows:
        write_table(folder, Path(table.name).name, rows)


def _write_figure(folder: Path, figure: Figure) -> None:
    from hybridsim.report import pictures  # matplotlib

    pictures.save(replace(figure, name=Path(figure.name).name), folder, FORMATS)
