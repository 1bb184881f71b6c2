"""Samplers on placement problems whose optimum is known: the share of the hypervolume reached.

    python benchmarks/samplers.py [--problems "noise 0.02" ...] [--samplers pattern "tpe, bits" ...]
        [--trials 200] [--seeds 5] [--output docs/records/samplers.json [--merge]]

Optuna's samplers have the feasible encoding of search/encoding.py and, as `bits`, one parameter a
layer. The problems are those of search/landscape.py; the exact front of two mixers in 24 layers is
found by trying all 2^24. At 48 layers of 4 mixers the reference is the best front known: all
candidates of all runs, and a long evolutionary run. `--merge` keeps the record's other rows and
problems, and its best: some samplers, or fewer trials of a slow one, are run without the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import optuna

from hybridsim.cost.op import Deployment
from hybridsim.hardware import parse_hardware
from hybridsim.options import read_option
from hybridsim.origin import versions
from hybridsim.spec.parse import parse_spec
from hybridsim.workload import parse_workload
from search.candidate import Candidate
from search.designs import ladder, periodic
from search.landscape import (
    FULL_BYTES,
    LINEAR_BYTES,
    Landscape,
    Pairs,
    PlacementProblem,
    Rugged,
    exact_front,
)
from search.moves import mutated
from search.pareto import Array, hypervolume, non_dominated
from search.samplers import SamplerSettings, make_sampler
from search.settings import Constraints, SpaceSettings
from search.space import Serve, Space

CHECKPOINTS = (25, 50, 100, 200)
LONG_RUN = 200_000
WINDOW_BYTES = FULL_BYTES / 32  # of a window of 4,096 tokens
STATE_BYTES = 4 * LINEAR_BYTES


def problem_space(num_layers: int, letters: str = "LF") -> Space:
    """Return the space of the problem: a spec whose cache at 128k tokens is f1."""
    full = {"kind": "attention", "num_heads": 16, "num_kv_heads": 2, "head_dim": 128}
    linear = {"kind": "lightning", "num_heads": 32, "head_dim": 128}
    mixers = {
        "L": linear,
        "S": {**linear, "num_heads": 128},
        "W": {**full, "window": 4096},
        "F": full,
    }
    spec = parse_spec(
        {
            "name": "problem",
            "hidden_size": 2048,
            "num_layers": num_layers,
            "vocab_size": 1024,
            "native_context": 131_072,
            "layer_pattern": "LLLF*",
            "ffn_pattern": "D*",
            "mixers": {letter: mixers[letter] for letter in letters},
            "ffns": {"D": {"kind": "dense", "intermediate_size": 8192}},
        }
    )
    serve = Serve(
        parse_workload(read_option("workload", "agent_128k")),
        parse_hardware(read_option("hardware", "h200")),
        Deployment(),
    )
    settings = SpaceSettings(name="all", letters=letters, constraints=Constraints(fits=False))
    return Space(spec, settings, serve)


@dataclass(frozen=True)
class Problem:
    """A placement problem.

    Attributes:
        name: how tables call it.
        space: of the candidates.
        landscape: its values.
        noise: standard deviation of what is added to f2 at each evaluation.
        three: whether the loss's part for gaps and neighbours is an objective of its own.
    """

    name: str
    space: Space
    landscape: PlacementProblem
    noise: float = 0.0
    three: bool = False

    def values(self, candidates: Iterable[Candidate]) -> Array:
        """Return [candidates, objectives], without noise, minimised."""
        letters = self.space.letters
        rows = np.array([[letters.index(c) for c in one.letters] for one in candidates])
        values = self.landscape.values(rows)
        if not self.three:
            return values
        # Third: time, which windows and states share with full attention in another proportion.
        speed = np.array([1.0, 1.15, 1.3, 2.0])[np.array(_places(letters))]
        return np.column_stack([values, speed[rows].mean(axis=1) + 0.1 * _changes(rows)])

    @property
    def reference(self) -> Array:
        two = self.landscape.reference
        return np.append(two, 2.2) if self.three else two


def _places(letters: str) -> list[int]:
    return ["LSWF".index(letter) for letter in letters]


def _changes(rows: Array) -> Array:
    """Return the share of layers whose mixer differs from the one before: kernels to switch."""
    return np.asarray((rows[:, 1:] != rows[:, :-1]).mean(axis=1))


def problems() -> list[Problem]:
    """Return the problems of the table."""
    two, four = problem_space(24), problem_space(48, "LSWF")
    many = Landscape(
        48, (0.0, 0.15, 0.3, 1.0), (LINEAR_BYTES, STATE_BYTES, WINDOW_BYTES, FULL_BYTES)
    )
    return [
        Problem("known optimum", two, Landscape()),
        Problem("noise 0.02", two, Landscape(), noise=0.02),
        Problem("three objectives", two, Landscape(), three=True),
        Problem("48 layers, 4 mixers", four, many),
        Problem("pairs", two, Pairs()),
        Problem("rugged", two, Rugged()),
    ]


@dataclass(frozen=True)
class Run:
    """One study: its candidates in order, and the values that the sampler was told."""

    candidates: list[Candidate]
    told: Array
    ms_per_trial: float


Suggest = Callable[[optuna.trial.Trial], Candidate]


def run(problem: Problem, sampler: Any, suggest: Suggest, trials: int, seed: int) -> Run:
    """Run one study in memory."""
    draw = np.random.default_rng([seed, 17])
    directions = ["minimize"] * len(problem.reference)
    study = optuna.create_study(sampler=sampler, directions=directions)
    candidates, told = [], []
    start = time.process_time()
    for _ in range(trials):
        trial = study.ask()
        candidate = suggest(trial)
        values = problem.values([candidate])[0]
        values[1] += problem.noise * draw.standard_normal()
        study.tell(trial, values.tolist())
        candidates.append(candidate)
        told.append(values)
    ms = (time.process_time() - start) / trials * 1e3
    return Run(candidates, np.array(told), ms)


def bits(space: Space) -> Suggest:
    """Return the encoding with one categorical parameter a layer."""

    def suggest(trial: optuna.trial.Trial) -> Candidate:
        letters = list(space.letters)
        return Candidate(
            "".join(trial.suggest_categorical(f"layer_{i:02d}", letters) for i in space.free)
        )

    return suggest


def reached(problem: Problem, found: Run, count: int) -> float:
    """Return the hypervolume of the front that is observed after so many trials, without noise.

    Who chooses sees the noisy values; what they get are the true ones.
    """
    seen = found.told[:count]
    chosen = [c for c, on in zip(found.candidates, non_dominated(seen), strict=False) if on]
    return hypervolume(problem.values(chosen), problem.reference)


def best_known(problem: Problem, runs: Iterable[Run]) -> float:
    """Return the hypervolume of the exact front, or of the best one known."""
    if problem.landscape.num_layers == 24 and not problem.three:
        return hypervolume(exact_front(problem.landscape, 24), problem.reference)
    known = [c for one in runs for c in one.candidates]
    known += [*ladder(problem.space), *periodic(problem.space)]
    draw = Random(0)
    values = problem.values(known)
    for _ in range(LONG_RUN // 100):
        front = np.flatnonzero(non_dominated(values))
        known, values = [known[i] for i in front], values[front]
        children = {mutated(problem.space, draw.choice(known), draw) for _ in range(100)} - set(
            known
        )
        known += sorted(children)
        values = problem.values(known)
    return hypervolume(values, problem.reference)


def baselines(problem: Problem, best: float) -> dict[str, dict[str, Any]]:
    """Return what plain ladders and periodic patterns reach, with how many evaluations."""
    made = {}
    for name, plain in (("centred ladder", ladder), ("periodic", periodic)):
        candidates = plain(problem.space)
        share = hypervolume(problem.values(candidates), problem.reference) / best
        made[name] = {"evaluations": len(candidates), "share": share}
    return made


def samplers() -> dict[str, tuple[SamplerSettings, bool]]:
    """Return the rows of the table by label: settings, whether one parameter a layer."""
    rows = {"pattern": (SamplerSettings("pattern"), False)}
    options = {
        "tpe": {"multivariate": True},
        "nsga2": {"population_size": 20},
        "nsga3": {"population_size": 20},
        "gp": {},
        "random": {},
    }
    for kind, given in options.items():
        rows[kind] = (SamplerSettings(kind, given), False)
        rows[f"{kind}, bits"] = (SamplerSettings(kind, given), True)
    plain = SamplerSettings("pattern", {"use_surrogate": False})
    return {**rows, "pattern, no surrogate": (plain, False)}


def compare(
    problem: Problem, chosen: list[str], trials: int, seeds: int, known: float | None = None
) -> dict[str, Any]:
    """Run samplers on a problem.

    Args:
        problem: which.
        chosen: labels of the samplers.
        trials: of each study.
        seeds: studies of each sampler.
        known: best hypervolume of a record; None: it is looked for.
    """
    runs: dict[str, list[Run]] = {}
    for label in chosen:
        settings, per_layer = samplers()[label]
        suggest = bits(problem.space) if per_layer else problem.space.suggest
        for seed in range(seeds):
            sampler = make_sampler(
                settings, seed, space=problem.space, reference=problem.reference.tolist()
            )
            runs.setdefault(label, []).append(run(problem, sampler, suggest, trials, seed))
        last = runs[label][-1]
        print(f"{problem.name}: {label}, {last.ms_per_trial:.1f} ms a trial", flush=True)
    every = [one for group in runs.values() for one in group]
    best = known or best_known(problem, every)
    tried = [problem.values(one.candidates) for one in every]
    best = max(best, hypervolume(np.concatenate(tried), problem.reference))
    return summary(problem, runs, best, trials)


def summary(
    problem: Problem, runs: dict[str, list[Run]], best: float, trials: int
) -> dict[str, Any]:
    """Return a problem's part of the record."""
    at = [n for n in CHECKPOINTS if n <= trials]
    rows = [
        {
            "sampler": label,
            "seeds": len(group),
            "trials": trials,
            **{
                f"at_{n}": statistics.mean(reached(problem, one, n) / best for one in group)
                for n in at
            },
            "worst": min(reached(problem, one, trials) / best for one in group),
            "distinct": statistics.mean(len(set(one.candidates)) for one in group),
            "ms_per_trial": statistics.median(one.ms_per_trial for one in group),
        }
        for label, group in runs.items()
    ]
    return {
        "problem": problem.name,
        "best_hypervolume": best,
        "baselines": baselines(problem, best),
        "samplers": rows,
    }


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return a problem's record with new rows in it; shares are of the better best of the two."""
    best = max(old["best_hypervolume"], new["best_hypervolume"])
    rows = {
        row["sampler"]: _rescaled(row, one["best_hypervolume"] / best)
        for one in (old, new)
        for row in one["samplers"]
    }
    plain = {
        name: {**row, "share": row["share"] * old["best_hypervolume"] / best}
        for name, row in old["baselines"].items()
    }
    ordered = [rows[label] for label in samplers() if label in rows]
    return {**old, "best_hypervolume": best, "baselines": plain, "samplers": ordered}


