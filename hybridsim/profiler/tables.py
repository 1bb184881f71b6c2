"""Rows of the tables of a profile: per kind of layer, per node, per point."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from hybridsim.conventions import SERVED
from hybridsim.cost.op import Deployment, op_cost
from hybridsim.cost.roofline import MODELLED, OpTime, op_time
from hybridsim.graph import ModelGraph, Op
from hybridsim.hardware import Hardware
from hybridsim.profiler.serving import Point, Serving
from hybridsim.steps import decode, prefill
from hybridsim.workload import Workload


def kind_rows(
    graph: ModelGraph, workload: Workload, deployment: Deployment, hardware: Hardware
) -> list[dict[str, Any]]:
    """Return one row per kind of op: how many, parameters, cache, and its share of modelled time.

    Prefill is of one prompt of the workload, decode of all its sequences after their prompts.
    """
    served = replace(deployment, conventions=SERVED)
    rows: dict[tuple[str, str], Counter[str]] = {}
    titles: dict[tuple[str, str], str] = {}
    for op, count in graph.op_counts().items():
        key = (op.part, op.letter)
        titles[key] = op.title
        totals = rows.setdefault(key, Counter())
        times = _op_times(op, workload, served, hardware)
        figures = _op_figures(op, workload, served, *times)
        totals.update({name: count * value for name, value in figures.items()} | {"count": count})
    return [
        {"kind": part, "letter": letter, "title": titles[part, letter], **totals}
        for (part, letter), totals in rows.items()
    ]


def _op_times(
    op: Op, workload: Workload, deployment: Deployment, hardware: Hardware
) -> tuple[OpTime, OpTime]:
    """Return prefill of one prompt of the workload, and decode of all its sequences after it."""
    read, write = prefill(workload.prompt_tokens), decode(workload.prompt_tokens)
    return (
        op_time(op, read, 1, deployment, hardware),
        op_time(op, write, workload.concurrency, deployment, hardware),
    )


def _op_figures(
    op: Op, workload: Workload, deployment: Deployment, read: OpTime, write: OpTime
) -> dict[str, Any]:
    cost = op_cost(op)
    cache = cost.cache(deployment.dtypes)
    kept = cache.kv_bytes(workload.prompt_tokens)
    return {
        "parameters": cost.parameters,
        "active_parameters": cost.active_parameters,
        "kv_bytes_per_token": cache.bytes_per_token if cache.window_tokens is None else 0,
        "window_bytes": 0 if cache.window_tokens is None else kept,
        "state_bytes": cache.state_bytes,
        "prefill_flops": read.flops,
        "prefill_bytes": read.moved_bytes,
        "prefill_latency_s": read.latency_s,
        "decode_flops": write.flops,
        "decode_bytes": write.moved_bytes,
        "decode_latency_s": write.latency_s,
    }


def node_rows(
    graph: ModelGraph, workload: Workload, deployment: Deployment, hardware: Hardware
) -> list[dict[str, Any]]:
    """Return one row per node of the graph, for the workload's prompt and concurrency."""
    served = replace(deployment, conventions=SERVED)
    rows = []
    for name, op, layer in graph.nodes():
        read, write = _op_times(op, workload, served, hardware)
        rows.append(
            {
                "node": name,
                "layer": layer,
                "kind": op.part,
                "letter": op.letter,
                "context_tokens": workload.prompt_tokens,
                "decode_batch_size": workload.concurrency,
                **_op_figures(op, workload, served, read, write),
                "prefill_bound": read.bound,
                "decode_bound": write.bound,
                "latency_provenance": MODELLED,
            }
        )
    return rows


def point_rows(points: list[Point], serving: Serving, twin: Serving | None) -> list[dict[str, Any]]:
    """Return the points flat, each with one sequence's cache; the all-full twin's beside it."""
    rows = []
    for point in points:
        context, batch = point["context_tokens"], point["batch_size"]
        row = {"context_tokens": context, "batch_size": batch}
        row["cache_bytes_per_sequence"] = serving.cache_bytes(context)
        row["twin_cache_bytes_per_sequence"] = None if twin is None else twin.cache_bytes(context)
        for part in ("prefill", "decode", "memory"):
            row |= {f"{part}_{key}": value for key, value in point[part].items()}
        for part in ("prefill", "decode"):
            other = None if twin is None else twin.point(context, batch)[part]["latency_s"]
            row[f"twin_{part}_latency_s"] = other
        rows.append(row)
    return rows
