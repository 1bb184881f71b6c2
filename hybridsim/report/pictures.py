"""Figures drawn by matplotlib into files."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import IO

import matplotlib

matplotlib.use("Agg")  # no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from hybridsim.report.figures import (
    COLOURS,
    Axis,
    BarFigure,
    Figure,
    LineFigure,
    Numbers,
    PointFigure,
    Series,
    ShareFigure,
)
from hybridsim.report.units import bytes_text, decimal_text, seconds_text, tokens_text

LABEL_WIDTH = 36
DPI = 150
MARKERS = "osD^vPX*"

TICKS: dict[str, Callable[[float], str]] = {
    "number": lambda value: f"{value:.3g}",
    "count": decimal_text,
    "bytes": bytes_text,
    "seconds": seconds_text,
    "tokens": lambda value: tokens_text(round(value)),
    "share": lambda value: f"{value:.0%}",
}


def write(figure: Figure, folder: Path, formats: tuple[str, ...] = ("png",)) -> None:
    """Draw a figure and write it as NAME.FORMAT."""
    canvas = draw(figure)
    for chosen in formats:
        # Without a date the same figure gives the same file.
        dateless = {"Date": None} if chosen == "svg" else None
        canvas.savefig(folder / f"{figure.name}.{chosen}", dpi=DPI, metadata=dateless)
    plt.close(canvas)


def write_png(figure: Figure, file: IO[bytes]) -> None:
    """Draw a figure into an open file."""
    canvas = draw(figure)
    canvas.savefig(file, dpi=DPI, format="png")
    plt.close(canvas)


def draw(figure: Figure) -> Canvas:
    """Return a figure drawn."""
    if isinstance(figure, LineFigure):
        canvas, axes = _lines(figure)
    elif isinstance(figure, BarFigure):
        canvas, axes = _bars(figure)
    elif isinstance(figure, ShareFigure):
        canvas, axes = _shares(figure)
    else:
        assert isinstance(figure, PointFigure)
        canvas, axes = _points(figure)
    axes.set_title(figure.title, fontsize=11)
    canvas.text(0.01, 0.01, figure.note, fontsize=7, color="0.35")
    canvas.tight_layout(rect=(0, 0.03, 1, 1))
    return canvas


def _set_axis(axes: Axes, axis: Axis, which: str) -> None:
    drawn = axes.xaxis if which == "x" else axes.yaxis
    if axis.log:
        base = 2 if axis.kind in ("tokens", "bytes") else 10
        axes.set_xscale("log", base=base) if which == "x" else axes.set_yscale("log", base=base)
        drawn.set_major_locator(LogLocator(base=base, numticks=12))
        drawn.set_minor_locator(NullLocator())
        drawn.set_minor_formatter(NullFormatter())
    drawn.set_major_formatter(FuncFormatter(lambda value, _: TICKS[axis.kind](value)))
    axes.set_xlabel(axis.label) if which == "x" else axes.set_ylabel(axis.label)
    axes.grid(True, alpha=0.3)


def _lines(figure: LineFigure) -> tuple[Canvas, Axes]:
    canvas, axes = plt.subplots(figsize=(8, 5))
    for index, series in enumerate(figure.series):
        _line(axes, series, MARKERS[index % len(MARKERS)])
    for mark in figure.marks:
        axes.axvline(mark.x, color="grey", linestyle=":", label=mark.label)
    _set_axis(axes, figure.x, "x")
    _set_axis(axes, figure.y, "y")
    if figure.series or figure.marks:
        axes.legend(fontsize=8)
    return canvas, axes


def _line(axes: Axes, series: Series, marker: str) -> None:
    colour = COLOURS[series.colour % len(COLOURS)]
    places, values = _gapped(series.x), _gapped(series.y)
    axes.plot(
        places,
        values,
        linestyle="--" if series.dashed else "-",
        marker=marker if len(values) <= 40 else None,
        markersize=4,
        color=colour,
        alpha=0.7 if series.dashed else 1,
        label=series.name,
        drawstyle="steps-post" if series.stepped else "default",
    )
    if series.low is not None and series.high is not None:
        low, high = _gapped(series.low), _gapped(series.high)
        axes.fill_between(places, low, high, color=colour, alpha=0.2, linewidth=0)


def _gapped(values: Numbers) -> list[float]:
    """Return numbers with a gap where there is none."""
    return [math.nan if value is None else value for value in values]


def _bars(figure: BarFigure) -> tuple[Canvas, Axes]:
    places, values = range(len(figure.bars)), [bar.value for bar in figure.bars]
    colours = ["0.75" if bar.faded else COLOURS[bar.colour % 8] for bar in figure.bars]
    errors = [
        [max(0.0, bar.value - bar.low) if bar.low is not None else 0 for bar in figure.bars],
        [max(0.0, bar.high - bar.value) if bar.high is not None else 0 for bar in figure.bars],
    ]
    labels = ["\n".join(textwrap.wrap(bar.label, LABEL_WIDTH)) for bar in figure.bars]
    levels = [math.nan if bar.reference is None else bar.reference for bar in figure.bars]
    if figure.upright:
        canvas, axes = plt.subplots(figsize=(max(6, 0.25 * len(values)), 4))
        axes.bar(places, values, yerr=errors, color=colours, capsize=2)
        axes.scatter(places, levels, marker="_", color="black")
        axes.set_xticks(places, labels, fontsize=7)
        _set_axis(axes, figure.value, "y")
    else:
        canvas, axes = plt.subplots(figsize=(8, 1.5 + 0.5 * len(values)))
        axes.barh(places, values, xerr=errors, color=colours, capsize=2)
        axes.scatter(levels, places, marker="|", s=150, color="black")
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
        _set_axis(axes, figure.value, "x")
    return canvas, axes


def _shares(figure: ShareFigure) -> tuple[Canvas, Axes]:
    canvas, axes = plt.subplots(figsize=(10, 4))
    left = [0.0] * len(figure.stacks)
    for index, part in enumerate(figure.parts):
        shares = [share or 0.0 for share in part.shares]
        axes.barh(
            figure.stacks,
            shares,
            left=left,
            color=COLOURS[index % len(COLOURS)],
            hatch="//" if index >= len(COLOURS) else None,
            edgecolor="white",
            label=part.name,
        )
        left = [a + b for a, b in zip(left, shares, strict=True)]
    _set_axis(axes, Axis("share", "share"), "x")
    axes.set_xlim(0, 1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=4, frameon=False, fontsize=8)
    return canvas, axes


def _points(figure: PointFigure) -> tuple[Canvas, Axes]:
    canvas, axes = plt.subplots(figsize=(8, 6))
    for index, group in enumerate(figure.groups):
        axes.scatter(
            _gapped(group.x),
            _gapped(group.y),
            s=12 if group.faded else 30,
            color="0.7" if group.faded else COLOURS[group.colour % len(COLOURS)],
            marker=MARKERS[index % len(MARKERS)],
            label=group.name,
            zorder=1 if group.faded else 3,
        )
        for x, y, label in zip(group.x, group.y, group.labels, strict=True):
            if group.named and x is not None and y is not None:
                axes.annotate(label, (x, y), textcoords="offset points", xytext=(5, 5), fontsize=7)
    if figure.front is not None:
        _line(axes, figure.front, "")
    _set_axis(axes, figure.x, "x")
    _set_axis(axes, figure.y, "y")
    axes.legend(fontsize=8)
    return canvas, axes
