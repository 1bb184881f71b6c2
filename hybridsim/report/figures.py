"""Figures and tables as data: drawn by matplotlib into files and by the page of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

# Colour-blind safe (Okabe and Ito); the yellow comes last, it is faint on white.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#000000", "#F0E442")

Numbers = tuple[float | None, ...]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        label: what it shows, with its unit and where the figures come from.
        kind: how a number on it reads: number, tokens, bytes, seconds, share or count.
        log: whether it is logarithmic.
    """

    label: str
    kind: str = "number"
    log: bool = False


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        name: in the legend.
        x, y: its points; None in y is a gap.
        low, high: the bounds of an interval around y, or None.
        colour: place in COLOURS.
        dashed: whether it is a reference.
        stepped: whether y stays until the next x.
    """

    name: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    colour: int = 0
    dashed: bool = False
    stepped: bool = False


@dataclass(frozen=True)
class Mark:
    """A place on the x axis that has a meaning."""

    x: float
    label: str


@dataclass(frozen=True)
class Figure:
    """What every figure has.

    Attributes:
        name: stem of its files; unique in a report.
        title: what it shows.
        note: how to read it, and where its figures come from.
    """

    form: ClassVar[str]

    name: str
    title: str
    note: str

    def data(self) -> dict[str, Any]:
        """Return the figure as plain data."""
        return {"form": self.form, **asdict(self)}


@dataclass(frozen=True)
class LineFigure(Figure):
    """Lines over a common x."""

    form: ClassVar[str] = "lines"

    x: Axis
    y: Axis
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        label: beside it.
        value: its length.
        low, high: the bounds of an interval around it, or None.
        reference: a level to compare it with, e.g. chance.
        colour: place in COLOURS.
        faded: whether it is set back.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    reference: float | None = None
    colour: int = 0
    faded: bool = False


@dataclass(frozen=True)
class BarFigure(Figure):
    """Bars side by side; `upright` for many with short labels, as layers."""

    form: ClassVar[str] = "bars"

    value: Axis
    bars: tuple[Bar, ...]
    upright: bool = False


@dataclass(frozen=True)
class Part:
    """One part of each stack: a share of 0 to 1 for every stack."""

    name: str
    shares: Numbers


@dataclass(frozen=True)
class ShareFigure(Figure):
    """Stacks of parts that sum to one."""

    form: ClassVar[str] = "shares"

    stacks: tuple[str, ...]
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Group:
    """Points of one meaning, each with a text."""

    name: str
    x: Numbers
    y: Numbers
    labels: tuple[str, ...]
    colour: int = 0
    faded: bool = False
    named: bool = False  # whether the texts stand beside the points


@dataclass(frozen=True)
class PointFigure(Figure):
    """Points of two figures each; `front` joins the best."""

    form: ClassVar[str] = "points"

    x: Axis
    y: Axis
    groups: tuple[Group, ...]
    front: Series | None = None


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        key: of the rows; KEY_low, KEY_high and KEY_provenance say more where they are.
        title: at its head.
        kind: name, text, pattern, count, number, amount, bytes, seconds, tokens, share, yes, usd.
    """

    key: str
    title: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows with what each column is."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: Sequence[Mapping[str, Any]]
    note: str = ""
    on_page: bool = True  # else a file only, where the page shows the rows otherwise

    def data(self) -> dict[str, Any]:
        """Return the table as plain data, without what no column shows."""
        ends = ("", "_low", "_high", "_provenance")
        shown = {f"{column.key}{end}" for column in self.columns for end in ends}
        rows = [{key: row[key] for key in row if key in shown} for row in self.rows]
        return {**asdict(self), "rows": rows}
