"""What a study found, as one document: frontier, gain, importance, ledger. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from hybridsim.spec.pattern import compress_pattern
from search.evaluate import Evaluator
from search.fidelity import arrays
from search.gain import gains
from search.importance import layer_importance
from search.objectives import QUALITY, TRAINED, Value
from search.pareto import front_probability, non_dominated
from search.quality import Quality, deviation
from search.records import Tried, best_known
from search.reference import Box
from search.space import Space

SCHEMA = "hybridsim/search/1"
LIKELY = 0.5  # probability from which on a candidate is listed though another looks better

Document = dict[str, Any]


def answer(
    study: str,
    evaluator: Evaluator,
    box: Box,
    found: Sequence[Tried],
    origin: Document,
    classes: Document | None = None,
    tolerance: float = 0.0,
) -> Document:
    """Return the document of a study.

    Args:
        study: its name.
        evaluator: of its objectives.
        box: of its hypervolume.
        found: its finished trials.
        origin: what made it: base, space, versions.
        classes: what an exact enumeration covered.
        tolerance: difference in quality that does not matter.
    """
    known = best_known(found)
    frontier = frontier_rows(evaluator, box, known)
    gained = [] if classes else gains(evaluator.space, found, box)
    return {
        "schema": SCHEMA,
        "study": study,
        "objectives": [
            {"name": o.name, "unit": o.unit, "direction": o.direction, "title": o.title}
            for o in evaluator.objectives
        ],
        "trials": len(found),
        "candidates": len(known),
        "space_size": evaluator.space.size,
        "hypervolume": box.share([one for one in found if not one.baseline]),
        "frontier": frontier,
        "recommended": recommended(evaluator, frontier, len(known), tolerance),
        "gains": [{**asdict(gain), "resolved": gain.resolved} for gain in gained],
        "advice": None,
        "importance": importance_rows(evaluator, found),
        "rank_agreement": rank_agreement(evaluator, known),
        "ledger": ledger(evaluator, found),
        "reliability": of_proxies(evaluator, found, lambda q, fidelity: q.reliability(fidelity)),
        "pressure": of_proxies(evaluator, found, lambda q, fidelity: q.pressure(fidelity)),
        "enumerated": classes,
        "origin": origin,
    }


def with_advice(document: Document, space: Space) -> Document:
    """Return the document with the plain pattern to use where the gain is not resolved.

    Its ratio is that of the recommended design. Where not even the front's best and worst qualities
    are told apart, the qualities recommend nothing: then it is the base's.
    """
    if not document["gains"] or all(gain["resolved"] for gain in document["gains"]):
        return document
    chosen, base = document["recommended"], space.full_layers(space.base.layer_letters)
    told_apart = chosen is not None and not _is_worst(chosen, document["frontier"])
    full = chosen["full_layers"] if told_apart else base
    return {**document, "advice": f"use {plain_unit(space, full)}"}


def _is_worst(chosen: Document, frontier: Sequence[Document]) -> bool:
    """Whether a row has the least of the front's qualities, and is not alone."""
    name = next(name for name in chosen["values"] if name.startswith(QUALITY))
    scores = [row["values"][name]["value"] for row in frontier]
    return len(scores) > 1 and chosen["values"][name]["value"] <= min(scores)


def plain_unit(space: Space, full_layers: int) -> str:
    """Return the unit of the periodic pattern nearest in the number of full layers: LLLF."""
    size = len(space.template)
    cheap = next((c for c in space.letters if c not in space.full_letters), space.letters[0])
    if not full_layers or not space.full_letters:
        return cheap
    return cheap * (max(1, round(size / full_layers)) - 1) + space.full_letters[0]


def frontier_rows(evaluator: Evaluator, box: Box, known: Sequence[Tried]) -> list[Document]:
    """Return who is on the front, or likely to be, in the order of the first objective."""
    if not known:
        return []
    means, deviations = arrays(known, box.signs)
    chances, on_front = front_probability(means, deviations), non_dominated(means)
    chosen = np.flatnonzero(on_front | (chances >= LIKELY)).tolist()
    order = sorted(chosen, key=lambda i: tuple(means[i]))
    return [_row(evaluator.space, known[i], float(chances[i])) for i in order]


def _row(space: Space, one: Tried, probability: float) -> Document:
    letters = one.candidate.letters
    full = space.full_layers(letters)
    base = space.base.layer_letters
    return {
        "trial": one.number,
        "layer_pattern": compress_pattern(letters),
        "layers": letters,
        "full_layers": full,
        "ratio": ratio_text(full, len(letters)),
        "changes": space.variants.changes(one.candidate.options),
        "fidelity": one.fidelity,
        "values": {name: asdict(value) for name, value in one.values.items()},
        "scores": {name: asdict(value) for name, value in one.scores.items()},
        "probability": probability,
        "layers_unlike_base": sum(a != b for a, b in zip(letters, base, strict=True)),
    }


