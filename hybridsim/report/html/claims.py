"""The section of the literature's claims."""

from __future__ import annotations

from collections import Counter

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section

COLUMNS = (
    Column("id", "claim", "name"),
    Column("quantity", "quantity", "text"),
    Column("published", "published", "text"),
    Column("ours", "ours", "text"),
    Column("verdict", "verdict", "name"),
    Column("arithmetic", "arithmetic", "text"),
    Column("source", "source", "text"),
)


def section(run: Run) -> Section:
    """Return the claims with their verdicts."""
    claims = run.document["claims"]
    counts = Counter(claim["verdict"] for claim in claims)
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    return Section(
        title="Claims of the literature, recomputed",
        lead=(f"{len(claims)} claims: {verdicts}.",),
        tables=(Table("claims", "Claims", COLUMNS, claims),),
    )
