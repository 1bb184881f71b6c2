"""Rows of the tables of a profile: per kind of layer, per node, per point."""

from __future__ import annotations

from typing import Any

from hybridsim.cost.op import Deployment, op_cost
from hybridsim.cost.roofline import OpTime, op_time
from hybridsim.graph import ModelGraph, Op
from hybridsim.hardware import Hardware
from hybridsim.measure.estimate import weakest
from hybridsim.measure.model_times import ModelTimes
from hybridsim.measure.point import DECODE, PREFILL
from hybridsim.profiler.serving import Point, Serving
from hybridsim.steps import decode, prefill
from hybridsim.workload import Workload

FIGURES = (
    "parameters",
    "active_parameters",
    "kv_bytes_per_token",
    "window_bytes",
    "state_bytes",
    "prefill_flops",
    "prefill_bytes",
    "prefill_latency_s",
    "decode_flops",
    "decode_bytes",
    "decode_latency_s",
)


def kind_rows(graph: ModelGraph, nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per kind of op: how many, parameters, cache, and its share of the time.

    Prefill is of one prompt of the workload, decode of all its sequences after their prompts.

    Args:
        graph: the model.
        nodes: from `node_rows`.
    """
    titles = {(op.part, op.letter): op.title for op in graph.op_counts()}
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in titles}
    for row in nodes:
        groups[row["kind"], row["letter"]].append(row)
    return [
        {
            "kind": part,
            "letter": letter,
            "title": titles[part, letter],
            **{name: sum(row[name] for row in rows) for name in FIGURES},
            "count": len(rows),
            "latency_provenance": weakest(row["latency_provenance"] for row in rows),
        }
        for (part, letter), rows in groups.items()
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
    """Return the FIGURES of an op but for its times."""
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
        "decode_flops": write.flops,
        "decode_bytes": write.moved_bytes,
    }


def node_rows(graph: ModelGraph, workload: Workload, times: ModelTimes) -> list[dict[str, Any]]:
    """Return one row per node of the graph, for the workload's prompt and concurrency."""
    prompt, together = workload.prompt_tokens, workload.concurrency
    reads, writes = times.shares(PREFILL, 1, prompt), times.shares(DECODE, together, prompt)
    rows = []
    for name, op, layer in graph.nodes():
        read, write = _op_times(op, workload, times.deployment, times.hardware)
        (slower_read, read_from), (slower_write, write_from) = reads[name], writes[name]
        rows.append(
            {
                "node": name,
                "layer": layer,
                "kind": op.part,
                "letter": op.letter,
                "context_tokens": prompt,
                "decode_batch_size": together,
                **_op_figures(op, workload, times.deployment, read, write),
                "prefill_latency_s": slower_read * read.latency_s,
                "decode_latency_s": slower_write * write.latency_s,
                "prefill_bound": read.bound,
                "decode_bound": write.bound,
                "latency_provenance": weakest([read_from, write_from]),
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
        other = None if twin is None else twin.point(context, batch)
        for part in ("prefill", "decode"):
            for key in ("latency_s", "provenance"):
                row[f"twin_{part}_{key}"] = None if other is None else other[part][key]
        rows.append(row)
    return rows
