"""Several profiles side by side, for the terminal and as flat rows."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridsim.report.tables import table
from hybridsim.report.times import origin_text
from hybridsim.report.units import bytes_text, decimal_text, exact, seconds_text, tokens_text

Record = dict[str, Any]


def comparison_report(document: Record) -> RenderableType:
    """Return everything a comparison shows, in reading order."""
    rows = document["rows"]
    quality = [_quality_table(rows)] if any(row["quality"] for row in rows) else []
    served = [_served_table(document["served"])] if document.get("served") else []
    verdicts = Text("\n".join(f"  {row['verdict']}" for row in rows))
    return Group(
        models_table(rows),
        *(workload_table(group) for group in _groups(rows)),
        crossings_table(rows),
        *quality,
        *served,
        Text("Do they pay off?", "bold"),
        verdicts,
    )


def _mean(quality: Record | None) -> float | None:
    """Return the one number that sums a training up."""
    summary = None if quality is None else quality["summary"]
    return summary["mean"] if isinstance(summary, dict) else summary


def _groups(rows: list[Record]) -> list[list[Record]]:
    """Return the rows that only differ in the model together."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for row in rows:
        key = (row["workload"], row["hardware"], row["num_devices"])
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def flat_rows(document: Record) -> list[Record]:
    """Return the rows without nesting, ratios as columns that begin with `ratio_`."""
    return [
        {
            **{key: value for key, value in row.items() if key not in ("ratios", "quality")},
            **{f"ratio_{key}": value for key, value in row["ratios"].items()},
            "quality": _mean(row["quality"]),
        }
        for row in document["rows"]
    ]


def models_table(rows: list[Record]) -> Table:
    """Return what each model is and keeps, exact."""
    lines = {
        (row["spec"], row["overrides"]): (
            row["spec"],
            with_ratio(row, exact(row["parameters"]), "parameters"),
            with_ratio(row, exact(row["active_parameters"]), "active_parameters"),
            with_ratio(row, exact(row["kv_bytes_per_token"]), "kv_bytes_per_token"),
            exact(row["state_bytes_per_sequence"]),
            row["overrides"],
        )
        for row in rows
    }
    columns = ("spec", "parameters", "active", "KV B/token", "state B", "overrides")
    title = f"Models, exact; in brackets the ratio to {rows[0]['spec']}"
    return table(title, columns, lines.values())


def with_ratio(row: Record, text: str, key: str) -> str:
    """Return a figure's text with its ratio to the baseline."""
    ratio = row["ratios"][key]
    return text if ratio is None else f"{text} ({ratio:.3g}x)"


def workload_table(rows: list[Record]) -> Table:
    """Return the models' times and rates for one workload on one device."""
    first = rows[0]
    origins = origin_text(row["latency_provenance"] for row in rows)
    title = (
        f"{first['workload']} on {first['num_devices']} x {first['hardware']}, context"
        f" {tokens_text(first['context_tokens'])}; cache exact, memory modelled, times {origins}"
    )
    if any(row["beyond_native_context"] for row in rows):
        title += "; * beyond the native context"
    columns = (
        "spec",
        "cache/seq",
        "TTFT",
        "TPOT",
        "tokens/s",
        "memory",
        "max batch",
        "tokens/s there",
        "USD/Mtok",
        "device s/Mtok",
        "overrides",
    )
    return table(title, columns, [_line(row) for row in rows])


def _line(row: Record) -> tuple[str, ...]:
    rate, usd = "decode_tokens_per_s_at_largest_batch", row["output_usd_per_million_tokens"]
    return (
        row["spec"] + (" *" if row["beyond_native_context"] else ""),
        with_ratio(row, bytes_text(row["cache_bytes_per_sequence"]), "cache_bytes_per_sequence"),
        with_ratio(row, seconds_text(row["ttft_s"]), "ttft_s"),
        with_ratio(row, seconds_text(row["tpot_s"]), "tpot_s"),
        f"{row['output_tokens_per_s']:,.0f}",
        bytes_text(row["total_bytes"]) + ("" if row["fits"] else " does not fit"),
        exact(row["largest_batch_size"]),
        with_ratio(row, decimal_text(row[rate]), rate),
        "-" if usd is None else f"{usd:.3f}",
        f"{row['output_device_s_per_million_tokens']:,.0f}",
        row["overrides"],
    )


def crossings_table(rows: list[Record]) -> Table:
    """Return from which context on each spec is cheaper than its all-full twin."""
    names = [key for key in rows[0] if key.startswith("crossover_")]
    columns = ("spec", *(key.removeprefix("crossover_").removesuffix("_tokens") for key in names))
    lines = dict.fromkeys((row["spec"], *(exact(row[key]) for key in names)) for row in rows)
    return table(
        "Cheaper than the all-full twin beyond, in tokens (hybridsim profile says of what)",
        columns,
        lines,
    )


def _quality_table(rows: list[Record]) -> Table:
    """Return the scores of trained proxies, mean and interval."""
    found = {row["spec"]: row["quality"] for row in rows if row["quality"]}
    tasks = sorted({task for quality in found.values() for task in quality["scores"] or {}})
    lines = [
        (spec, *(_score(quality["scores"].get(task)) for task in tasks))
        for spec, quality in found.items()
    ]
    return table("Quality of trained proxies", ("spec", *tasks), lines)


def _score(score: Record | None) -> str:
    if score is None:
        return "-"
    return f"{score['mean']:.3f} ({score['low']:.3f} to {score['high']:.3f})"


def _served_table(served: list[Record]) -> Table:
    """Return predicted against served figures of each benchmark of an engine."""
    lines = [
        (
            record["spec"],
            record["engine"],
            name,
            _number(figure["served"]),
            _number(figure["predicted"]),
            "-" if figure["ratio"] is None else f"{figure['ratio']:.2f}",
            figure["provenance"] or "-",
        )
        for record in served
        for name, figure in record["figures"].items()
    ]
    columns = (
        "spec",
        "engine",
        "figure",
        "served",
        "predicted",
        "predicted/served",
        "predicted by",
    )
    return table("Served against predicted", columns, lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
