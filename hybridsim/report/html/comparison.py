"""The section of several profiles side by side."""

from __future__ import annotations

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section
from hybridsim.report.profile_figures import comparison_figures

COLUMNS = (
    Column("spec", "spec", "text"),
    Column("workload", "workload", "text"),
    Column("hardware", "device", "text"),
    Column("overrides", "changed", "text"),
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
    Column("crossover_memory_tokens", "crossover of memory", "count"),
    Column("latency_provenance", "times", "text"),
)


def section(run: Run) -> Section:
    """Return a comparison: its bars and its table."""
    rows = run.document["rows"]
    names = ", ".join(dict.fromkeys(row["spec"] for row in rows))
    note = "Parameters and cache exact, memory modelled."
    return Section(
        title=f"Comparison of {names}",
        lead=tuple(f"Failed: {line}" for line in run.document.get("failed_jobs", [])),
        figures=tuple(comparison_figures(rows)),
        tables=(Table("comparison", "Side by side", COLUMNS, rows, note),),
    )
