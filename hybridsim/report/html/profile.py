"""The section of a profile."""

from __future__ import annotations

from typing import Any

from hybridsim.report.figures import Column, Table
from hybridsim.report.html.letters import used
from hybridsim.report.html.runs import Run
from hybridsim.report.html.sections import Section
from hybridsim.report.profile_figures import profile_figures
from hybridsim.report.times import measurements_text
from hybridsim.report.units import bytes_text, exact, seconds_text
from hybridsim.spec.parse import parse_spec

Record = dict[str, Any]


def section(run: Run) -> Section:
    """Return a profile: totals, the workload's figures, the sweep, crossovers and each kind."""
    document, sweep = run.document, run.rows("sweep")
    spec = document["spec"]
    return Section(
        title=f"{spec['name']} for {document['workload']['title']}",
        lead=(str(spec["description"]), _verdict(document)),
        facts=_facts(document),
        pattern=spec["layer_pattern"],
        letters=used(parse_spec(spec["fields"])),
        figures=tuple(profile_figures(document, sweep)) if sweep else (),
        tables=tuple(_tables(document, sweep)),
    )


def _verdict(document: Record) -> str:
    """Return whether the model is cheaper than its all-full twin for the workload."""
    load, crossover = document["workload"], document["crossover_tokens"]["decode_latency"]
    tokens = load["prompt_tokens"] + load["output_tokens"]
    if document["spec"]["all_full_twin"] is None:
        return "Every layer has full attention: the model is its own all-full twin."
    if crossover is None:
        return "No context makes its decode step cheaper than the all-full twin's."
    side = "beyond" if tokens > crossover else "short of"
    batch = document["settings"]["batch_sizes"][0]
    return (
        f"As modelled, its decode step at batch {batch} is cheaper than the all-full twin's beyond"
        f" {crossover:,} tokens; the workload's {tokens:,} tokens are {side} that."
    )


def _facts(document: Record) -> tuple[tuple[str, str], ...]:
    load, parameters, cache = document["workload"], document["parameters"], document["cache"]
    memory, hardware = load["memory"], document["hardware"]
    fits = "fits" if memory["fits"] else "does not fit"
    return (
        ("device", f"{hardware['num_devices']} x {hardware['title']}"),
        ("times", measurements_text(document)),
        ("parameters", f"{exact(parameters['total'])}, active {exact(parameters['active'])}"),
        ("KV cache per token", f"{exact(cache['kv_bytes_per_token'])} B (exact)"),
        ("state per sequence", f"{exact(cache['state_bytes_per_sequence'])} B (exact)"),
        ("time to first token", _time(load, "ttft")),
        ("time per output token", f"{_time(load, 'tpot')}, {load['concurrency']} at once"),
        ("output tokens a second", f"{load['output_tokens_per_s']:,.1f}"),
        ("memory", f"{bytes_text(memory['total_bytes'])} ({fits} the device)"),
        ("largest batch", exact(load["largest_batch_size"])),
    )


def _time(record: Record, name: str) -> str:
    low, high = record[f"{name}_low_s"], record[f"{name}_high_s"]
    interval = "" if low is None else f", 90 % {seconds_text(low)} to {seconds_text(high)}"
    return f"{seconds_text(record[f'{name}_s'])} ({record[f'{name}_provenance']}{interval})"


def _tables(document: Record, sweep: list[Record]) -> list[Table]:
    tables = [_kinds(document), _crossovers(document)]
    return [*([_sweep(sweep)] if sweep else []), *tables]


def _sweep(rows: list[Record]) -> Table:
    shown = [
        {
            **row,
            **{
                f"{phase}_latency_s_{end}": row[f"{phase}_{key}"]
                for phase in ("prefill", "decode")
                for end, key in (
                    ("low", "latency_low_s"),
                    ("high", "latency_high_s"),
                    ("provenance", "provenance"),
                )
            },
        }
        for row in rows
    ]
    columns = (
        Column("context_tokens", "context", "tokens"),
        Column("batch_size", "batch", "count"),
        Column("cache_bytes_per_sequence", "cache per sequence", "bytes"),
        Column("twin_cache_bytes_per_sequence", "all-full twin's", "bytes"),
        Column("prefill_flops", "prefill FLOPs", "amount"),
        Column("prefill_latency_s", "prefill", "seconds"),
        Column("decode_latency_s", "decode step", "seconds"),
        Column("decode_tokens_per_s", "tokens/s", "count"),
        Column("memory_total_bytes", "memory", "bytes"),
        Column("memory_fits", "fits", "yes"),
    )
    note = "Cache and FLOPs exact, memory modelled; below each time its 90 % interval and origin."
    return Table("sweep", "Contexts and batches", columns, shown, note)


def _kinds(document: Record) -> Table:
    load = document["workload"]
    columns = (
        Column("title", "kind", "name"),
        Column("letter", "letter", "name"),
        Column("count", "nodes", "count"),
        Column("parameters", "parameters", "count"),
        Column("kv_bytes_per_token", "KV bytes per token", "count"),
        Column("state_bytes", "state", "bytes"),
        Column("prefill_latency_s", "prefill", "seconds"),
        Column("decode_latency_s", "decode", "seconds"),
        Column("latency_provenance", "times", "name"),
    )
    note = (
        f"Prefill of {load['prompt_tokens']:,} tokens, decode of {load['concurrency']}"
        " sequences after it."
    )
    return Table("kinds", "Each kind of node", columns, document["kinds"], note)


def _crossovers(document: Record) -> Table:
    definitions = document["crossover_definitions"]
    rows = [
        {"cost": name, "tokens": tokens, "of": definitions[name]}
        for name, tokens in document["crossover_tokens"].items()
    ]
    columns = (
        Column("cost", "cost", "name"),
        Column("tokens", "tokens", "count"),
        Column("of", "of", "text"),
    )
    return Table("crossovers", "Cheaper than the all-full twin beyond", columns, rows)
