"""The section of a search: frontier, trials for the scatter, gain, importance, what it cost."""

from __future__ import annotations

import shlex
from typing import Any

from hybridsim.report.figures import (
    Axis,
    Bar,
    BarFigure,
    Column,
    Figure,
    Group,
    LineFigure,
    PointFigure,
    Series,
    Table,
)
from hybridsim.report.html.letters import OTHER
from hybridsim.report.html.runs import Record, Run
from hybridsim.report.html.sections import Section, sentence
from hybridsim.report.html.study_rows import FRONT, PLAIN, TRIED, StudyRows

GAIN_COLUMNS = (
    Column("baseline", "plain family", "name"),
    Column("baseline_evaluations", "tried", "count"),
    Column("evaluations", "the search tried", "count"),
    Column("baseline_hypervolume", "its hypervolume", "number"),
    Column("hypervolume", "the search's", "number"),
    Column("gain", "gain", "number"),
    Column("resolved", "resolved", "yes"),
)
LEDGER_COLUMNS = (
    Column("fidelity", "length of training", "name"),
    Column("trials", "trials", "count"),
    Column("candidates", "candidates", "count"),
    Column("baselines", "for plain patterns", "count"),
    Column("wall_s", "time", "seconds"),
)
LOOKS: dict[str, dict[str, Any]] = {
    TRIED: {"faded": True},
    PLAIN: {"colour": 1, "faded": False},
    FRONT: {"colour": 0, "faded": False},
}


def section(run: Run) -> Section:
    """Return a search: what it asked for, its frontier, its trials and what they say."""
    document, study = run.document, StudyRows(run)
    used = set("".join(row["layers"] for row in study.trials))
    return Section(
        title=f"Search {study.name}",
        lead=_lead(document, study),
        facts=tuple(_facts(document)),
        letters={k: v for k, v in study.letters.items() if k in used and v["role"] != OTHER},
        figures=tuple(_figures(run)),
        files=tuple(_scatter(study)),
        tables=tuple(_tables(document, study)),
        pareto=_pareto(study),
    )


def command(run: Run) -> str:
    """Return the command line that a study can be made with again."""
    document = run.document
    origin = document.get("origin", {})
    names = ",".join(o["name"] for o in document["objectives"])
    keys = ("workload", "hardware", "space", "quality", "pressure", "seed")
    words = [f"{key}={origin[key]}" for key in keys if origin.get(key) is not None]
    if "base" in origin:
        words.insert(0, f"spec={origin['base']}")
    if "sampler" in origin:
        words.append(f"sampler={origin['sampler']['kind']}")
    words.append(f"objectives=[{names}]")
    return shlex.join(["hybridsim", "search", f"study={document['study']}", *words])


def _lead(document: Record, study: StudyRows) -> tuple[str, ...]:
    wanted = ", ".join(f"{o['title']} {o['direction']}d" for o in study.objectives)
    lines = [
        f"{document['trials']:,} trials of {len(study.trials):,} candidates;"
        f" {len(study.frontier)} are on the frontier of {wanted}."
    ]
    chosen = document.get("recommended")
    if chosen is not None:
        lines.append(
            f"Recommended: trial {chosen['trial']}, {chosen['layer_pattern']}"
            f" ({chosen['ratio']}), the cheapest whose quality is not resolved from the best."
        )
    if document.get("advice"):
        lines.append(f"The gain over plain patterns is not resolved: {document['advice']}.")
    if document.get("origin", {}).get("quality") == "surrogate":
        lines.append("Qualities are of a stated formula (surrogate), not of trainings.")
    lines += map(sentence, document.get("reliability", ()))
    return tuple(lines)


def _facts(document: Record) -> list[tuple[str, str]]:
    origin = document.get("origin", {})
    keys = ("base", "workload", "hardware", "space", "quality")
    facts = [(key, str(origin[key])) for key in keys if key in origin]
    for pressure in document.get("pressure", ()):
        facts.append((f"pressure on the state, {pressure['proxy']}", pressure["line"]))
    facts.append(("hypervolume", f"{document['hypervolume']:.4f}"))
    for name, agreement in (document.get("rank_agreement") or {}).items():
        text = f"Spearman {agreement['spearman']:.3f} ({agreement['provenance']})"
        facts.append((f"cache bytes rank candidates as {name} does", text))
    return facts


def _pareto(study: StudyRows) -> Record:
    """Return what the scatter of the page needs; of very many trials, some of the dominated."""
    shown = study.thinned()
    keys = list(dict.fromkeys(key for row in shown for key in row))
    note = "Filled by how likely a design is on the frontier; lines are its intervals."
    if len(shown) < len(study.trials):
        left_out = len(study.trials) - len(shown)
        note += f" {left_out:,} of {len(study.trials):,}, all dominated, are in the CSV only."
    return {
        "title": f"Candidates of {study.name}",
        "note": note,
        "objectives": study.objectives,
        "groups": {"front": FRONT, "plain": PLAIN},
        "keys": keys,
        "rows": [[row.get(key) for key in keys] for row in shown],
        "published": study.published(),
        "columns": [vars(column) for column in _trial_columns(study)],
    }


