"""What `describe` shows: the layer strip, the layers, parameters by part, and the graph drawn."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridsim.cost.model import ModelCosts
from hybridsim.cost.op import op_cost
from hybridsim.dtypes import Dtypes
from hybridsim.ffn import FFNS
from hybridsim.graph import ModelGraph
from hybridsim.mixers import MIXERS
from hybridsim.report.tables import table
from hybridsim.report.units import bytes_text, exact
from hybridsim.spec.pattern import NOTHING

SCHEMA = "hybridsim/describe/1"
FULL_STYLE, CHEAP_STYLE, FFN_STYLE = "bold white on dark_orange3", "white on dark_cyan", "on grey37"


def structure_document(graph: ModelGraph) -> dict[str, Any]:
    """Return the structure as plain data, schema `hybridsim/describe/1`."""
    spec, costs = graph.spec, ModelCosts.of(graph)
    dtypes = Dtypes()
    return {
        "schema": SCHEMA,
        "name": spec.name,
        "description": spec.description,
        "released": spec.released,
        "layer_pattern": spec.layer_letters,
        "ffn_pattern": spec.ffn_letters,
        "mixers": {letter: MIXERS[s.kind].title for letter, s in spec.mixers.items()},
        "ffns": {letter: FFNS[s.kind].title for letter, s in spec.ffns.items()},
        "parallel": spec.parallel,
        "parameters": costs.parameters.total,
        "parameters_by_part": dict(costs.parameters_by_part()),
        "layers": _layer_rows(graph, dtypes),
        "nodes": [
            {"node": name, "kind": op.part, "layer": layer, "parameters": op_cost(op).parameters}
            for name, op, layer in graph.nodes()
        ],
        "edges": [
            {"from": a, "to": b, **data, "shape": list(data["shape"])}
            for a, b, data in graph.dag.edges(data=True)
        ],
        "published": spec.published,
        "sources": spec.sources,
    }


def _layer_rows(graph: ModelGraph, dtypes: Dtypes) -> list[dict[str, Any]]:
    rows = []
    for block in graph.blocks():
        nodes = [op for _, op, layer in graph.nodes() if layer == block.layers[0]]
        caches = [op_cost(op).cache(dtypes) for op in nodes]
        rows.append(
            {
                "layers": _ranges(block.layers),
                "count": len(block.layers),
                "letters": block.letter + block.ffn_letter,
                "mixer": " + ".join(op.title for op in nodes if op.kind == "mixer") or "none",
                "ffn": " + ".join(op.title for op in nodes if op.kind == "ffn") or "none",
                "parameters_per_layer": sum(op_cost(op).parameters for op in nodes),
                "kv_bytes_per_token": sum(
                    c.bytes_per_token for c in caches if c.window_tokens is None
                ),
                "window_bytes": sum(c.kv_bytes(c.window_tokens) for c in caches if c.window_tokens),
                "window_tokens": next((c.window_tokens for c in caches if c.window_tokens), None),
                "state_bytes": sum(cache.state_bytes for cache in caches),
            }
        )
    return rows


def _ranges(layers: tuple[int, ...]) -> str:
    """Return layer numbers from 1, runs shortened: 1-3, 5-7, 9."""
    parts: list[list[int]] = []
    for layer in layers:
        if parts and parts[-1][-1] == layer - 1:
            parts[-1].append(layer)
        else:
            parts.append([layer])
    return ", ".join(str(p[0] + 1) if len(p) == 1 else f"{p[0] + 1}-{p[-1] + 1}" for p in parts)


def structure_report(graph: ModelGraph, document: dict[str, Any]) -> RenderableType:
    """Return everything `describe` prints, in reading order."""
    return Group(
        Text.assemble((document["name"], "bold"), f"  {document['description']}\n"),
        layer_strip(graph),
        _legend(graph),
        _layers_table(document),
        _parts_table(document),
    )


def layer_strip(graph: ModelGraph) -> Text:
    """Return one coloured letter per layer: full attention, cheaper mixers, feed-forwards."""
    spec = graph.spec
    strip = Text("mixers  ")
    for letter in spec.layer_letters:
        parts = spec.layer_mixers(letter)
        full = bool(parts) and all(spec.mixers[part].is_full_attention for part in parts)
        strip.append(letter, style=FULL_STYLE if full else CHEAP_STYLE if parts else FFN_STYLE)
    strip.append("\nffn     ")
    strip.append(spec.ffn_letters, style="dim")
    return strip


def _legend(graph: ModelGraph) -> Text:
    spec, lines = graph.spec, Text("\n")
    used = set(spec.layer_letters) | set(spec.ffn_letters)
    for letter, parts in spec.parallel.items():
        if letter in used:
            lines.append(f"  {letter}  {' beside '.join(parts)}\n")
            used |= set(parts)
    for letter, settings in spec.mixers.items():
        if letter in used:
            lines.append(
                f"  {letter}  {MIXERS[settings.kind].title} ({MIXERS[settings.kind].source})\n"
            )
    for letter, ffn in spec.ffns.items():
        if letter in used:
            lines.append(f"  {letter}  {FFNS[ffn.kind].title}\n")
    if NOTHING in used:
        lines.append(f"  {NOTHING}  no feed-forward after this layer\n")
    return lines


def _layers_table(document: dict[str, Any]) -> Table:
    rows = [
        (
            row["layers"],
            str(row["count"]),
            row["letters"],
            row["mixer"],
            row["ffn"],
            exact(row["parameters_per_layer"]),
            exact(row["kv_bytes_per_token"]),
            bytes_text(row["state_bytes"]),
        )
        for row in document["layers"]
    ]
    columns = (
        "layers (from 1)",
        "count",
        "letters",
        "mixer",
        "feed-forward",
        "parameters each",
        "KV B/token",
        "state",
    )
    return table("Layers", columns, rows)


def _parts_table(document: dict[str, Any]) -> Table:
    total = document["parameters"]
    parts = document["parameters_by_part"]
    rows = [(part, exact(n), f"{n / total:.2%}") for part, n in parts.items() if n]
    return table(
        "Parameters by part", ("part", "parameters", "share"), [*rows, ("total", exact(total), "")]
    )


def mermaid(graph: ModelGraph) -> str:
    """Return the graph in Mermaid's flowchart language, a subgraph per layer."""
    lines = ["flowchart TD"]
    by_layer: dict[int | None, list[str]] = {}
    for name, op, layer in graph.nodes():
        by_layer.setdefault(layer, []).append(
            f"{_identifier(name)}[{json.dumps(_label(name, op.title))}]"
        )
    for layer, nodes in by_layer.items():
        if layer is None:
            lines += [f"  {node}" for node in nodes]
        else:
            lines.append(f"  subgraph layer{layer + 1}[layer {layer + 1}]")
            lines += [f"    {node}" for node in nodes]
            lines.append("  end")
    for source, target, data in graph.dag.edges(data=True):
        arrow = "-.->" if data["role"] != "input" else "-->"
        lines.append(f"  {_identifier(source)} {arrow} {_identifier(target)}")
    return "\n".join(lines) + "\n"


def _identifier(name: str) -> str:
    return name.replace(".", "_")


def _label(name: str, title: str) -> str:
    return name if title in ("norm", "add", "embedding", "head") else f"{name}: {title}"
