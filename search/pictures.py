"""The pictures of a search, from records only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import matplotlib

matplotlib.use("Agg")  # no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridsim.report.figures import COLOURS

Document = dict[str, Any]


Target = Path | IO[bytes]


def _save(figure: Figure, path: Target) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def pareto_picture(path: Target, document: Document, rows: Sequence[Document]) -> None:
    """Draw all candidates and the frontier, each other objective against the first."""
    first, *others = document["objectives"]
    figure, axes = plt.subplots(
        1, max(1, len(others)), figsize=(7 * max(1, len(others)), 5), squeeze=False
    )
    for axis, other in zip(axes[0], others or [first], strict=True):
        _draw_front(axis, document, rows, first, other)
    figure.suptitle(f"{document['study']}: {document['candidates']:,} candidates")
    _save(figure, path)


def _draw_front(
    axis: Axes, document: Document, rows: Sequence[Document], x: Document, y: Document
) -> None:
    plain = [row for row in rows if row["baseline"]]
    ours = [row for row in rows if not row["baseline"]]
    for group, colour, label in (
        (ours, COLOURS[4], "tried"),
        (plain, COLOURS[1], "plain patterns"),
    ):
        if group:
            xs, ys = ([row[o["name"]] for row in group] for o in (x, y))
            axis.scatter(xs, ys, s=14, color=colour, alpha=0.6, label=label)
    front = document["frontier"]
    points = [[row["values"][o["name"]] for row in front] for o in (x, y)]
    xs, ys = ([value["value"] for value in column] for column in points)
    axis.errorbar(
        xs,
        ys,
        xerr=_bars(points[0]),
        yerr=_bars(points[1]),
        fmt="o",
        color=COLOURS[0],
        label="front",
    )
    for row, at_x, at_y in zip(front, xs, ys, strict=True):
        axis.annotate(
            row["ratio"], (at_x, at_y), xytext=(4, 4), textcoords="offset points", fontsize=8
        )
    for which, objective in ((axis.set_xlabel, x), (axis.set_ylabel, y)):
        unit = f" ({objective['unit']})" if objective["unit"] else ""
        which(f"{objective['name']}{unit}, {objective['direction']}")
    axis.grid(True, alpha=0.3)
    axis.legend()


def _bars(column: Sequence[Document]) -> list[list[float]]:
    """Return how far intervals reach below and above; nothing where there are none."""
    below, above = [], []
    for value in column:
        known = value["low"] is not None and value["high"] is not None
        below.append(max(0.0, value["value"] - value["low"]) if known else 0.0)
        above.append(max(0.0, value["high"] - value["value"]) if known else 0.0)
    return [below, above]


def hypervolume_picture(path: Path, document: Document, history: Sequence[Document]) -> None:
    """Draw the hypervolume over trials, and what plain patterns reach."""
    figure, axis = plt.subplots(figsize=(8, 5))
    numbers = [index + 1 for index in range(len(history))]
    axis.plot(numbers, [row["hypervolume"] for row in history], color=COLOURS[0], label="search")
    for index, gain in enumerate(document["gains"]):
        axis.axhline(
            gain["baseline_hypervolume"],
            linestyle="--",
            color=COLOURS[1 + index],
            label=f"{gain['baseline']}, {gain['baseline_evaluations']} evaluations",
        )
    axis.set_xlabel("trials")
    axis.set_ylabel("hypervolume (part of the box)")
    axis.set_title(document["study"])
    axis.grid(True, alpha=0.3)
    axis.legend()
    _save(figure, path)


def importance_picture(path: Path, document: Document) -> None:
    """Draw what full attention in each layer is worth, with intervals."""
    rows = document["importance"]
    figure, axis = plt.subplots(figsize=(8, 5))
    effects = [row["effect"] for row in rows]
    below = [max(0.0, row["effect"] - row["low"]) for row in rows]
    above = [max(0.0, row["high"] - row["effect"]) for row in rows]
    axis.bar([row["layer"] for row in rows], effects, yerr=[below, above], color=COLOURS[4])
    axis.axhline(0, color="black", linewidth=0.8)
    axis.set_xlabel("layer")
    axis.set_ylabel("effect of full attention on the quality")
    axis.set_title(document["study"])
    _save(figure, path)
