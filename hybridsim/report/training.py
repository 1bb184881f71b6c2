"""Tables and figures of short trainings, from records only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from hybridsim.report.figures import Axis, Bar, BarFigure, LineFigure, Series
from hybridsim.report.tables import table

Record = dict[str, Any]

SCORE = Axis("held-out score", "share")
SPEED = "(speed)"  # tasks that a budget is too short for


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
        *map(Text, speed_notes(document)),
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
    titles = task_titles(document)
    for name, score in document["scores"].items():
        task = titles[name]
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


def task_titles(document: Record) -> dict[str, str]:
    """Return what tasks are called: those that say how soon, and are in no summary, are marked."""
    soon, counted = document["proxy"].get("speed_tasks", ()), document["summary"]["weights"]
    return {
        task: f"{task} {SPEED}" if task in soon and task not in counted else task
        for task in document["scores"]
    }


def speed_notes(document: Record) -> list[str]:
    """Return what the mark of tasks means, where one that is shown has it."""
    is_marked = any(title.endswith(SPEED) for title in task_titles(document).values())
    return [f"{SPEED}: how soon it is learnt; not in the summary."] * is_marked


def _interval(score: Record) -> str:
    return f"{score['low']:.3f} .. {score['high']:.3f}"


def scores_figure(document: Record) -> BarFigure:
    """Return each task's score with its interval and what chance scores."""
    titles = task_titles(document)
    bars = tuple(
        Bar(titles[task], score["mean"], score["low"], score["high"], reference=score["chance"])
        for task, score in document["scores"].items()
        if score is not None
    )
    note = "Lines are 95 % intervals over seeds, dashed ticks what chance scores."
    told = " ".join([note, *speed_notes(document)])
    return BarFigure("scores", "Held-out scores", told, SCORE, bars)


def curve_figures(rows: list[Record]) -> list[LineFigure]:
    """Return a figure for each task: the validation score of each seed against steps."""
    tasks: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["score"] is not None:
            tasks[str(row["task"])][f"seed {row['seed']}"].append(row)
    return [_curves(task, seeds) for task, seeds in tasks.items()]


def _curves(task: str, seeds: dict[str, list[Record]]) -> LineFigure:
    series = tuple(
        Series(
            seed,
            tuple(row["step"] for row in rows),
            tuple(row["score"] for row in rows),
            colour=place,
        )
        for place, (seed, rows) in enumerate(seeds.items())
    )
    return LineFigure(
        f"curves_{task}",
        f"{task}: score while training",
        "Validation sequences, apart from those of the scores.",
        Axis("optimizer steps", "count"),
        Axis("score", "share"),
        series,
    )
