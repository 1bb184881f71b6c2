"""Several profiles side by side, as ratios to the first, and whether the hybrids pay off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import Deployment
from hybridsim.cost.roofline import fits
from hybridsim.errors import SpecError
from hybridsim.graph import build_graph
from hybridsim.hardware import Hardware
from hybridsim.profiler.payoff import NO, UNRESOLVED, YES
from hybridsim.spec.pattern import expand_pattern
from hybridsim.spec.schema import ModelSpec
from hybridsim.workload import Workload

Record = dict[str, Any]

SCHEMA = "hybridsim/compare/1"
MAX_DEVICES = 1 << 14

# What is compared with the first row of the same workload, device and number of devices.
RATIOS = (
    "parameters",
    "active_parameters",
    "kv_bytes_per_token",
    "state_bytes_per_sequence",
    "cache_bytes_per_sequence",
    "ttft_s",
    "tpot_s",
    "output_tokens_per_s",
    "decode_tokens_per_s_at_largest_batch",
    "output_usd_per_million_tokens",
)


def comparison_document(
    documents: Sequence[Record], trained: Sequence[Record] = (), **more: Any
) -> Record:
    """Return profiles as one comparison, schema `hybridsim/compare/1`.

    Args:
        documents: of profiles, the baseline's first.
        trained: records of trainings, schema `hybridsim/train/1`; a spec's quality is that of the
            last one with its name.
        **more: further parts of the document.
    """
    rows = comparison_rows(documents)
    for row in rows:
        row["quality"] = _quality(row, trained)
        row["ratios"] = _ratios(row, _baseline(row, rows))
    return {
        "schema": SCHEMA,
        "baseline": rows[0]["spec"],
        "rows": rows,
        "verdict": " ".join(row["verdict"] for row in rows),
        **more,
        "profiles": list(documents),
    }


def comparison_rows(documents: Sequence[Record]) -> list[Record]:
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
    memory, usd = load["memory"], load["cost_usd_per_million_tokens"]
    per_sequence = (memory["kv_cache_bytes"] + memory["state_bytes"]) // load["concurrency"]
    payoff = document["payoff"]
    return {
        "spec": document["spec"]["name"],
        "layer_pattern": document["spec"]["layer_pattern"],
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
        "decode_tokens_per_s_at_largest_batch": load["decode_tokens_per_s_at_largest_batch"],
        "prompt_usd_per_million_tokens": usd["prompt"],
        "output_usd_per_million_tokens": usd["output"],
        "output_device_s_per_million_tokens": load["device_s_per_million_tokens"]["output"],
        **{f"crossover_{key}_tokens": n for key, n in document["crossover_tokens"].items()},
        "beyond_native_context": load["beyond_native_context"],
        "latency_provenance": load["provenance"],
        "pays_off": payoff["pays_off"],
        "pays_off_gain": payoff["gain"],
        "pays_off_from_tokens": payoff["from_tokens"],
        "verdict": verdict(document),
    }


def _quality(row: Record, trained: Sequence[Record]) -> Record | None:
    """Return the scores of the last training of a row's model."""
    found = [record for record in trained if _is_of(record, row)]
    if not found:
        return None
    return {key: found[-1].get(key) for key in ("summary", "scores", "proxy")}


def _is_of(record: Record, row: Record) -> bool:
    """Whether a training was of a row's model: the same name, and pattern where it has one."""
    spec = record["spec"] if isinstance(record["spec"], dict) else {"name": record["spec"]}
    pattern = spec.get("layer_pattern")
    letters = row["layer_pattern"]
    same = pattern is None or expand_pattern(pattern, len(letters)) == letters
    return bool(spec.get("name") == row["spec"] and same)


def _baseline(row: Record, rows: Sequence[Record]) -> Record:
    """Return the first row that only differs in the model."""
    same = ("workload", "hardware", "num_devices")
    return next(other for other in rows if all(other[key] == row[key] for key in same))


def _ratios(row: Record, baseline: Record) -> Record:
    """Return a row's figures over the baseline's; None where either is unknown or the latter 0."""
    return {
        key: row[key] / baseline[key] if baseline[key] and row[key] is not None else None
        for key in RATIOS
    }


def verdict(document: Record) -> str:
    """Return one sentence: does the model pay off for the workload, and from which context on?"""
    name, load = document["spec"]["name"], document["workload"]["name"]
    record = document["payoff"]
    if record["pays_off"] is None:
        return f"{name}, {load}: {record['reason']}."
    words = {YES: "pays off", NO: "does not pay off", UNRESOLVED: "no difference is resolved"}
    return (
        f"{name}, {load}: {words[record['pays_off']]}; {_gain_text(record)}; {_from_text(record)}."
    )


def _gain_text(record: Record) -> str:
    if record["gain"] is None:
        return str(record["reason"])
    interval = ""
    if record["gain_low"] is not None and record["gain_high"] is not None:
        interval = f" ({record['gain_low']:.2f} to {record['gain_high']:.2f})"
    return (
        f"{record['gain']:.2f}{interval} times the requests of its all-full twin in the same device"
        f" time, {record['provenance']}, at {record['utilisation']:.0%} of the largest batch"
        f" ({record['batch_size']:,} and {record['twin_batch_size']:,} sequences)"
    )


def _from_text(record: Record) -> str:
    tokens = record["from_tokens"]
    if tokens is None:
        return "a gain at no prompt"
    if tokens == 0:
        return "a gain at every prompt"
    return f"a gain beyond prompts of {tokens:,} tokens"


def enough_devices(
    specs: Sequence[ModelSpec],
    workloads: Sequence[Workload],
    hardware: Hardware,
    deployment: Deployment,
) -> Hardware:
    """Return the device, or as many as hold every model with one sequence of every workload.

    The number is doubled until they do.

    Raises:
        SpecError: not even MAX_DEVICES do.
    """
    costs = [ModelCosts.of(build_graph(spec)) for spec in specs]
    longest = max(workload.context_target for workload in workloads)
    found = hardware
    while not all(fits(c, longest, 1, deployment, found) for c in costs):
        found = replace(found, num_devices=2 * found.num_devices)
        if found.num_devices > MAX_DEVICES:
            raise SpecError(
                f"hardware.num_devices={hardware.num_devices}: more than {MAX_DEVICES} devices"
                f" would be needed for a sequence of {longest:,} tokens"
            )
    return found
