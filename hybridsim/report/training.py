"""Tables and pictures of short trainings, from records only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import pyplot as plt
from rich.console import Group, RenderableType
from rich.text import Text

from hybridsim.report.pictures import COLOURS, save
from hybridsim.report.tables import table

Record = dict[str, Any]


def train_report(
    document: Record, ledger: Sequence[tuple[str, str]], reliability: str
) -> RenderableType:
    """Return what `hybridsim train` prints."""
    spec = document["spec"]
    pattern = f"{spec['layer_pattern']}, trained as {spec['proxy_pattern']}"
    proxy = f"{document['proxy']['title']}, {document['proxy']['seeds']} seeds"
    parts: list[RenderableType] = [
        Text(f"{spec['name']}  {pattern}", style="bold"),
        Text(f"{proxy}, on {document['device']}; held-out scores, 95 % intervals over seeds"),
        scores_table(document),
        *(
            Text(f"failed: {f['task']}, seed {f['seed']}: {f['status']} ({f['cause']})")
            for f in document["failures"]
        ),
        table("Spent", ("what", "how much"), ledger),
        Text(reliability),
    ]
    return Group(*parts)


def scores_table(document: Record) -> RenderableType:
    """Return the scores by task, and the summary."""
    rows = []
    for task, score in document["scores"].items():
        if score is None:
            rows.append((task, "failed", "", "", ""))
            continue
        seeds = " ".join("failed" if s is None else f"{s:.3f}" for s in score["seeds"])
        rows.append(
            (task, f"{score['mean']:.3f}", _interval(score), seeds, f"{score['chance']:.3f}")
        )
    summary = document["summary"]
    weights = " ".join(f"{name} {w:.2f}" for name, w in summary["weights"].items())
    rows.append(("summary", f"{summary['mean']:.3f}", _interval(summary), weights, ""))
    return table("Quality", ("task", "score", "interval", "seeds (weights)", "chance"), rows)


def _interval(score: Record) -> str:
    return f"{score['low']:.3f} .. {score['high']:.3f}"


def curves_picture(path: Path, rows: Sequence[Record]) -> None:
    """Draw loss and validation score against steps, a row of axes for each task."""
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    figure, grid = plt.subplots(len(tasks), 2, figsize=(10, 3 * len(tasks)), squeeze=False)
    for (loss_axes, score_axes), task in zip(grid, tasks, strict=True):
        own = [row for row in rows if row["task"] == task]
        for colour, seed in enumerate(sorted({row["seed"] for row in own})):
            curve = [row for row in own if row["seed"] == seed]
            look = [row for row in curve if row["score"] is not None]
            style = {"color": COLOURS[colour % len(COLOURS)], "label": f"seed {seed}"}
            loss_axes.plot([r["step"] for r in curve], [r["loss"] for r in curve], **style)
            score_axes.plot([r["step"] for r in look], [r["score"] for r in look], "o-", **style)
        loss_axes.set(title=task, xlabel="step", ylabel="training loss (nats)")
        score_axes.set(title=task, xlabel="step", ylabel="validation score", ylim=(-0.02, 1.02))
        for axes in (loss_axes, score_axes):
            axes.grid(True, alpha=0.3)
        score_axes.legend()
    save(figure, path)