def ratio_text(full: int, size: int) -> str:
    """Return other layers to full ones: 3:1; "none" and "all" at the ends."""
    if full in (0, size):
        return "all" if full else "none"
    return f"{(size - full) / full:.3g}:1"


def recommended(
    evaluator: Evaluator, frontier: Sequence[Document], compared: int, tolerance: float
) -> Document | None:
    """Return the cheapest of the frontier that is not resolved to be worse than the best.

    Cheap by the first objective that is a cost. Worse: by more than the tolerance beyond the error
    of the difference, at 95 % for all comparisons together (Bonferroni), since the best of many
    noisy values is partly lucky. None without a cost and a quality.

    Args:
        evaluator: of the objectives.
        frontier: its rows.
        compared: candidates that the best one is the best of.
        tolerance: difference in quality that does not matter.
    """
    costs = [o for o in evaluator.objectives if o.cost_class != TRAINED]
    if not costs or not evaluator.trained or not frontier:
        return None
    quality, cost = evaluator.trained[0], costs[0]

    def value(row: Document, name: str) -> Value:
        return Value(**row["values"][name])

    best = max(frontier, key=lambda row: -quality.sign * value(row, quality.name).value)
    top = value(best, quality.name)
    errors = NormalDist().inv_cdf(1 - 0.05 / max(1, compared))

    def near(row: Document) -> bool:
        other = value(row, quality.name)
        half = errors * float(np.hypot(deviation(top), deviation(other)))
        return abs(top.value - other.value) <= tolerance + half

    return min(filter(near, frontier), key=lambda row: cost.sign * value(row, cost.name).value)


def importance_rows(evaluator: Evaluator, found: Sequence[Tried]) -> list[Document]:
    """Return which layers want full attention, by the first trained objective."""
    if not evaluator.trained:
        return []
    rows = layer_importance(evaluator.space, found, evaluator.trained[0])
    return [asdict(row) for row in rows]


def rank_agreement(evaluator: Evaluator, known: Sequence[Tried]) -> Document | None:
    """Return how alike cache bytes and times rank the candidates (Spearman), None for too few.

    A cache is no time: where they disagree, cache bytes alone mislead.
    """
    costs = [evaluator.costs(one.candidate) for one in known]
    names = [o.name for o in evaluator.objectives if o.unit in ("s", "tokens/s")]
    caches = [
        evaluator.space.costs(o.candidate.options)
        .serving(evaluator.space.counts(o.candidate.letters))
        .cache_bytes(evaluator.space.serve.workload.context_target)
        for o in known
    ]
    if not names or len(set(caches)) < 3:
        return None
    frame = pd.DataFrame({name: [one[name].value for one in costs] for name in names})
    ranked = frame.rank()
    cache_ranks = pd.Series(caches).rank()
    return {
        name: {
            "spearman": float(np.corrcoef(cache_ranks, ranked[name])[0, 1]),
            "provenance": costs[0][name].provenance,
        }
        for name in names
        if ranked[name].nunique() > 1
    }


def ledger(evaluator: Evaluator, found: Sequence[Tried]) -> list[Document]:
    """Return what was spent: trials, distinct candidates and time by length of training."""
    names = ["costs"]
    if evaluator.trained and evaluator.quality is not None:
        names = [fidelity.name for fidelity in evaluator.quality.fidelities]
    trials = Counter(one.fidelity for one in found)
    return [
        {
            "fidelity": name,
            "trials": trials[index],
            "candidates": len({one.candidate for one in found if one.fidelity == index}),
            "baselines": sum(one.fidelity == index and bool(one.baseline) for one in found),
            "wall_s": sum(one.wall_s for one in found if one.fidelity == index),
        }
        for index, name in enumerate(names)
    ]


def of_proxies(
    evaluator: Evaluator, found: Sequence[Tried], told: Callable[[Quality, int], Any]
) -> list[Any]:
    """Return what is told of each proxy that trained something.

    Nothing for a surrogate or costs alone.
    """
    quality = evaluator.quality
    if not evaluator.trained or quality is None:
        return []
    lines = [told(quality, fidelity) for fidelity in sorted({one.fidelity for one in found})]
    return [line for line in lines if line]


def hypervolume_history(box: Box, found: Sequence[Tried]) -> list[Document]:
    """Return the hypervolume after each trial that the sampler proposed, or that it led to."""
    own = [one for one in found if not one.baseline]
    return [
        {"trial": one.number, "hypervolume": box.share(best_known(own[: index + 1]))}
        for index, one in enumerate(own)
    ]
