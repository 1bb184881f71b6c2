"""How far a proxy can be trusted: what `hybridsim validate` found, kept for every report."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

SCHEMA = "hybridsim/validate/1"
REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED = "reproduced", "not reproduced", "not resolved"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, NOT_RESOLVED)
DATA_DIR = Path(__file__).parent / "data"
# Settings of a proxy that its scores depend on, as the line calls them.
DECISIVE = {
    "model": "model",
    "training": "training",
    "seeds": "seeds",
    "grid": "learning rates (proxy.grid=true measures them)",
}


@final
@dataclass(frozen=True)
class Finding:
    """One check's answer.

    Attributes:
        name: of the check, or the claim's id.
        question: what was asked, in a line.
        verdict: one of VERDICTS.
        figures: the numbers, as a line.
        values: the same as data.
    """

    name: str
    question: str
    verdict: str
    figures: str
    values: dict[str, Any] = field(default_factory=dict)


def document_of(proxy: str, findings: list[Finding], **more: Any) -> dict[str, Any]:
    """Return the record of a validation."""
    return {
        "schema": SCHEMA,
        "proxy": proxy,
        "findings": [_finite(asdict(finding)) for finding in findings],
        "counts": {v: sum(f.verdict == v for f in findings) for v in VERDICTS},
        **more,
    }


def _finite(value: Any) -> Any:
    """Return plain data with None for what is no number: JSON has none, as orders of ties have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shipped_record(proxy: str) -> dict[str, Any] | None:
    """Return the validation of a proxy that hybridsim ships, None where it ships none."""
    path = DATA_DIR / f"reliability_{proxy}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def summary_line(
    proxy: str, settings: Mapping[str, Any] | None = None, pressed: bool = False
) -> str:
    """Return the line on a proxy's reliability that every report of its results carries.

    Args:
        proxy: its name.
        settings: what it was used with, as `proxy_record` has them; None for those of the
            validation. The line says which of those given are other ones.
        pressed: whether its tasks were put at another pressure than their own.
    """
    record = shipped_record(proxy)
    if record is None:
        does_it = f"hybridsim validate proxy={proxy} does it"
        return f"reliability of the proxy {proxy}: not measured; {does_it}"
    counts = ", ".join(f"{count} {verdict}" for verdict, count in record["counts"].items())
    key = {f["name"]: f["figures"] for f in record["findings"]}
    shown = "; ".join([counts, *(key[name] for name in ("retest", "budget") if name in key)])
    where = ", at its own pressure" if pressed else ""
    others = _other_settings(record.get("settings"), settings, pressed)
    where += f", measured with other {' and '.join(others)}" if others else ""
    return f"reliability of the proxy {proxy} ({record['device']}{where}): {shown}"


def _other_settings(
    validated: Mapping[str, Any] | None, used: Mapping[str, Any] | None, pressed: bool
) -> list[str]:
    """Return the settings that differ from those of the validation and that scores depend on."""
    if validated is None or used is None:
        return []
    was, now = (json.loads(json.dumps(settings)) for settings in (validated, used))
    found = [told for name, told in DECISIVE.items() if name in now and now[name] != was[name]]
    # Some of its tasks are no other tasks; under pressure they are, which the line says by itself.
    tasks = now.get("tasks", {})
    others = {name for name, task in tasks.items() if was["tasks"].get(name) != task}
    speed_then, speed = (set(settings.get("speed_tasks", ())) for settings in (was, now))
    if (speed_then ^ speed) & set(tasks) or (others - speed and not pressed):
        found.append("tasks")
    elif others & speed:
        found.append("speed tasks")
    return found
