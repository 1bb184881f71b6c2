"""The graph of a model as an SVG drawing: one box a node, layers from top to bottom."""

from __future__ import annotations

from html import escape

from hybridsim.graph import ADD, FFN, MIXER, ModelGraph, Op
from hybridsim.mixers import MixerSettings

ROW, WIDTH, HEIGHT, GAP, MARGIN = 44, 250, 28, 20, 24
FONT = 'font-family="sans-serif" font-size="12"'
FULL, CHEAP, FFN_FILL, PLAIN = "#E69F00", "#56B4E9", "#BBBBBB", "#FFFFFF"


def svg(graph: ModelGraph) -> str:
    """Return the drawing; edges past other nodes bow right, branches stand side by side."""
    place = _positions(graph)
    rows = max(row for row, _ in place.values()) + 1
    columns = max(column for _, column in place.values()) + 1
    width = 2 * MARGIN + columns * (WIDTH + GAP) + 130
    height = 2 * MARGIN + rows * ROW
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"'
        f' width="{width}" height="{height}">',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" fill="#555"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for source, target, data in graph.dag.edges(data=True):
        parts.append(_edge(place[source], place[target], data["role"]))
    for name, op, layer in graph.nodes():
        parts.append(_box(name, op, layer, place[name]))
    return "\n".join([*parts, "</svg>", ""])


def _positions(graph: ModelGraph) -> dict[str, tuple[int, int]]:
    """Return row and column of each node: branches of one norm share a row."""
    place: dict[str, tuple[int, int]] = {}
    row = -1
    branches: dict[str, int] = {}
    for name, op, _ in graph.nodes():
        source = next(iter(graph.dag.predecessors(name)), "")
        if op.kind == MIXER and source in branches:
            branches[source] += 1
            place[name] = (row, branches[source])
            continue
        if op.kind == MIXER:
            branches[source] = 0
        row += 1
        place[name] = (row, 0)
    return place


def _centre(place: tuple[int, int]) -> tuple[float, float]:
    row, column = place
    return MARGIN + column * (WIDTH + GAP) + WIDTH / 2, MARGIN + row * ROW + HEIGHT / 2


def _edge(source: tuple[int, int], target: tuple[int, int], role: str) -> str:
    (x0, y0), (x1, y1) = _centre(source), _centre(target)
    if role != "input":
        x = x0 + WIDTH / 2
        reach = x + 40
        path = f"M{x},{y0} C{reach},{y0} {reach},{y1} {x1 + WIDTH / 2},{y1}"
        return (
            f'<path d="{path}" fill="none" stroke="#999" stroke-dasharray="4 3"'
            ' marker-end="url(#tip)"/>'
        )
    path = f"M{x0},{y0 + HEIGHT / 2} L{x1},{y1 - HEIGHT / 2}"
    return f'<path d="{path}" fill="none" stroke="#555" marker-end="url(#tip)"/>'


def _box(name: str, op: Op, layer: int | None, place: tuple[int, int]) -> str:
    x, y = _centre(place)
    label = {ADD: "+"}.get(op.kind, f"{op.letter} {op.title}".strip())
    radius = HEIGHT / 2 if op.kind == ADD else 4
    shown = f"{layer + 1}" if layer is not None and op.kind == MIXER else ""
    return (
        f"<g><title>{escape(name)}</title>"
        f'<rect x="{x - WIDTH / 2}" y="{y - HEIGHT / 2}" width="{WIDTH}"'
        f' height="{HEIGHT}" rx="{radius}" fill="{_fill(op)}" stroke="#333"/>'
        f'<text x="{x}" y="{y + 4}" text-anchor="middle" {FONT}>{escape(label)}</text>'
        f'<text x="{x - WIDTH / 2 - 4}" y="{y + 4}" text-anchor="end" {FONT} fill="#777">'
        f"{shown}</text></g>"
    )


def _fill(op: Op) -> str:
    if isinstance(op.settings, MixerSettings):
        return FULL if op.settings.is_full_attention else CHEAP
    return FFN_FILL if op.kind == FFN else PLAIN
