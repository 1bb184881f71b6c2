"""The section of a proxy training: held-out scores, learning curves, what was spent."""

from __future__ import annotations

from typing import Any

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.letters import used
from hybridsim.report.html.runs import Record, Run
from hybridsim.report.html.sections import Facts, Section, sentence
from hybridsim.report.training import curve_figures, scores_figure, speed_notes, task_titles
from hybridsim.report.units import exact, seconds_text
from hybridsim.spec.parse import parse_spec
from hybridsim.train.reliability import summary_line

SCORE_COLUMNS = (
    Column("task", "task", "name"),
    Column("mean", "score", "share"),
    Column("chance", "chance", "share"),
    Column("seeds", "each seed", "name"),
)
RATE_COLUMNS = (
    Column("letter", "letter", "name"),
    Column("value", "learning rate", "number"),
    Column("source", "from", "name"),
    Column("scores", "score of each rate tried", "text"),
)
FAILURE_COLUMNS = (
    Column("task", "task", "name"),
    Column("seed", "seed", "count"),
    Column("status", "what happened", "name"),
    Column("cause", "cause", "text"),
)
NO_PRESSURE = {"option": None, "line": "not recorded"}  # of records of earlier versions


def section(run: Run) -> Section:
    """Return a training's scores with intervals over seeds, and its learning curves."""
    document = run.document
    is_pressed = document.get("pressure", NO_PRESSURE)["option"] is not None
    twin = parse_spec(document["twin"])
    return Section(
        title=f"{document['spec']['name']}, trained as a proxy",
        lead=(
            "Scores are of held-out sequences; intervals are 95 % ones over seeds.",
            *speed_notes(document),
            sentence(summary_line(document["proxy"]["name"], document["proxy"], is_pressed)),
        ),
        facts=_facts(document),
        pattern=twin.layer_letters,
        letters=used(twin),
        figures=(scores_figure(document), *curve_figures(run.rows("curves"))),
        tables=tuple(table for table in _tables(document) if table.rows),
    )


def _facts(document: Record) -> Facts:
    spec, summary, spent = document["spec"], document["summary"], document["ledger"]
    weights = ", ".join(f"{name} {weight:.2f}" for name, weight in summary["weights"].items())
    return (
        ("pattern", f"{spec['layer_pattern']}, trained as {spec['proxy_pattern']}"),
        ("proxy", str(document["proxy"]["name"])),
        (
            "weighted for the workload",
            f"{summary['mean']:.3f} ({summary['low']:.3f} to {summary['high']:.3f}); {weights}",
        ),
        ("device", str(document["device"])),
        ("models trained", f"{exact(spent['models'])}, {exact(spent['failed'])} failed"),
        ("tokens", exact(spent["tokens"])),
        ("time", seconds_text(document["wall_s"])),
        ("pressure on the state", str(document.get("pressure", NO_PRESSURE)["line"])),
    )


def _tables(document: Record) -> list[Table]:
    rates = [
        {**rate, "letter": letter, "scores": _each(rate["scores"])}
        for letter, rate in document["learning_rates"].items()
    ]
    return [
        Table("scores", "Scores", SCORE_COLUMNS, _score_rows(document)),
        Table(
            "rates", "Learning rates, of which all layers have the smallest", RATE_COLUMNS, rates
        ),
        Table("failures", "Trainings without a score", FAILURE_COLUMNS, document["failures"]),
    ]


def _score_rows(document: Record) -> list[Record]:
    titles = task_titles(document)
    return [
        {"task": titles[task], "mean": None, "seeds": "all failed"}
        if score is None
        else {
            "task": titles[task],
            "mean": score["mean"],
            "mean_low": score["low"],
            "mean_high": score["high"],
            "chance": score["chance"],
            "seeds": ", ".join("failed" if s is None else f"{s:.3f}" for s in score["seeds"]),
        }
        for task, score in document["scores"].items()
    ]


def _each(scores: dict[str, Any]) -> str:
    return ", ".join(
        f"{rate}: {'failed' if score is None else format(score, '.3f')}"
        for rate, score in scores.items()
    )
