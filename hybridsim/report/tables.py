"""The tables of a profile in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridsim.report.times import LEGEND, measurements_text, origin_text, time_text
from hybridsim.report.units import bytes_text, decimal_text, exact, seconds_text, tokens_text

Record = dict[str, Any]

PHASES = ("prefill", "decode")

TEXTS = {
    "note",
    "of",
    "overrides",
    "mixer",
    "feed-forward",
    "workload",
    "device",
}  # columns set to the left


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table with texts to the left and figures to the right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        text = index == 0 or column in TEXTS
        made.add_column(
            column,
            justify="left" if text else "right",
            no_wrap=column not in TEXTS,
            overflow="fold",
        )
    for row in rows:
        made.add_row(*row)
    return made


def profile_report(document: Record, twin_rows: list[Record]) -> RenderableType:
    """Return everything a profile shows, in reading order."""
    return Group(
        _heading(document),
        totals_table(document),
        flops_table(document),
        kinds_table(document),
        sweep_table(document, twin_rows),
        crossover_table(document),
        workload_table(document),
    )


def _heading(document: Record) -> RenderableType:
    spec, hardware = document["spec"], document["hardware"]
    changed = "" if _as_published(document) else ", changed by overrides"
    devices = f"{hardware['num_devices']} x " if hardware["num_devices"] > 1 else ""
    return Text.assemble(
        (f"{spec['name']}", "bold"),
        f"  {spec['description']}{changed}\n",
        (spec["layer_pattern"], "cyan"),
        f"\non {devices}{hardware['title']}; {measurements_text(document)},"
        " sizes and FLOPs exact\n",
    )


def totals_table(document: Record) -> Table:
    """Return parameters and cache, to the unit."""
    parameters, cache = document["parameters"], document["cache"]
    published = document["spec"]["published"]

    def noted(key: str) -> str:
        shown = published.get(key) and _as_published(document)
        return f"published: {published[key]}" if shown else ""

    rows = [
        ("parameters", exact(parameters["total"]), noted("total")),
        ("active per token", exact(parameters["active"]), noted("active")),
        (
            "  without input embedding",
            exact(parameters["active_excluding_input_embedding"]),
            "",
        ),
        ("  without embedding and head", exact(parameters["active_excluding_embeddings"]), ""),
        ("KV cache per token", f"{exact(cache['kv_bytes_per_token'])} B", _kv_dtypes(cache)),
        *_window_row(cache),
        (
            "state per sequence",
            f"{exact(cache['state_bytes_per_sequence'])} B",
            f"{cache['state_dtype']}, convolutions {cache['conv_state_dtype']}",
        ),
    ]
    return table("Totals", ("", "exact", "note"), rows)


def _as_published(document: Record) -> bool:
    """Whether no override changed the spec."""
    return not any(o.lstrip("+~").startswith("spec.") for o in document["overrides"])


def _kv_dtypes(cache: Record) -> str:
    index = ", ".join(cache["index_key_dtypes"])
    return f"{cache['kv_dtype']}, index keys {index}" if index else str(cache["kv_dtype"])


def _window_row(cache: Record) -> list[tuple[str, str, str]]:
    size = cache["window_bytes_per_sequence"]
    note = "windowed layers, once full"
    return [("window per sequence", f"{exact(size)} B", note)] if size else []


def flops_table(document: Record) -> Table:
    """Return the FLOPs of one pass, counted three ways."""
    flops = document["flops"]
    conventions = flops["conventions"]
    prompt = tokens_text(flops["prompt_tokens"])
    chosen = f"{conventions['attention']} attention, logits at {conventions['logits']} positions"
    rows = [
        (f"prefill of {prompt}, {chosen}", *_three(flops)),
        (f"prefill of {prompt}, full square, no solve or scan", *_three(flops["full_square"])),
        (f"decode after {prompt}", *_three(flops["decode"])),
    ]
    return table(
        "FLOPs, a multiply-add is 2", ("pass", "closed form", "fvcore", "torch counter"), rows
    )


def _three(record: Record) -> tuple[str, ...]:
    return tuple(exact(record.get(key)) for key in ("closed_form", "fvcore", "flop_counter"))


def kinds_table(document: Record) -> Table:
    """Return one row per kind of node, with its share of the time."""
    workload = document["workload"]
    prefill_s = sum(row["prefill_latency_s"] for row in document["kinds"])
    decode_s = sum(row["decode_latency_s"] for row in document["kinds"])
    rows = [
        (
            f"{row['letter'] or ' '} {row['title']}",
            exact(row["count"]),
            exact(row["parameters"]),
            exact(row["kv_bytes_per_token"]),
            exact(row["state_bytes"]),
            f"{row['prefill_latency_s'] / prefill_s:.1%}",
            f"{row['decode_latency_s'] / decode_s:.1%}",
        )
        for row in document["kinds"]
    ]
    title = (
        f"Per kind of node (shares of time, {origin_text(_provenances(document['kinds']))}:"
        f" prefill of {workload['prompt_tokens']:,} tokens,"
        f" decode of {workload['concurrency']} sequences after it)"
    )
    columns = ("kind", "nodes", "parameters", "KV B/token", "state B", "prefill", "decode")
    return table(title, columns, rows)


def _provenances(rows: list[Record]) -> list[str]:
    return [row["latency_provenance"] for row in rows]


def sweep_table(document: Record, rows: list[Record]) -> Table:
    """Return one row per context and batch size."""
    native = document["spec"]["native_context"]
    usable = f"{document['settings']['memory_utilization']:.0%} of the device's memory"
    lines = []
    for row in rows:
        mark = " *" if row["context_tokens"] > native else ""
        lines.append(
            (
                tokens_text(row["context_tokens"]) + mark,
                exact(row["batch_size"]),
                bytes_text(row["cache_bytes_per_sequence"]),
                bytes_text(row["twin_cache_bytes_per_sequence"]),
                decimal_text(row["prefill_flops"], "FLOP"),
                time_text(row, "prefill_latency", "prefill_"),
                time_text(row, "decode_latency", "decode_"),
                decimal_text(row["decode_tokens_per_s"]),
                bytes_text(row["memory_total_bytes"]),
                "yes" if row["memory_fits"] else "no",
            )
        )
    columns = (
        "context",
        "batch",
        "cache/seq",
        "all-full twin",
        "prefill",
        "prefill time",
        "decode step",
        "tokens/s",
        "memory",
        "fits",
    )
    origins = origin_text(row[f"{part}_provenance"] for row in rows for part in PHASES)
    times = f"memory modelled, times {origins}"
    if origins == "modelled":
        times = "times and memory modelled"
    title = f"Context sweep: cache exact, {times}; fits: {usable}"
    if any(row["context_tokens"] > native for row in rows):
        title += f"; * beyond the native context of {native:,}"
    if origins != "modelled":
        title += f"\n{LEGEND}"
    return table(title, columns, lines)


def crossover_table(document: Record) -> Table:
    """Return from which context on the model is cheaper than its all-full twin."""
    crossovers, definitions = document["crossover_tokens"], document["crossover_definitions"]
    own_twin = document["spec"]["all_full_twin"] is None
    none = "no other twin" if own_twin else "never"
    rows = [
        (name, none if tokens is None else exact(tokens), definitions[name])
        for name, tokens in crossovers.items()
    ]
    return table("Cheaper than the all-full twin beyond, in tokens", ("cost", "tokens", "of"), rows)


def workload_table(document: Record) -> Table:
    """Return the figures of the workload."""
    load = document["workload"]
    beyond = ", beyond the native context" if load["beyond_native_context"] else ""
    cost, device_s = load["cost_usd_per_million_tokens"], load["device_s_per_million_tokens"]
    rows = [
        ("time to first token (TTFT)", time_text(load, "ttft", "ttft_"), "one prompt, no queue"),
        (
            "time per output token (TPOT)",
            time_text(load, "tpot", "tpot_"),
            f"{load['concurrency']} sequences together",
        ),
        ("decode throughput", f"{load['decode_tokens_per_s']:,.0f} tokens/s", "decode alone"),
        (
            "output throughput",
            f"{load['output_tokens_per_s']:,.0f} tokens/s",
            "prefill of each prompt included",
        ),
        (
            "memory",
            bytes_text(load["memory"]["total_bytes"]),
            "fits" if load["memory"]["fits"] else "does not fit",
        ),
        (
            "largest batch",
            exact(load["largest_batch_size"]),
            f"{exact(load['largest_batch_size_at_context_target'])} at"
            f" {load['context_target']:,} tokens each",
        ),
        (
            "device time per million prompt tokens",
            seconds_text(device_s["prompt"]),
            _usd(cost["prompt"]),
        ),
        (
            "device time per million output tokens",
            seconds_text(device_s["output"]),
            _usd(cost["output"]),
        ),
        _payoff_row(document["payoff"]),
    ]
    origins = origin_text([load["ttft_provenance"], load["tpot_provenance"]])
    title = (
        f"Workload {load['title']}, {origins}{beyond}: {load['prompt_tokens']:,} tokens in,"
        f" {load['output_tokens']:,} out, {load['concurrency']} at once"
    )
    return table(title, ("", "figure", "note"), rows)


def _payoff_row(record: Record) -> tuple[str, str, str]:
    """Return whether the model pays off against its all-full twin."""
    name, tokens = "pays off against the all-full twin", record["from_tokens"]
    if record["gain"] is None:
        return (name, record["pays_off"] or "-", record["reason"])
    beyond = "at no prompt" if tokens is None else f"beyond prompts of {tokens:,} tokens"
    return (
        name,
        f"{record['pays_off']}, {record['gain']:.2f}x",
        f"requests in the same device time at {record['utilisation']:.0%} of the largest batch;"
        f" {beyond}",
    )


def _usd(cost: float | None) -> str:
    return "no published price" if cost is None else f"{cost:.3f} USD"


def print_report(report: RenderableType, width: int | None = None) -> None:
    """Print to the terminal; wide enough for the tables where the output is no terminal."""
    console = Console(width=width)
    if not console.is_terminal:
        console = Console(width=width or 200)
    console.print(report)
