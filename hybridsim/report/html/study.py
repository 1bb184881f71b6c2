"""The section of a search: frontier, all trials for the scatter, importance, hypervolume."""

from __future__ import annotations

from collections.abc import Sequence
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
from hybridsim.report.html.letters import FULL, Letters, meanings
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section
from hybridsim.spec.parse import parse_spec

Record = dict[str, Any]

MAX_TRIALS = 4000  # on the page; the files have all
TRIALS = "Trials, those on the frontier first"
KINDS = {"s": "seconds", "B": "bytes", "tokens/s": "count", "USD": "usd"}
ENDS = ("", "_low", "_high", "_provenance")


def section(run: Run) -> Section:
    """Return a search: what it asked for, its frontier, its trials and what they say."""
    document = run.document
    objectives = [{**o, "kind": KINDS.get(o["unit"], "number")} for o in document["objectives"]]
    letters = _letters(run)
    frontier = [_frontier_row(row, letters) for row in document["frontier"]]
    trials = _trials(run, objectives, frontier, letters)
    published = [_frontier_row(row, letters) for row in document.get("published", [])]
    return Section(
        title=f"Search {document['study']}",
        lead=_lead(document, frontier, trials),
        letters=letters,
        figures=tuple(_figures(document)),
        files=tuple(_scatter(document["study"], objectives, frontier, trials, published)),
        tables=(
            _frontier_table(document["study"], objectives, frontier),
            Table("trials", TRIALS, tuple(_trial_columns(objectives)), trials, on_page=False),
        ),
        pareto=_pareto(document["study"], objectives, trials, published),
    )


def _letters(run: Run) -> Letters:
    """Return what the letters mean: of the base spec, in the study's own record."""
    for document in (run.document, run.beside("study")):
        base = document.get("base")
        if isinstance(base, dict):
            return meanings(parse_spec(base.get("fields", base)))
    return {}


def _lead(document: Record, frontier: list[Record], trials: list[Record]) -> tuple[str, ...]:
    wanted = ", ".join(f"{o['name']} ({o['direction']})" for o in document["objectives"])
    lines = [f"{len(trials):,} trials, {len(frontier)} on the frontier of {wanted}."]
    if document.get("verdict"):
        lines.append(str(document["verdict"]))
    return tuple(lines)


def _full_layers(pattern: str, letters: Letters) -> int:
    return sum(letters.get(letter, {}).get("role") == FULL for letter in pattern)


def _frontier_row(row: Record, letters: Letters) -> Record:
    """Return a design flat: NAME, NAME_low, NAME_high, NAME_provenance for each objective."""
    flat = {key: value for key, value in row.items() if key != "values"}
    for name, value in row["values"].items():
        if isinstance(value, dict):
            flat |= {f"{name}{end}": value.get(end.lstrip("_") or "value") for end in ENDS}
        else:
            flat[name] = value
    return {**flat, "full_layers": _full_layers(row["layer_pattern"], letters)}


def _trials(
    run: Run, objectives: list[Record], frontier: list[Record], letters: Letters
) -> list[Record]:
    """Return the trials that have every objective, those on the frontier first."""
    best = {row["trial"]: row for row in frontier}
    names = [objective["name"] for objective in objectives]
    kept = ["trial", "layer_pattern", *(f"{name}{end}" for name in names for end in ENDS)]
    rows = [
        {
            **{key: row[key] for key in kept if key in row},
            "full_layers": _full_layers(row["layer_pattern"], letters),
            "front": row["trial"] in best,
            "probability": best.get(row["trial"], {}).get("probability"),
        }
        for row in run.rows("trials")
        if all(row.get(name) is not None for name in names)
    ]
    known = {row["trial"] for row in rows}
    missing = [{**row, "front": True} for row in frontier if row["trial"] not in known]
    return sorted([*missing, *rows], key=lambda row: not row["front"])


def _pareto(
    study: str, objectives: list[Record], trials: list[Record], published: list[Record]
) -> Record:
    """Return what the scatter of the page needs; of very many trials, some of the dominated."""
    shown = thinned(trials)
    keys = list(dict.fromkeys(key for row in shown for key in row))
    left_out = len(trials) - len(shown)
    note = "Filled by how likely a design is on the frontier; lines are its intervals."
    if left_out:
        note += f" {left_out:,} of {len(trials):,} trials, all dominated, are in the CSV only."
    return {
        "title": f"Trials of {study}",
        "note": note,
        "objectives": [
            {**o, "title": o["name"].replace("_", " ") + (f" ({o['unit']})" if o["unit"] else "")}
            for o in objectives
        ],
        "keys": keys,
        "rows": [[row.get(key) for key in keys] for row in shown],
        "published": published,
        "trials_title": TRIALS,
        "columns": [vars(c) for c in _trial_columns(objectives)],
    }