def _trial_columns(study: StudyRows) -> tuple[Column, ...]:
    return (
        Column("trial", "trial", "count"),
        Column("layers", "layers", "pattern"),
        Column("full_layers", "full layers", "count"),
        *(Column(o["name"], o["title"], o["kind"]) for o in study.objectives),
        Column("group", "which", "name"),
    )


def _tables(document: Record, study: StudyRows) -> list[Table]:
    tables = [
        _frontier(study),
        Table("trials", "Candidates", _trial_columns(study), study.trials, on_page=False),
    ]
    gains = [_gain(gain) for gain in document.get("gains", [])]
    if gains:
        title = "Gain over plain patterns with as many evaluations, or all that they have"
        tables.append(Table("gains", title, GAIN_COLUMNS, gains, "Intervals are 90 %."))
    if document.get("ledger"):
        tables.append(Table("ledger", "What was spent", LEDGER_COLUMNS, document["ledger"]))
    return tables


def _gain(gain: Record) -> Record:
    difference = gain["hypervolume"] - gain["baseline_hypervolume"]
    return {**gain, "gain": difference, "gain_low": gain["low"], "gain_high": gain["high"]}


def _frontier(study: StudyRows) -> Table:
    rows = [{**row, "rebuild": f"spec=study/{study.name}/{row['trial']}"} for row in study.frontier]
    columns = (
        Column("trial", "trial", "count"),
        Column("layers", "layers", "pattern"),
        Column("full_layers", "full layers", "count"),
        Column("ratio", "ratio", "name"),
        *([Column("changes", "changed", "text")] if any(r["changes"] for r in rows) else []),
        *(Column(o["name"], o["title"], o["kind"]) for o in study.objectives),
        Column("probability", "on the frontier with", "share"),
        Column("rebuild", "wherever a spec goes", "name"),
    )
    note = "Below each figure its interval and where it comes from."
    return Table("frontier", "Frontier", columns, rows, note)


def _scatter(study: StudyRows) -> list[PointFigure]:
    """Return the first two objectives of every candidate; the page's scatter has all of them."""
    if len(study.objectives) < 2:
        return []
    x, y = study.objectives[:2]
    groups = [
        _group(name, [row for row in study.trials if row["group"] == name], x, y, look)
        for name, look in LOOKS.items()
    ]
    known = _group("published design", study.published(), x, y, {"colour": 5, "named": True})
    note = "All objectives decide what is on the frontier, not these two alone."
    axes = [Axis(f"{o['title']}, {o['direction']}", o["kind"]) for o in (x, y)]
    drawn = tuple(group for group in (*groups, known) if group.x)
    return [PointFigure("pareto", f"Candidates of {study.name}", note, axes[0], axes[1], drawn)]


def _group(name: str, rows: list[Record], x: Record, y: Record, look: dict[str, Any]) -> Group:
    across, up = (tuple(row[axis["name"]] for row in rows) for axis in (x, y))
    labels = tuple(str(row.get("name", row["trial"])) for row in rows)
    return Group(name, across, up, labels, **look)


def _figures(run: Run) -> list[Figure]:
    history, importance = run.rows("hypervolume"), run.document.get("importance")
    figures: list[Figure] = []
    if history:
        figures.append(_hypervolume(history, run.document.get("gains", [])))
    if importance:
        figures.append(_importance(importance))
    return figures


def _hypervolume(rows: list[Record], gains: list[Record]) -> LineFigure:
    places = tuple(range(1, len(rows) + 1))
    found = tuple(row["hypervolume"] for row in rows)
    plain = [
        Series(
            f"{gain['baseline']}, {gain['baseline_evaluations']} evaluations",
            (1, len(rows)),
            (gain["baseline_hypervolume"],) * 2,
            colour=1 + place,
            dashed=True,
        )
        for place, gain in enumerate(gains)
    ]
    return LineFigure(
        "hypervolume",
        "Hypervolume over trials",
        "The part of the box between the best and the worst of each objective that is dominated.",
        Axis("trials", "count"),
        Axis("hypervolume", "number"),
        (Series("search", places, found, stepped=True), *plain),
    )


def _importance(rows: list[Record]) -> BarFigure:
    bars = tuple(
        Bar(
            str(row["layer"]),
            row["effect"],
            row["low"],
            row["high"],
            faded=row["low"] <= 0 <= row["high"],
        )
        for row in rows
    )
    return BarFigure(
        "importance",
        "Which layers want full attention",
        "Effect on the quality at an equal number of full layers, with its 90 % interval; faded"
        " where that holds zero.",
        Axis("effect", "number"),
        bars,
        upright=True,
    )
