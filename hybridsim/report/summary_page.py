"""One page of Markdown about a model, for a pull request: what it is, costs, and pays off."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridsim.profiler.comparison import verdict
from hybridsim.report.times import LEGEND, measurements_text, origin_text, time_text
from hybridsim.report.units import bytes_text, decimal_text, exact, seconds_text, tokens_text

Record = dict[str, Any]


def summary_page(document: Record, sweep: list[Record], notes: list[str]) -> str:
    """Return the page.

    Args:
        document: of a profile.
        sweep: its rows of contexts.
        notes: what the reader of its config.json has to know.
    """
    spec, hardware = document["spec"], document["hardware"]
    devices = f"{hardware['num_devices']} x {hardware['title']}"
    parts = [
        f"# {spec['name']}\n\n{spec['description']}",
        f"`{spec['layer_pattern']}`\n\n{_layers(document)}",
        _table(("", "exact"), _totals(document)),
        f"On {devices}; {measurements_text(document)}.",
        _table(
            ("context", "cache of a sequence", "all-full twin", "prefill", "decode step"),
            [_sweep_row(row) for row in sweep],
        ),
        _workload(document),
        f"**{verdict(document)}**",
        _table(
            ("cheaper than the all-full twin in", "beyond, tokens"),
            [(k.replace("_", " "), exact(n)) for k, n in document["crossover_tokens"].items()],
        ),
        *([_bullets("To know", notes)] if notes else []),
        _made_by(document),
    ]
    return "\n\n".join(parts) + "\n"


def _layers(document: Record) -> str:
    kinds = [row for row in document["kinds"] if row["letter"]]
    return "; ".join(f"{row['letter']}: {row['count']} x {row['title']}" for row in kinds)


def _totals(document: Record) -> list[tuple[str, str]]:
    parameters, cache = document["parameters"], document["cache"]
    return [
        ("parameters", exact(parameters["total"])),
        ("active a token", exact(parameters["active"])),
        ("cache a token", f"{exact(cache['kv_bytes_per_token'])} B ({cache['kv_dtype']})"),
        ("states a sequence", f"{exact(cache['state_bytes_per_sequence'])} B"),
    ]


def _sweep_row(row: Record) -> tuple[str, ...]:
    return (
        tokens_text(row["context_tokens"]),
        bytes_text(row["cache_bytes_per_sequence"]),
        bytes_text(row["twin_cache_bytes_per_sequence"]),
        time_text(row, "prefill_latency", "prefill_"),
        time_text(row, "decode_latency", "decode_"),
    )


def _workload(document: Record) -> str:
    load = document["workload"]
    origins = origin_text([load["ttft_provenance"], load["tpot_provenance"]])
    usd = load["cost_usd_per_million_tokens"]["output"]
    price = "" if usd is None else f", {usd:.3f} USD"
    legend = "" if origins == "modelled" else f"\n\n{LEGEND}"
    rows = [
        ("time to first token", time_text(load, "ttft", "ttft_")),
        ("time per output token", time_text(load, "tpot", "tpot_")),
        ("output", f"{load['output_tokens_per_s']:,.0f} tokens/s"),
        (
            "device time a million output tokens",
            seconds_text(load["device_s_per_million_tokens"]["output"]) + price,
        ),
        ("memory", bytes_text(load["memory"]["total_bytes"])),
        (
            "largest batch",
            f"{exact(load['largest_batch_size'])} sequences,"
            f" {decimal_text(load['decode_tokens_per_s_at_largest_batch'])} tokens/s",
        ),
    ]
    head = (
        f"{load['title']}: {exact(load['prompt_tokens'])} tokens in,"
        f" {exact(load['output_tokens'])} out, {load['concurrency']} at once; times {origins}"
    )
    return _table((head, "figure"), rows) + legend


def _made_by(document: Record) -> str:
    versions = document["versions"]
    words = ", ".join(f"{k} {v}" for k, v in versions.items() if k in ("hybridsim", "torch") and v)
    revision = f", revision {document['git_revision'][:12]}" if document["git_revision"] else ""
    overrides = " ".join(document["overrides"])
    command = f"hybridsim export {overrides}".strip()
    return f"Made by `{command}` ({words}{revision})."


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [columns, ("---", *["---:"] * (len(columns) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _bullets(head: str, lines: list[str]) -> str:
    return "\n".join([f"{head}:", "", *(f"- {line}" for line in lines)])
