"""Records of runs as reports read them, made up where no short run can make them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pandas as pd

from hybridsim.cost.op import Deployment
from hybridsim.cost.patterns import PatternCosts
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.origin import versions
from hybridsim.spec.load import load_spec
from hybridsim.spec.parse import spec_dict
from hybridsim.spec.pattern import compress_pattern

OBJECTIVES = [
    {"name": "decode_latency", "unit": "s", "direction": "minimize"},
    {"name": "quality", "unit": "", "direction": "maximize"},
    {"name": "cache_bytes", "unit": "B", "direction": "minimize"},
]


def write_study(folder: Path, num_trials: int, seed: int = 0) -> dict[str, Any]:
    """Write a search's folder: costs are the closed forms', quality is made up."""
    folder.mkdir(parents=True)
    spec, draw = load_spec("kimi_linear"), random.Random(seed)
    costs = PatternCosts(
        spec,
        context_tokens=131072,
        batch_size=8,
        deployment=Deployment(),
        hardware=parse_hardware(read_option("hardware", "h200")),
    )
    patterns = _patterns(num_trials, spec.layer_letters, draw)
    rows = [_trial(n, letters, costs, draw) for n, letters in enumerate(patterns)]
    front = [row for row in rows if not any(_dominates(other, row) for other in rows)]
    document = {
        "schema": "hybridsim/search/1",
        "study": "made_up",
        "objectives": OBJECTIVES,
        "trials": len(rows),
        "candidates": len(rows),
        "hypervolume": 0.75,
        "importance": [
            {"layer": n + 1, "effect": draw.gauss(0, 1), "low": -1.5, "high": 1.5, "tried": 9}
            for n in range(spec.num_layers)
        ],
        "frontier": [_front_row(row, draw) for row in front],
        "recommended": None,
        "gains": [],
        "advice": None,
        "ledger": [],
        "origin": {"base": spec.name, "quality": "surrogate", "versions": versions()},
    }
    (folder / "frontier.json").write_text(json.dumps(document))
    study = {"schema": "hybridsim/study/1", "definition": {"spec": spec_dict(spec)}}
    (folder / "study.json").write_text(json.dumps(study))
    pd.DataFrame(rows).to_parquet(folder / "trials.parquet", index=False)
    history = [{"trial": n, "hypervolume": 1 - 1 / (n + 2)} for n in range(len(rows))]
    pd.DataFrame(history).to_csv(folder / "hypervolume.csv", index=False)
    return document


def _patterns(count: int, published: str, draw: random.Random) -> list[str]:
    """Return as many patterns, all different, the published one first."""
    found = {published: None}
    while len(found) < count:
        full = set(draw.sample(range(len(published)), draw.randint(0, len(published))))
        found["".join("F" if layer in full else "L" for layer in range(len(published)))] = None
    return list(found)


def _front_row(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    return {
        "trial": row["trial"],
        "layer_pattern": compress_pattern(row["layers"]),
        "layers": row["layers"],
        "ratio": "3:1",
        "changes": {},
        "values": {
            o["name"]: {
                "value": row[o["name"]],
                **{end: row.get(f"{o['name']}_{end}") for end in ("low", "high", "provenance")},
            }
            for o in OBJECTIVES
        },
        "probability": draw.uniform(0.3, 1),
    }


def _trial(number: int, letters: str, costs: PatternCosts, draw: random.Random) -> dict[str, Any]:
    return {
        "trial": number,
        "layers": letters,
        "options": None,
        "changes": "",
        "fidelity": 0,
        "baseline": "ladder" if number % 50 == 1 else "",
        **_measures(letters, costs, draw.gauss(0, 0.05)),
    }


def _measures(letters: str, costs: PatternCosts, error: float) -> dict[str, Any]:
    point = costs.evaluate(letters)
    share = letters.count("F") / len(letters)
    quality = 1 - (1 - share) ** 4 * 0.6 + error
    return {
        "decode_latency": point.decode_latency_s,
        "decode_latency_provenance": "modelled",
        "quality": quality,
        "quality_low": quality - 0.03,
        "quality_high": quality + 0.03,
        "quality_provenance": "made up",
        "cache_bytes": float(point.cache_bytes),
        "cache_bytes_provenance": "exact",
    }


def _dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    signs = [(-1 if o["direction"] == "maximize" else 1, o["name"]) for o in OBJECTIVES]
    better = [sign * a[name] - sign * b[name] for sign, name in signs]
    return all(d <= 0 for d in better) and any(d < 0 for d in better)


def write_validation(folder: Path) -> None:
    """Write a validation's folder with made-up findings."""
    folder.mkdir(parents=True)
    finding = {
        "name": "retest",
        "question": "do other seeds rank the patterns alike?",
        "verdict": "reproduced",
        "figures": "Kendall tau 0.9 <b>",
        "values": {"tau": 0.9},
    }
    document = {
        "schema": "hybridsim/validate/1",
        "proxy": "quick",
        "findings": [finding],
        "counts": {"reproduced": 1, "not reproduced": 0, "not resolved": 0},
        "device": "cpu",
    }
    (folder / "validate.json").write_text(json.dumps(document))


def write_claims(folder: Path) -> None:
    """Write claims' folder with one claim that is made up."""
    folder.mkdir(parents=True)
    claim = {
        "id": "X-01",
        "quantity": "cache saved",
        "published": "75 %",
        "ours": "74.07 %",
        "verdict": "contradicted",
        "arithmetic": "1 - 8,064 / 31,104",
        "source": "a paper",
    }
    document = {"schema": "hybridsim/claims/1", "claims": [claim]}
    (folder / "claims.json").write_text(json.dumps(document))


def write_training(folder: Path) -> dict[str, Any]:
    """Write a training's folder with made-up scores."""
    folder.mkdir(parents=True)
    spec = load_spec("kimi_linear_tiny")
    scores = {
        task: {"mean": mean, "low": mean - 0.04, "high": mean + 0.03, "seeds": [mean] * 3}
        | {"chance": 0.01}
        for task, mean in (("mqar", 0.91), ("needle", 0.55), ("grammar", 0.78))
    }
    document = {
        "schema": "hybridsim/train/1",
        "spec": {"name": spec.name, "layer_pattern": "(LLLF)*6 LLF", "proxy_pattern": "LLLF"},
        "proxy": {"name": "quick"},
        "scores": {**scores, "stacks": None},
        "summary": {
            "mean": 0.74,
            "low": 0.7,
            "high": 0.78,
            "weights": {"mqar": 0.5, "needle": 0.5},
        },
        "device": "cpu",
        "wall_s": 61.0,
        "failures": [{"task": "stacks", "seed": 0, "status": "diverged", "cause": "loss is inf"}],
        "learning_rates": {"L": {"value": 0.01, "source": "default", "scores": {"0.01": None}}},
        "ledger": {"models": 9, "failed": 3, "steps": 900, "tokens": 90000},
        "twin": spec_dict(spec),
        "overrides": ["spec=kimi_linear_tiny"],
    }
    (folder / "train.json").write_text(json.dumps(document))
    rows = [
        {"task": task, "seed": seed, "step": step, "loss": 1 / (step + 1), "score": score}
        for task in scores
        for seed in range(3)
        for step in range(0, 200, 10)
        if (score := scores[task]["mean"] * min(1, step / (100 + 20 * seed))) is not None
    ]
    pd.DataFrame(rows).to_parquet(folder / "curves.parquet", index=False)
    return document
