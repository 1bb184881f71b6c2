"""Several profiles side by side."""

from __future__ import annotations

from typing import Any

from rich.console import RenderableType

from hybridsim.report.tables import table
from hybridsim.report.times import origin_text
from hybridsim.report.units import bytes_text, exact, seconds_text, tokens_text

Record = dict[str, Any]

SCHEMA = "hybridsim/comparison/1"


def comparison_rows(documents: list[Record]) -> list[Record]:
    """Return one row per profile: what a design review compares.

    `overrides` are those in which the profiles differ.
    """
    same = set.intersection(*(set(document["overrides"]) for document in documents))
    ignored = same if len(documents) > 1 else set()
    return [_row(document) | {"overrides": _changes(document, ignored)} for document in documents]


def _changes(document: Record, ignored: set[str]) -> str:
    """Return the overrides in which the profile differs and that no other column shows."""
    shown = ("spec=", "workload=", "hardware=")
    different = [o for o in document["overrides"] if o not in ignored and not o.startswith(shown)]
    return " ".join(different)


def _row(document: Record) -> Record:
    load, cache = document["workload"], document["cache"]
    tokens = load["prompt_tokens"] + load["output_tokens"]
    memory = load["memory"]
    per_sequence = (memory["kv_cache_bytes"] + memory["state_bytes"]) // load["concurrency"]
    return {
        "spec": document["spec"]["name"],
        "hardware": document["hardware"]["name"],
        "num_devices": document["hardware"]["num_devices"],
        "workload": load["name"],
        "parameters": document["parameters"]["total"],
        "active_parameters": document["parameters"]["active"],
        "kv_bytes_per_token": cache["kv_bytes_per_token"],
        "state_bytes_per_sequence": cache["state_bytes_per_sequence"],
        "context_tokens": tokens,
        "cache_bytes_per_sequence": per_sequence,
        "ttft_s": load["ttft_s"],
        "tpot_s": load["tpot_s"],
        "output_tokens_per_s": load["output_tokens_per_s"],
        "total_bytes": memory["total_bytes"],
        "fits": memory["fits"],
        "largest_batch_size": load["largest_batch_size"],
        "output_usd_per_million_tokens": load["cost_usd_per_million_tokens"]["output"],
        "crossover_memory_tokens": document["crossover_tokens"]["memory"],
        "beyond_native_context": load["beyond_native_context"],
        "latency_provenance": load["provenance"],
    }


def comparison_table(rows: list[Record]) -> RenderableType:
    """Return the comparison for the terminal."""
    changed = any(row["overrides"] for row in rows)
    columns = (
        "spec",
        "workload",
        "device",
        "parameters",
        "KV B/token",
        "context",
        "cache/seq",
        "TTFT",
        "TPOT",
        "out tokens/s",
        "memory",
        "fits",
        "max batch",
        *(["overrides"] if changed else []),
    )
    lines = [
        (
            row["spec"],
            row["workload"],
            f"{row['num_devices']} x {row['hardware']}",
            exact(row["parameters"]),
            exact(row["kv_bytes_per_token"]),
            tokens_text(row["context_tokens"]) + (" *" if row["beyond_native_context"] else ""),
            bytes_text(row["cache_bytes_per_sequence"]),
            seconds_text(row["ttft_s"]),
            seconds_text(row["tpot_s"]),
            f"{row['output_tokens_per_s']:,.0f}",
            bytes_text(row["total_bytes"]),
            "yes" if row["fits"] else "no",
            exact(row["largest_batch_size"]),
            *([row["overrides"]] if changed else []),
        )
        for row in rows
    ]
    origins = origin_text(row["latency_provenance"] for row in rows)
    title = f"Comparison; parameters and cache exact, memory modelled, times {origins}"
    if any(row["beyond_native_context"] for row in rows):
        title += "; * beyond the native context"
    return table(title, columns, lines)
