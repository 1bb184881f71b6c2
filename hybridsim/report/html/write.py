"""A report's files beside the page: figures as PNG, SVG and JSON, tables as CSV and Parquet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hybridsim.report.figures import Figure, Table
from hybridsim.report.files import write_json, write_table
from hybridsim.report.html.sections import Section

FORMATS = ("png", "svg")


def write_parts(folder: Path, sections: list[Section], *, pictures: bool) -> None:
    """Write figures and tables, a folder for each section."""
    for section in sections:
        (folder / section.id).mkdir(exist_ok=True)
        for table in section.tables:
            _write_table(folder / section.id, table)
        if pictures:
            for figure in (*section.figures, *section.files):
                _write_figure(folder / section.id, figure)


def _write_table(folder: Path, table: Table) -> None:
    rows = table.data()["rows"]
    if rows:
        write_table(folder, Path(table.name).name, rows)


def _write_figure(folder: Path, figure: Figure) -> None:
    from hybridsim.report import pictures  # matplotlib

    alone = replace(figure, name=Path(figure.name).name)
    pictures.write(alone, folder, FORMATS)
    write_json(folder / f"{alone.name}.json", alone.data())
