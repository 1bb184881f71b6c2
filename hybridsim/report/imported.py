"""What `import` prints: the layers that were read, the totals, and what was left out."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from hybridsim.report.units import exact


def import_report(document: dict[str, Any]) -> RenderableType:
    """Return everything `import` prints, in reading order."""
    spec, parameters = document["spec"], document["parameters"]
    rows = [
        ("layers", f"{spec['num_layers']}: {document['layer_pattern']}"),
        ("feed-forwards", document["ffn_pattern"]),
        ("parameters", exact(parameters["total"])),
        ("active per token", exact(parameters["active"])),
        *(("left out", note) for note in document["notes"]),
        ("written", document["written"]),
    ]
    lines = [Text(f"  {name:18s}{value}") for name, value in rows]
    return Group(Text.assemble((spec["name"], "bold"), f"  {document['architecture']}"), *lines)