def _rescaled(row: dict[str, Any], factor: float) -> dict[str, Any]:
    shares = {key: row[key] * factor for key in row if key.startswith("at_") or key == "worst"}
    return {**row, **shares}


def markdown(found: dict[str, Any]) -> str:
    """Return one problem's table."""
    keys = [f"at_{n}" for n in CHECKPOINTS if any(f"at_{n}" in row for row in found["samplers"])]
    heads = ["sampler", *[key[3:] for key in keys], "worst", "distinct", "ms a trial", "seeds"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in found["samplers"]:
        cells = [f"{row[key]:.4f}" if key in row else "-" for key in (*keys, "worst")]
        rest = [f"{row['distinct']:.0f}", f"{row['ms_per_trial']:.1f}", str(row["seeds"])]
        lines.append(f"| {' | '.join([row['sampler'], *cells, *rest])} |")
    for name, plain in found["baselines"].items():
        lines.append(f"\n{name}: {plain['share']:.4f} with {plain['evaluations']} evaluations.")
    return f"### {found['problem']}\n\n" + "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names, slow = [problem.name for problem in problems()], ("gp", "gp, bits")
    quick = [label for label in samplers() if label not in slow]
    parser.add_argument("--problems", nargs="+", choices=names, default=names)
    parser.add_argument("--samplers", nargs="+", choices=list(samplers()), default=quick)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--merge", action="store_true", help="into the record at --output")
    given = parser.parse_args()
    if given.merge and not (given.output and given.output.is_file()):
        parser.error("--merge: give the record as --output")
    record = json.loads(given.output.read_text(encoding="utf-8")) if given.merge else {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = {one["problem"]: one for one in record.get("results", [])}
    for problem in (p for p in problems() if p.name in given.problems):
        old = results.get(problem.name)
        known = old and old["best_hypervolume"]
        found = compare(problem, given.samplers, given.trials, given.seeds, known)
        results[problem.name] = merged(old, found) if old else found
        print(markdown(results[problem.name]), end="\n\n", flush=True)
    if given.output:
        document = {"results": list(results.values()), "versions": versions()}
        given.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
