"""The tables that a search ends with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridsim.report.tables import table
from hybridsim.report.units import bytes_text, decimal_text, seconds_text

Document = dict[str, Any]

LEAST_TRIED = 5  # candidates with, and without, full attention in a layer for a verdict on it


def report(document: Document) -> RenderableType:
    """Return everything, in reading order."""
    parts = [
        _heading(document),
        frontier_table(document),
        *_gain_parts(document),
        *_importance_parts(document),
        ledger_table(document),
        _proxies_text(document),
        _rank_text(document),
        commands(document),
    ]
    return Group(*parts)


def _heading(document: Document) -> Text:
    origin, enumerated = document["origin"], document["enumerated"]
    covered = (
        f"all {enumerated['placements']:,} candidates by {enumerated['classes']:,} classes"
        if enumerated
        else f"{document['candidates']:,} of {_many(document['space_size'])} candidates"
    )
    lines = Text.assemble(
        (f"study {document['study']}", "bold"),
        f"  {origin['base']} for {origin['workload']} on {origin['hardware']}\n",
        f"{covered}; hypervolume {document['hypervolume']:.4f} of the box between the best and"
        " the worst of each objective\n",
    )
    if origin["quality"] == "surrogate":
        lines.append("qualities are of a stated formula (surrogate), not of trainings\n", "yellow")
    return lines


def _many(count: int) -> str:
    return f"{count:,}" if count < 10**12 else f"{float(count):.2g}"


def frontier_table(document: Document) -> Table:
    """Return the frontier: pattern, ratio, objectives with interval and provenance.

    Several lines a design, so that two objectives fit 80 columns.
    """
    objectives = document["objectives"]
    chosen = document["recommended"]
    heads = ["pattern", *(o["name"] for o in objectives), "on front"]
    rows = []
    for row in document["frontier"]:
        values = [_value_text(o["unit"], row["values"][o["name"]]) for o in objectives]
        marked = chosen is not None and row["trial"] == chosen["trial"]
        rows.append([_design_text(row, marked), *values, f"{row['probability']:.0%}"])
    title = "Frontier, with 90 % intervals"
    if chosen is not None:
        title += "; * the cheapest that is not resolved to be worse than the best"
    made = table(title, heads, rows)
    made.columns[0].no_wrap = False  # where room is short, patterns are folded, not figures cut
    return made


def _design_text(row: Document, marked: bool) -> str:
    lines = [
        f"{row['layers']}{' *' if marked else ''}",
        f"trial {row['trial']}: {row['full_layers']} full, {row['ratio']}",
        f"{row['layers_unlike_base']} layers unlike the base",
    ]
    return "\n".join([*lines, *(f"{key}={value}" for key, value in row["changes"].items())])


def _value_text(unit: str, value: Document) -> str:
    text = _unit_text(unit, value["value"])
    if value["low"] is not None and value["low"] < value["high"]:
        text += f"\n[{_unit_text(unit, value['low'])}, {_unit_text(unit, value['high'])}]"
    return f"{text}\n{value['provenance']}"


def _unit_text(unit: str, value: float) -> str:
    if unit == "s":
        return seconds_text(value)
    if unit == "B":
        return bytes_text(value)
    if unit == "tokens/s":
        return f"{decimal_text(value)}tok/s"
    if unit == "USD":
        return f"{value:.3g} USD"
    return f"{value:.3f}" if abs(value) <= 1 else decimal_text(value)


def _gain_parts(document: Document) -> list[RenderableType]:
    if not document["gains"]:
        return []
    rows = [
        (
            gain["baseline"],
            f"{gain['baseline_hypervolume']:.4f}\nof {gain['baseline_evaluations']} tried",
            f"{gain['hypervolume']:.4f}\nof {gain['evaluations']} tried",
            f"{gain['hypervolume'] - gain['baseline_hypervolume']:+.4f}"
            f"\n[{gain['low']:+.4f}, {gain['high']:+.4f}]",
            "yes" if gain["resolved"] else "no",
        )
        for gain in document["gains"]
    ]
    heads = ("plain family", "hypervolume", "ours", "gain", "resolved")
    parts: list[RenderableType] = [
        table(
            "Gain over plain patterns with as many evaluations, or all that they have", heads, rows
        )
    ]
    if document["advice"]:
        parts.append(Text(f"The gain is not resolved: {document['advice']}\n", "yellow"))
    return parts


def _importance_parts(document: Document) -> list[RenderableType]:
    importance = document["importance"]
    if not importance:
        return []
    rows = [
        (
            str(row["layer"]),
            f"{row['effect']:+.4f}",
            f"[{row['low']:+.4f}, {row['high']:+.4f}]",
            str(row["tried"]),
            _verdict(row),
        )
        for row in importance
    ]
    heads = ("layer", "effect", "90 %", "tried", "full attention")
    title = "Full attention in one layer, at an equal number of full layers"
    return [table(title, heads, rows)]


def _verdict(row: Document) -> str:
    """Return what an interval says; nothing of layers hardly tried, or hardly spared."""
    if min(row["tried"], row["spared"]) < LEAST_TRIED:
        return "hardly tried" if row["tried"] < LEAST_TRIED else "hardly spared"
    return "wants it" if row["low"] > 0 else "does not" if row["high"] < 0 else ""


def ledger_table(document: Document) -> Table:
    """Return what was spent."""
    rows = [
        (
            row["fidelity"],
            str(row["trials"]),
            str(row["candidates"]),
            str(row["baselines"]),
            seconds_text(row["wall_s"]) if row["wall_s"] else "-",
        )
        for row in document["ledger"]
    ]
    return table("Spent", ("length", "trials", "candidates", "for baselines", "time"), rows)


def _proxies_text(document: Document) -> Text:
    """Return what the proxies that were used asked, and how far they can be trusted."""
    # (Studies written by earlier versions have neither.)
    lines = [
        f"pressure on the state, {pressure['proxy']}: {pressure['line']}"
        for pressure in document.get("pressure", ())
    ]
    return Text("".join(f"{line}\n" for line in (*lines, *document.get("reliability", ()))))


def _rank_text(document: Document) -> Text:
    agreement: dict[str, Document] = document["rank_agreement"] or {}
    lines = [
        f"cache bytes rank candidates as {name} ({one['provenance']}) does:"
        f" Spearman {one['spearman']:.3f}\n"
        for name, one in agreement.items()
    ]
    return Text("".join(lines))


def commands(document: Document) -> Text:
    """Return the commands that rebuild each winner."""
    study = document["study"]
    lines = [f"  hybridsim profile spec=study/{study}/{row['trial']}"
             for row in _winners(document)]  # fmt: skip
    if not lines:
        return Text("")
    return Text("Rebuild with (describe, train and export too):\n" + "\n".join(lines) + "\n")


def _winners(document: Document, most: int = 5) -> Sequence[Document]:
    """Return the recommended design first, then the likeliest of the frontier."""
    chosen = document["recommended"]
    rows = sorted(document["frontier"], key=lambda row: -row["probability"])
    if chosen is not None:
        rows = [chosen, *(row for row in rows if row["trial"] != chosen["trial"])]
    return rows[:most]
