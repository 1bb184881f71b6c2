"""The section of a proxy training: held-out scores, learning curves, what was spent."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from hybridsim.report.figures import Axis, Bar, BarFigure, Column, LineFigure, Series, Table
from hybridsim.report.html.letters import used
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Facts, Section
from hybridsim.report.units import seconds_text
from hybridsim.spec.parse import parse_spec

Record = dict[str, Any]

SCORE = Axis("held-out score", "share")


def section(run: Run) -> Section:
    """Return a training's scores with intervals over seeds, and its learning curves."""
    document = run.document
    spec = document["spec"]
    fields = spec.get("fields") if isinstance(spec, dict) else None
    model = parse_spec(fields) if fields else None
    name = model.name if model else str(spec)
    return Section(
        title=f"{name}, trained as a proxy",
        lead=("Scores are of held-out sequences; intervals are over seeds.",),
        facts=_facts(document),
        pattern=model.layer_letters if model else "",
        letters=used(model) if model else {},
        figures=(scores_figure(document["scores"]), *curve_figures(run.rows("metrics"))),
        tables=(_scores(document["scores"]),),
    )


def _facts(document: Record) -> Facts:
    proxy = document["proxy"]
    facts = [("proxy", str(proxy["name"] if isinstance(proxy, dict) else proxy))]
    if document.get("summary") is not None:
        facts.append(("weighted for the workload", summary_text(document["summary"])))
    facts.append(("device", str(document["device"])))
    facts.append(("time spent", seconds_text(document["wall_s"])))
    return tuple(facts)


def summary_text(summary: Any) -> str:
    """Return a weighted quality with its interval, as far as it is known."""
    if not isinstance(summary, dict):
        return f"{summary:.3f}"
    value = summary.get("mean", summary.get("value"))
    if value is None:
        return "not known"
    low, high = summary.get("low"), summary.get("high")
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return f"{value:.3f}{interval}"


def scores_figure(scores: dict[str, Record]) -> BarFigure:
    """Return each task's score with its interval and what chance scores."""
    bars = tuple(
        Bar(task, score["mean"], score["low"], score["high"], reference=score["chance"])
        for task, score in scores.items()
        if score["mean"] is not None
    )
    note = "Lines are intervals over seeds, dashed ticks what chance scores."
    return BarFigure("scores", "Held-out scores", note, SCORE, bars)


def curve_figures(rows: list[Record]) -> list[LineFigure]:
    """Return a figure for each task: the validation score of each seed against steps."""
    tasks: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row.get("score") is not None:
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


def _scores(scores: dict[str, Record]) -> Table:
    rows = [
        {
            "task": task,
            "mean": score["mean"],
            "mean_low": score["low"],
            "mean_high": score["high"],
            "chance": score["chance"],
            "seeds": ", ".join("-" if s is None else f"{s:.3f}" for s in score["seeds"]),
        }
        for task, score in scores.items()
    ]
    columns = (
        Column("task", "task", "name"),
        Column("mean", "score", "share"),
        Column("chance", "chance", "share"),
        Column("seeds", "each seed", "name"),
    )
    return Table("scores", "Scores", columns, rows)
