"""Checked claims: for the terminal, as Markdown, and as rows."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

Record = dict[str, Any]

STYLES = {
    "reproduced": "green",
    "within bounds": "cyan",
    "contradicted": "bold red",
    "not computable": "dim",
}


def claims_report(document: Record) -> RenderableType:
    """Return every claim with its figures, and how many of each verdict there are."""
    made = Table(
        title="Claims of the literature, recomputed",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    for column in ("claim", "figure", "published", "ours", "verdict", "arithmetic"):
        made.add_column(column, overflow="fold", no_wrap=column in ("claim", "verdict"))
    for claim in document["claims"]:
        _add(made, claim)
    return Group(made, Text(summary(document)))


def _add(made: Table, claim: Record) -> None:
    head = Text(claim["quantity"], style="bold")
    why = claim["note"] or claim["conditions"]
    made.add_row(
        claim["id"], head, claim["published"], "", _verdict(claim["verdict"]), Text(why, "italic")
    )
    for figure in claim["figures"]:
        made.add_row(
            "",
            f"  {figure['name']}",
            figure["published"],
            figure["ours"],
            Text(figure["verdict"], STYLES[figure["verdict"]]),
            figure["arithmetic"],
        )
    made.add_section()


def _verdict(word: str) -> Text:
    return Text(word.upper(), STYLES[word])


def summary(document: Record) -> str:
    """Return how many claims there are of each verdict."""
    counts = Counter(claim["verdict"] for claim in document["claims"])
    parts = ", ".join(f"{counts[word]} {word}" for word in STYLES if counts[word])
    return f"{len(document['claims'])} claims: {parts}"


def figure_rows(document: Record) -> list[Record]:
    """Return one row per figure, its claim's words beside it."""
    words = ("id", "quantity", "conditions", "source", "grade")
    return [
        {**{key: claim[key] for key in words}, "claim_verdict": claim["verdict"], **figure}
        for claim in document["claims"]
        for figure in claim["figures"]
    ]


def claims_markdown(document: Record) -> str:
    """Return the document as Markdown: a table of claims, then each with its arithmetic."""
    lines = ["# Claims of the literature, recomputed", "", summary(document) + ".", ""]
    lines += ["| claim | about | published | verdict |", "| --- | --- | --- | --- |"]
    lines += [
        f"| [{c['id']}](#{c['id'].lower()}) | {c['quantity']} | {c['published']} | {c['verdict']} |"
        for c in document["claims"]
    ]
    for claim in document["claims"]:
        lines += ["", *_section(claim)]
    return "\n".join(lines) + "\n"


def _section(claim: Record) -> list[str]:
    said = f"**{claim['quantity']}**: {claim['published']} ({claim['conditions']})."
    lines = [
        f"## {claim['id']}",
        "",
        f"{said} {claim['source']}.",
        "",
        f"Verdict: **{claim['verdict']}**. {claim['note']}".rstrip(),
        "",
        "| figure | published | ours | verdict | from | arithmetic |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    return lines + [
        f"| {f['name']} | {f['published'] or '-'} | {f['ours']} | {f['verdict']}"
        f" | {f['provenance'] or '-'} | {f['arithmetic']} |"
        for f in claim["figures"]
    ]
