"""The section of several profiles side by side."""

from __future__ import annotations

from typing import Any

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.letters import Letters, used
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section
from hybridsim.report.profile_figures import comparison_figures
from hybridsim.spec.parse import parse_spec

Record = dict[str, Any]

COLUMNS = (
    Column("spec", "spec", "name"),
    Column("layer_pattern", "layers", "pattern"),
    Column("workload", "workload", "name"),
    Column("device", "device", "name"),
    Column("overrides", "changed", "name"),
    Column("parameters", "parameters", "count"),
    Column("kv_bytes_per_token", "KV bytes per token", "count"),
    Column("state_bytes_per_sequence", "state", "bytes"),
    Column("context_tokens", "context", "count"),
    Column("cache_bytes_per_sequence", "cache per sequence", "bytes"),
    Column("ttft_s", "TTFT", "seconds"),
    Column("tpot_s", "TPOT", "seconds"),
    Column("output_tokens_per_s", "output tokens/s", "count"),
    Column("total_bytes", "memory", "bytes"),
    Column("fits", "fits", "yes"),
    Column("largest_batch_size", "largest batch", "count"),
    Column("output_usd_per_million_tokens", "USD per million output tokens", "usd"),
    Column("crossover_memory_tokens", "crossover of memory", "count"),
    Column("latency_provenance", "times", "name"),
)


def section(run: Run) -> Section:
    """Return a comparison: its verdicts, its bars, its table and the ratios to the first."""
    document = run.document
    rows = [
        {**row, "device": f"{row['num_devices']} x {row['hardware']}"} for row in document["rows"]
    ]
    names = ", ".join(dict.fromkeys(row["spec"] for row in rows))
    note = "Parameters and cache exact, memory modelled."
    return Section(
        title=f"Comparison of {names}",
        lead=(
            *(row["verdict"] for row in rows if row.get("verdict")),
            *(f"Failed: {line}" for line in document.get("failed_jobs", [])),
        ),
        letters=_letters(document),
        figures=tuple(comparison_figures(rows)),
        tables=(Table("comparison", "Side by side", COLUMNS, rows, note), *_ratios(rows)),
    )


def _letters(document: Record) -> Letters:
    """Return what letters mean in the compared specs; of one with two meanings, the first."""
    found: Letters = {}
    for profile in document.get("profiles", []):
        found = {**used(parse_spec(profile["spec"]["fields"])), **found}
    return found


def _ratios(rows: list[Record]) -> list[Table]:
    """Return how often each figure of the first spec every row has."""
    with_ratios = [row for row in rows if row.get("ratios")]
    if not with_ratios:
        return []
    keys = with_ratios[0]["ratios"]
    columns = (
        *COLUMNS[:1],
        Column("workload", "workload", "name"),
        *(Column(key, key.replace("_", " "), "number") for key in keys),
    )
    shown = [{**row["ratios"], "spec": row["spec"], "workload": row["workload"]} for row in rows]
    title = f"Ratios to {rows[0]['spec']} for the same workload"
    return [Table("ratios", title, columns, shown)]