def thinned(trials: list[Record]) -> list[Record]:
    """Return at most MAX_TRIALS, the frontier whole and the others evenly."""
    front = [row for row in trials if row["front"]]
    others = [row for row in trials if not row["front"]]
    room = max(0, MAX_TRIALS - len(front))
    if len(others) > room:
        others = [others[i * len(others) // room] for i in range(room)]
    return [*front, *others]


def _trial_columns(objectives: list[Record]) -> list[Column]:
    return [
        Column("trial", "trial", "count"),
        Column("layer_pattern", "layers", "pattern"),
        Column("full_layers", "full layers", "count"),
        *(Column(o["name"], o["name"].replace("_", " "), o["kind"]) for o in objectives),
        Column("front", "on the frontier", "yes"),
    ]


def _frontier_table(study: str, objectives: list[Record], frontier: list[Record]) -> Table:
    rows = [{**row, "rebuild": f"spec=study/{study}/{row['trial']}"} for row in frontier]
    columns = (
        Column("trial", "trial", "count"),
        Column("layer_pattern", "layers", "pattern"),
        Column("full_layers", "full layers", "count"),
        *(Column(o["name"], o["name"].replace("_", " "), o["kind"]) for o in objectives),
        Column("probability", "on the frontier with", "share"),
        Column("rebuild", "as a spec", "name"),
    )
    note = "Below each figure its interval and where it comes from."
    return Table("frontier", "Frontier", columns, rows, note)


def _figures(document: Record) -> list[Figure]:
    builders = {"hypervolumes": _hypervolume, "importance": _importance}
    return [build(document[key]) for key, build in builders.items() if document.get(key)]


def _scatter(
    study: str,
    objectives: Sequence[Record],
    frontier: list[Record],
    trials: list[Record],
    published: list[Record],
) -> list[PointFigure]:
    """Return the first two objectives of every trial; the page's scatter has all of them."""
    if len(objectives) < 2:
        return []
    x, y = objectives[:2]
    others = [row for row in trials if not row["front"]]

    def group(name: str, rows: list[Record], label: str, **look: Any) -> Group:
        across, up = (tuple(row.get(axis["name"]) for row in rows) for axis in (x, y))
        return Group(name, across, up, tuple(str(row.get(label, "")) for row in rows), **look)

    others = [row for row in trials if not row["front"]]
    groups = [group("dominated", others, "trial", faded=True)] if others else []
    groups.append(group("frontier", frontier, "trial"))
    if published:
        groups.append(group("published design", published, "name", colour=5, named=True))
    note = "All objectives decide what is on the frontier, not these two alone."
    axes = [Axis(f"{o['name'].replace('_', ' ')}, {o['direction']}", o["kind"]) for o in (x, y)]
    return [PointFigure("pareto", f"Trials of {study}", note, axes[0], axes[1], tuple(groups))]


def _hypervolume(rows: list[Record]) -> LineFigure:
    places = tuple(range(1, len(rows) + 1))
    series = Series("hypervolume", places, tuple(rows), stepped=True)  # type: ignore[arg-type]
    return LineFigure(
        "hypervolume",
        "Hypervolume over trials",
        "What the frontier so far dominates; more is better.",
        Axis("trials", "count"),
        Axis("hypervolume", "number"),
        (series,),
    )


def _importance(rows: list[Record]) -> BarFigure:
    bars = tuple(
        Bar(
            str(row["layer"]),
            row["value"],
            row.get("low"),
            row.get("high"),
            faded=not _resolved(row),
        )
        for row in rows
    )
    return BarFigure(
        "importance",
        "Which layers want full attention",
        "Effect of full attention in a layer, with its interval; faded where that holds zero.",
        Axis("effect", "number"),
        bars,
        upright=True,
    )


def _resolved(row: Record) -> bool:
    """Whether a layer's effect is apart from zero."""
    low, high = row.get("low"), row.get("high")
    return low is None or high is None or low > 0 or high < 0
