"""The figures of profiles and comparisons, from records only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hybridsim.report.figures import (
    Axis,
    Bar,
    BarFigure,
    Figure,
    LineFigure,
    Mark,
    Part,
    Series,
    ShareFigure,
)
from hybridsim.report.times import origin_text

Record = dict[str, Any]

SMALL, AROUND = ("embedding", "norm", "add"), "embedding, norms, adds"
CONTEXT = Axis("context (tokens)", "tokens", log=True)
PHASES = {"prefill": "prefill of the context", "decode": "one decode step after it"}
BARS = {
    "cache_bytes_per_sequence": ("cache per sequence, exact", "bytes"),
    "ttft_s": ("time to first token, {origins}", "seconds"),
    "tpot_s": ("time per output token, {origins}", "seconds"),
}


def profile_figures(document: Record, rows: list[Record]) -> list[Figure]:
    """Return the figures of a profile: cache, times of both phases, and the share of each kind."""
    times = [time_figure(document, rows, phase) for phase in PHASES]
    return [cache_figure(document, rows), *times, breakdown_figure(document)]


def cache_figure(document: Record, rows: list[Record]) -> LineFigure:
    """Return the cache of one sequence against the context, with the all-full twin's."""
    rows = [row for row in rows if row["batch_size"] == rows[0]["batch_size"]]
    contexts = tuple(row["context_tokens"] for row in rows)
    name = document["spec"]["name"]
    series = [Series(name, contexts, tuple(row["cache_bytes_per_sequence"] for row in rows))]
    if rows[0]["twin_cache_bytes_per_sequence"] is not None:
        twins = tuple(row["twin_cache_bytes_per_sequence"] for row in rows)
        series.append(Series("all-full twin", contexts, twins, colour=1, dashed=True))
    return LineFigure(
        "cache",
        f"{name}: cache and state of one sequence",
        "Exact. Keys, values and latents grow with the context, recurrent state does not.",
        CONTEXT,
        Axis("cache and state (exact)", "bytes", log=True),
        tuple(series),
        _crossing(document, "memory", contexts),
    )


def _crossing(document: Record, cost: str, contexts: Sequence[int]) -> tuple[Mark, ...]:
    """Return where the model becomes cheaper than its twin, if that is in the figure."""
    tokens = document["crossover_tokens"][cost]
    if not tokens or not contexts[0] <= tokens <= contexts[-1]:
        return ()
    batch = document["settings"]["batch_sizes"][0]
    where = "" if cost == "memory" else f" (modelled, batch {batch})"
    return (Mark(tokens, f"cheaper beyond {tokens:,} tokens{where}"),)


def time_figure(document: Record, rows: list[Record], phase: str) -> LineFigure:
    """Return the times of one phase against the context, the all-full twin's dashed."""
    series: list[Series] = []
    for index, batch in enumerate(sorted({row["batch_size"] for row in rows})):
        chosen = [row for row in rows if row["batch_size"] == batch]
        series += _time_series(chosen, phase, index, f"batch {batch}")
    contexts = sorted({row["context_tokens"] for row in rows})
    origins = origin_text(row[f"{phase}_provenance"] for row in rows)
    return LineFigure(
        phase,
        f"{document['spec']['name']}: {PHASES[phase]}",
        f"On {document['hardware']['title']}; {origins}; bands are 90 % intervals.",
        CONTEXT,
        Axis(f"time ({origins})", "seconds", log=True),
        tuple(series),
        _crossing(document, f"{phase}_latency", contexts),
    )


def _time_series(rows: list[Record], phase: str, colour: int, label: str) -> list[Series]:
    contexts = tuple(row["context_tokens"] for row in rows)
    low, high = (tuple(row[f"{phase}_latency_{end}_s"] for row in rows) for end in ("low", "high"))
    bounded = None not in (*low, *high)
    times = tuple(row[f"{phase}_latency_s"] for row in rows)
    series = [
        Series(
            label,
            contexts,
            times,
            low=low if bounded else None,
            high=high if bounded else None,
            colour=colour,
        )
    ]
    if rows[0][f"twin_{phase}_latency_s"] is not None:
        twins = tuple(row[f"twin_{phase}_latency_s"] for row in rows)
        name = f"{label}, all-full twin"
        series.append(Series(name, contexts, twins, colour=colour, dashed=True))
    return series


def breakdown_figure(document: Record) -> ShareFigure:
    """Return each kind of node's share of parameters and of the time of both phases."""
    kinds, load = document["kinds"], document["workload"]
    stacks = {
        "parameters": "parameters",
        "decode_latency_s": f"decode, {load['concurrency']} sequences",
        "prefill_latency_s": f"prefill, {load['prompt_tokens']:,} tokens",
    }
    totals = {key: sum(row[key] for row in kinds) for key in stacks}
    parts = tuple(
        Part(name, tuple(sum(row[key] for row in rows) / totals[key] for key in stacks))
        for name, rows in _parts(kinds).items()
    )
    origins = origin_text(row["latency_provenance"] for row in kinds)
    return ShareFigure(
        "breakdown",
        f"{document['spec']['name']}: where parameters and time go",
        f"On {document['hardware']['title']}; parameters exact, times {origins}.",
        tuple(stacks.values()),
        parts,
    )


def _parts(kinds: list[Record]) -> dict[str, list[Record]]:
    """Return the kinds of nodes by what is drawn as one: letters first, small ones together."""
    found: dict[str, list[Record]] = {}
    for row in sorted(kinds, key=lambda row: (not row["letter"], row["kind"] in SMALL)):
        name = f"{row['letter']} {row['title']}" if row["letter"] else row["title"]
        found.setdefault(AROUND if row["kind"] in SMALL else name, []).append(row)
    return found


def comparison_figures(rows: list[Record]) -> list[BarFigure]:
    """Return cache per sequence, TTFT and TPOT of several profiles side by side."""
    origins = origin_text(row["latency_provenance"] for row in rows)
    # Numbered, as the jobs are: equal labels would be taken for one.
    labels = [
        f"{i}: {row['spec']} {row['workload']} {row['overrides']}".strip()
        for i, row in enumerate(rows)
    ]
    return [
        BarFigure(
            key.removesuffix("_s"),
            title.format(origins=origins),
            "Faded: does not fit the device.",
            Axis(title.format(origins=origins), kind),
            tuple(
                Bar(label, row[key], faded=not row["fits"])
                for label, row in zip(labels, rows, strict=True)
            ),
        )
        for key, (title, kind) in BARS.items()
    ]
