"""The pictures of a profile and of a comparison, from records only."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import IO, Any

import matplotlib

matplotlib.use("Agg")  # no display
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hybridsim.report.times import origin_text
from hybridsim.report.units import tokens_text

Record = dict[str, Any]

# Colour-blind safe (Okabe and Ito).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
SIZE = (8, 5)
GIB = 1 << 30


Target = Path | IO[bytes]


def save(figure: Figure, path: Target) -> None:
    """Write a figure and let go of it."""
    figure.tight_layout()
    figure.savefig(path, dpi=150, format="png")
    plt.close(figure)


def _context_axis(axes: Axes, contexts: list[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(contexts, [tokens_text(n) for n in contexts], rotation=45)
    axes.minorticks_off()
    axes.set_xlabel("context (tokens)")
    axes.grid(True, alpha=0.3)


def _first_batch(rows: list[Record]) -> list[Record]:
    return [row for row in rows if row["batch_size"] == rows[0]["batch_size"]]


def cache_picture(path: Target, document: Record, rows: list[Record]) -> None:
    """Draw the cache of one sequence against the context, with the all-full twin's."""
    rows = _first_batch(rows)
    contexts = [row["context_tokens"] for row in rows]
    figure, axes = plt.subplots(figsize=SIZE)
    ours = [row["cache_bytes_per_sequence"] / GIB for row in rows]
    axes.plot(contexts, ours, "o-", color=COLOURS[0], label=document["spec"]["name"])
    if rows[0]["twin_cache_bytes_per_sequence"] is not None:
        twins = [row["twin_cache_bytes_per_sequence"] / GIB for row in rows]
        axes.plot(contexts, twins, "s--", color=COLOURS[1], label="all-full twin")
    crossover = document["crossover_tokens"]["memory"]
    if crossover and contexts[0] <= crossover <= contexts[-1]:
        axes.axvline(crossover, color="grey", linestyle=":", label=f"equal at {crossover:,} tokens")
    axes.set_yscale("log")
    axes.set_ylabel("cache and state of one sequence (GiB, exact)")
    _context_axis(axes, contexts)
    axes.set_title(f"{document['spec']['name']}: cache against context")
    axes.legend()
    save(figure, path)


def latency_picture(path: Target, document: Record, rows: list[Record]) -> None:
    """Draw prefill and decode times against the context, the all-full twin's dashed.

    Times that are not modelled have their 90 % interval as a band.
    """
    figure, axes = plt.subplots(1, 2, figsize=(11, 5))
    for axis, part in zip(axes, ("prefill", "decode"), strict=True):
        for index, batch in enumerate(sorted({row["batch_size"] for row in rows})):
            chosen = [row for row in rows if row["batch_size"] == batch]
            colour = COLOURS[index % len(COLOURS)]
            _latency_lines(axis, part, chosen, colour, f"batch {batch}")
        _context_axis(axis, sorted({row["context_tokens"] for row in rows}))
        axis.set_ylabel(f"ms, {origin_text(row[f'{part}_provenance'] for row in rows)}")
        axis.set_title(
            "prefill of the context" if part == "prefill" else "one decode step after it"
        )
        axis.legend()
    axes[0].set_yscale("log")
    axes[1].set_ylim(bottom=0)
    figure.suptitle(f"{document['spec']['name']} on {document['hardware']['title']}")
    save(figure, path)


def _latency_lines(axis: Axes, part: str, rows: list[Record], colour: str, label: str) -> None:
    contexts = [row["context_tokens"] for row in rows]
    ours = [row[f"{part}_latency_s"] * 1e3 for row in rows]
    axis.plot(contexts, ours, "o-", color=colour, label=label)
    bounds = [[row[f"{part}_latency_{end}_s"] for row in rows] for end in ("low", "high")]
    if not any(bound is None for line in bounds for bound in line):
        low, high = ([bound * 1e3 for bound in line] for line in bounds)
        axis.fill_between(contexts, low, high, color=colour, alpha=0.2, linewidth=0)
    if rows[0][f"twin_{part}_latency_s"] is not None:
        twins = [row[f"twin_{part}_latency_s"] * 1e3 for row in rows]
        axis.plot(contexts, twins, "s--", color=colour, alpha=0.6, label=f"{label}, all-full twin")


def breakdown_picture(path: Target, document: Record) -> None:
    """Draw each kind of node's share of parameters and of the time."""
    kinds = document["kinds"]
    load = document["workload"]
    measures = {
        "parameters": "parameters",
        "decode_latency_s": f"decode, {load['concurrency']} sequences",
        "prefill_latency_s": f"prefill, {load['prompt_tokens']:,} tokens",
    }
    figure, axes = plt.subplots(figsize=(10, 4))
    left = [0.0] * len(measures)
    for index, row in enumerate(kinds):
        totals = [sum(kind[key] for kind in kinds) for key in measures]
        shares = [100 * row[key] / total for key, total in zip(measures, totals, strict=True)]
        label = f"{row['letter']} {row['title']}".strip()
        axes.barh(list(measures.values()), shares, left=left, color=COLOURS[index % 8], label=label)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    origins = origin_text(row["latency_provenance"] for row in kinds)
    axes.set_xlabel(f"share (%); times are {origins}")
    axes.set_xlim(0, 100)
    axes.set_title(f"{document['spec']['name']} on {document['hardware']['title']}")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncol=4, frameon=False)
    save(figure, path)


def comparison_picture(path: Target, rows: list[Record]) -> None:
    """Draw cache per sequence, TTFT and TPOT of several profiles side by side."""
    origins = origin_text(row["latency_provenance"] for row in rows)
    figures = {
        "cache_bytes_per_sequence": ("cache per sequence (GiB, exact)", GIB),
        "ttft_s": (f"time to first token (s, {origins})", 1),
        "tpot_s": (f"time per output token (ms, {origins})", 1e-3),
    }
    # Numbered, as the jobs are: equal labels would share one bar.
    labels = [
        "\n".join(textwrap.wrap(f"{i}: {row['spec']} {row['workload']} {row['overrides']}", 36))
        for i, row in enumerate(rows)
    ]
    figure, axes = plt.subplots(1, 3, figsize=(13, 2 + 0.5 * len(rows)), sharey=True)
    for axis, (key, (title, unit)) in zip(axes, figures.items(), strict=True):
        values = [row[key] / unit for row in rows]
        bars = axis.barh(
            labels, values, color=[COLOURS[0] if row["fits"] else "grey" for row in rows]
        )
        axis.bar_label(bars, fmt="{:.3g}", padding=3)
        axis.margins(x=0.25)
        axis.set_title(title, fontsize=10)
    axes[0].invert_yaxis()
    if not all(row["fits"] for row in rows):
        figure.suptitle("grey: does not fit the device", fontsize=9)
    save(figure, path)
