"""The section of a proxy's validation: how far its scores can be trusted."""

from __future__ import annotations

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section

COLUMNS = (
    Column("name", "check", "name"),
    Column("question", "question", "text"),
    Column("verdict", "verdict", "name"),
    Column("figures", "figures", "text"),
)


def section(run: Run) -> Section:
    """Return the checks of a proxy with their verdicts."""
    document = run.document
    counts = ", ".join(f"{count} {verdict}" for verdict, count in document["counts"].items())
    lead = [f"Of {len(document['findings'])} checks: {counts}."]
    if missing := document.get("not_measured"):
        lead.append(f"Not measured: {', '.join(missing)}.")
    return Section(
        title=f"Reliability of the proxy {document['proxy']}",
        lead=tuple(lead),
        tables=(Table("reliability", "Checks", COLUMNS, document["findings"]),),
    )
