"""Measures a proxy: is it repeatable, does a longer budget agree, do published results?

One population of the arena's patterns is trained at the proxy's budget on its tasks and on tasks
that published results are about; longer budgets, at the same learning rates, and Zoology's settings
are populations of their own. The checks then read their verdicts off the tables of scores.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any, final

from hybridsim.errors import SpecError
from hybridsim.spec.schema import ModelSpec
from hybridsim.train.arena import (
    KINDS,
    PATTERNS,
    SizedModels,
    arena_spec,
    attention_models,
    state_models,
    with_steps,
)
from hybridsim.train.proxy import ProxySettings
from hybridsim.train.quality import (
    A_BETTER,
    B_BETTER,
    UNRESOLVED,
    Score,
    difference,
    larger,
    score_of,
)
from hybridsim.train.ranks import kendall_tau, spearman
from hybridsim.train.reliability import (
    NOT_REPRODUCED,
    NOT_RESOLVED,
    REPRODUCED,
    Finding,
)
from hybridsim.train.run import Ledger, ProxyRun, Trained
from hybridsim.train.trainer import Look

RECALL, LANGUAGE = "recall", "language"
# Kinds of tasks whose mean, of those that count, is a pattern's recall.
RECALL_KINDS = ("mqar", "in_context_recall", "fuzzy_recall", "noisy_recall")
TARGET = 0.85  # of Kendall's tau and Spearman's rho
TIE = 0.02  # scores as close as this are no order
# Zoology's recall against state, read off its figure at about 17k numbers of state; those of the
# delta rule and the window lie between two points of it.
STATE_ORDER = {"G": 0.89, "D": 0.87, "A": 0.77, "M": 0.69, "W": 0.18}
NEED_LONGER = ("budget", "attention_first")  # checks that read a longer budget
NEED_ZOOLOGY = frozenset(("equal_state", "ZOO-03"))
ZOOLOGY = ((512, 64), (256, 16), (128, 8), (64, 4))  # length, pairs; the hardest has the grid
ATTENTION_STEPS, STATE_STEPS = 2000, 800  # on them; 8,192 tokens must all have been seen
ZOOLOGY_TRAINING = {
    "curriculum_steps": 200, "evaluate_every": 40, "stop_at": 0.998, "test_size": 128,
}  # fmt: skip


@final
@dataclass
class Tables:
    """What was trained.

    Attributes:
        seeds: of one result.
        recalls: tasks of recall; those that count are a pattern's recall, by their mean.
        speed_tasks: tasks that do not count: their scores say how soon a pattern learns.
        runs: results by budget ("1x", "4x", ..., "twice") and pattern.
        zoology: scores by length, pairs and pattern.
        ledgers: what it took.
    """

    seeds: int
    recalls: tuple[str, ...]
    runs: dict[str, dict[str, Trained]] = field(default_factory=dict)
    zoology: dict[tuple[int, int, str], Score | None] = field(default_factory=dict)
    speed_tasks: tuple[str, ...] = ()
    ledgers: list[Ledger] = field(default_factory=list)

    def seed_scores(self, pattern: str, task: str = RECALL, run: str = "1x") -> list[float]:
        """Return the scores of a pattern's trainings; 0 for one that failed."""
        return [o.score or 0.0 for o in self.runs[run][pattern].outcomes[task]]

    def add(self, run: str, pattern: str, trained: Trained) -> None:
        """Add a pattern's results on some tasks to a run's."""
        found = self.runs.setdefault(run, {})
        before = found[pattern].outcomes if pattern in found else {}
        found[pattern] = replace(trained, outcomes={**before, **trained.outcomes})

    def recalls_of(self, run: str) -> list[str]:
        """Return the recall tasks that a run has."""
        some = next(iter(self.runs[run].values()))
        return [task for task in self.recalls if task in some.outcomes]

    def ranked(self, run: str) -> list[str]:
        """Return the recall tasks of a run that patterns are ordered by."""
        return [task for task in self.recalls_of(run) if task not in self.speed_tasks]

    def recall_of_seeds(self, pattern: str, tasks: Sequence[str], run: str = "1x") -> list[float]:
        """Return each seed's mean score over recall tasks."""
        each = [self.seed_scores(pattern, task, run) for task in tasks]
        return [fmean(scores) for scores in zip(*each, strict=True)]

    def mean(self, pattern: str, task: str = RECALL, run: str = "1x") -> float:
        """Return a pattern's mean score."""
        return fmean(self.seed_scores(pattern, task, run))

    def score(self, pattern: str, task: str = RECALL, run: str = "1x") -> Score:
        """Return a pattern's score with its interval."""
        found = score_of(self.seed_scores(pattern, task, run), 0.0)
        assert found is not None
        return found

    def losses(self, pattern: str) -> list[float]:
        """Return the held-out losses of a pattern's trainings on language, nats."""
        found = self.runs["1x"][pattern].outcomes[LANGUAGE]
        return [o.loss for o in found if o.loss is not None]

    def loss(self, pattern: str) -> float:
        """Return a pattern's mean held-out loss, nats; infinite where all trainings failed."""
        losses = self.losses(pattern)
        return fmean(losses) if losses else math.inf

    def rows(self) -> list[dict[str, Any]]:
        """Return all scores, a row for each training."""
        rows = [
            {"run": run, "pattern": pattern, "task": task, "seed": o.member.seed,
             "score": o.score, "loss": o.loss, "steps": o.steps, "status": o.status,
             "rate": o.member.rate}
            for run, found in self.runs.items()
            for pattern, trained in found.items()
            for task, outcomes in trained.outcomes.items()
            for o in outcomes
        ]  # fmt: skip
        return rows + [
            {"run": "zoology", "pattern": 2 * letter, "task": f"mqar {length}/{pairs}",
             "seed": seed, "score": value}
            for (length, pairs, letter), score in self.zoology.items() if score is not None
            for seed, value in enumerate(score.seeds)
        ]  # fmt: skip


def _require_tasks(proxy: ProxySettings) -> None:
    """Raise SpecError unless the proxy has exact recall, which counts, and language."""
    for name, counted in ((RECALL, proxy.counted_tasks()), (LANGUAGE, tuple(proxy.tasks))):
        if name not in counted:
            raise SpecError(
                f"proxy.tasks={', '.join(proxy.tasks)}: a validation needs the task {name}"
                + (", and not as a speed task" if name in proxy.tasks else "")
            )


@final
class Validation:
    """Trains what the checks need.

    Args:
        proxy: what is validated.
        device: "cpu" or "cuda".
        folder: see ProxyRun.
        patterns: how many of the arena's patterns are ranked.
        longer: budgets beside the proxy's own, times its steps.
        on_look: called after every look.

    Raises:
        SpecError: the proxy lacks a task that the checks read.
    """

    def __init__(
        self,
        proxy: ProxySettings,
        *,
        device: str,
        folder: Path,
        patterns: int,
        longer: Sequence[float],
        on_look: Callable[[Look], None] | None = None,
    ) -> None:
        _require_tasks(proxy)
        self.proxy = replace(proxy, grid=True)  # mixers at one rate rank wrongly
        self.device, self.folder = device, folder
        self.patterns, self.longer, self.on_look = PATTERNS[:patterns], longer, on_look
        self.tables = Tables(proxy.seeds, self._recalls(), speed_tasks=proxy.speed_tasks)
        self._trained: list[ProxyRun] = []

    def run(self, zoology: bool = True, seconds: float = math.inf) -> Tables:
        """Return all tables; the learning-rate grid comes first and serves all of them.

        A killed run goes on with the first training that it had not finished.

        Args:
            zoology: whether to train on Zoology's settings.
            seconds: after which no longer budget and none of Zoology's settings begins; `longer`
                is then those that were trained.
        """
        deadline = time.monotonic() + seconds
        own, recalls = self.proxy, self.tables.recalls
        self._train("twice", replace(own, seeds=2 * own.seeds), recalls)
        self._train("1x", own, [name for name in own.tasks if name not in recalls])
        more = self._more_tasks()
        self._train("1x", replace(own, tasks={**own.tasks, **more}), tuple(more))
        self._add_first_seeds()
        wanted, self.longer = self.longer, []
        for factor in wanted:
            name, budget = f"{factor:g}x", with_steps(own, factor)
            for task in recalls:
                if time.monotonic() < deadline:
                    self._train(name, budget, [task], rates_of=own)
            if name in self.tables.runs:
                self.longer = [*self.longer, factor]
        if zoology:
            self._zoology(deadline)
        if self._is_whole(wanted, zoology):
            for run in self._trained:  # else the next run goes on with what is finished
                run.forget()
        return self.tables

    def _is_whole(self, wanted: Sequence[float], zoology: bool) -> bool:
        """Return whether nothing is left that was asked for."""
        recalls, first = self.tables.recalls, self.patterns[0]
        runs = [self.tables.runs.get(f"{factor:g}x", {}) for factor in wanted]
        return all(run and set(recalls) <= set(run[first].outcomes) for run in runs) and (
            not zoology or self.can_tell("ZOO-03")
        )

    def _recalls(self) -> tuple[str, ...]:
        return tuple(t for t in self.proxy.tasks if self.proxy.task(t).kind in RECALL_KINDS)

    def _add_first_seeds(self) -> None:
        """Give the proxy's own budget the recall tasks, which were trained with more seeds."""
        for pattern, trained in self.tables.runs["twice"].items():
            found = {task: each[: self.tables.seeds] for task, each in trained.outcomes.items()}
            self.tables.add("1x", pattern, replace(trained, outcomes=found))

    def _more_tasks(self) -> dict[str, Any]:
        """Return the tasks of the published results that the proxy has not."""
        width = {"vocab_size": 64, "length": 64}
        steps = {"training": {"steps": self.proxy.task_training(RECALL).steps}}
        more = {
            "palindrome": {"kind": "palindrome", **width, **steps},
            "stacks": {"kind": "stacks", "vocab_size": 64, "length": 96, "num_stacks": 8, **steps},
            "needle": {"kind": "needle", "vocab_size": 64, "length": 128, **steps},
        }
        return {name: task for name, task in more.items() if name not in self.proxy.tasks}

    def _train(
        self,
        name: str,
        proxy: ProxySettings,
        tasks: Sequence[str],
        rates_of: ProxySettings | None = None,
    ) -> None:
        """Train all patterns on some tasks of a proxy, and add them to a run's results."""
        specs = {pattern: arena_spec(pattern) for pattern in self.patterns}
        for pattern, trained in self._trained_specs(proxy, specs, tasks, rates_of).items():
            self.tables.add(name, pattern, trained)

    def _trained_specs(
        self,
        proxy: ProxySettings,
        specs: Mapping[str, ModelSpec],
        tasks: Sequence[str],
        rates_of: ProxySettings | None = None,
    ) -> dict[str, Trained]:
        run = ProxyRun(
            proxy, device=self.device, folder=self.folder, on_look=self.on_look, rates_of=rates_of
        )
        found = run.train(list(specs.values()), tasks)
        self._trained.append(run)
        self.tables.ledgers.append(run.ledger)
        return dict(zip(specs, found, strict=True))

    def can_tell(self, name: str) -> bool:
        """Whether everything that a check reads was trained."""
        if name in NEED_ZOOLOGY:
            return len(self.tables.zoology) == len(ZOOLOGY) * (1 + len(STATE_ORDER))
        if name not in NEED_LONGER:
            return True
        trained = [self.tables.ranked(run) for run in _runs(self)[1:]]
        if name == "budget":
            return bool(trained) and all(trained)
        return bool(trained) and all(RECALL in tasks for tasks in trained)

    def _zoology(self, deadline: float) -> None:
        """Train on Zoology's settings: attention as published, and mixers of equal state.

        Attention reads the published 8,192 tokens; the others, too narrow for as many, 256.
        """
        self._zoology_of(attention_models(), 8192, ATTENTION_STEPS, deadline)
        for models in state_models(list(STATE_ORDER)):
            self._zoology_of(models, 256, STATE_STEPS, deadline)

    def _zoology_of(
        self, models: SizedModels, vocab_size: int, steps: int, deadline: float
    ) -> None:
        tasks = {
            f"{length}/{pairs}": {
                "kind": "mqar", "vocab_size": vocab_size, "length": length, "num_pairs": pairs,
                "training": {"steps": steps, **ZOOLOGY_TRAINING},
            }
            for length, pairs in ZOOLOGY
        }  # fmt: skip
        proxy = replace(self.proxy, model=models.size, tasks=tasks)
        for length, pairs in ZOOLOGY:
            if time.monotonic() >= deadline:
                return
            found = self._trained_specs(proxy, models.specs, (f"{length}/{pairs}",))
            for letter, trained in found.items():
                score = trained.profile.scores[f"{length}/{pairs}"]
                self.tables.zoology[length, pairs, letter] = score


Check = Callable[[Tables, Validation], Finding]


def retest(tables: Tables, validation: Validation) -> Finding:
    """Do other seeds give the same order of recall? Means of as many seeds as a result has, and
    single ones.

    Kendall's tau; scores within 0.02 of each other are ties.
    """
    recalls = tables.ranked("twice")
    each = [tables.recall_of_seeds(p, recalls, "twice") for p in validation.patterns]
    half = tables.seeds
    first, second = [fmean(s[:half]) for s in each], [fmean(s[half:]) for s in each]
    tau = kendall_tau(first, second, TIE)
    singles = [
        kendall_tau([s[i] for s in each], [s[j] for s in each], TIE)
        for i, j in itertools.combinations(range(2 * half), 2)
    ]
    figures = (
        f"test-retest Kendall tau {tau:.2f} between means of {half} seeds, {fmean(singles):.2f}"
        f" between single seeds, {len(each)} patterns (target {TARGET})"
    )
    values = {"tau_means": tau, "tau_single_mean": fmean(singles), "patterns": len(each)}
    verdict = REPRODUCED if tau >= TARGET else NOT_REPRODUCED
    return Finding("retest", "same order with other seeds", verdict, figures, values)


def budget(tables: Tables, validation: Validation) -> Finding:
    """Does the order of recall at a short budget hold at longer ones?

    Spearman's rho over the means of the recall tasks that the longer budget has and that count;
    scores within 0.02 of each other are ties. Without ties the order among models that have all
    learnt the task counts, which is chance: those figures stand beside, and those of speed tasks.
    """
    found, untied, each, shown = {}, {}, {}, []
    for name in _runs(validation)[1:]:
        tasks = tables.ranked(name)
        short, long = (
            [fmean(tables.recall_of_seeds(p, tasks, run)) for p in validation.patterns]
            for run in ("1x", name)
        )
        found[name], untied[name] = spearman(short, long, TIE), spearman(short, long)
        each[name] = {
            task: _agreement(tables, validation, task, name) for task in tables.recalls_of(name)
        }
        left_out = [f"{task} {rho:.2f}" for task, rho in each[name].items() if task not in tasks]
        but = f"; not counted: {', '.join(left_out)}" if left_out else ""
        shown.append(
            f"{found[name]:.2f} with {name} the steps ({untied[name]:.2f} without ties;"
            f" {', '.join(tasks)}{but})"
        )
    patterns = len(validation.patterns)
    figures = f"rank correlation {'; '.join(shown)} over {patterns} patterns (target {TARGET})"
    good = all(rho >= TARGET for rho in found.values())
    verdict = REPRODUCED if good else NOT_REPRODUCED
    values = {**found, "without_ties": untied, "tasks": each}
    return Finding("budget", "same order with more steps", verdict, figures, values)


def _agreement(tables: Tables, validation: Validation, task: str, run: str) -> float:
    """Return the rank correlation of one task's scores with those of a longer budget."""
    short = [tables.mean(p, task) for p in validation.patterns]
    return spearman(short, [tables.mean(p, task, run) for p in validation.patterns], TIE)


def attention_first(tables: Tables, validation: Validation) -> Finding:
    """Does attention in the first layer win only because training was short?"""
    runs = _runs(validation)
    gaps = {run: tables.mean("FKKK", run=run) - tables.mean("KKKF", run=run) for run in runs}
    told = {run: difference(*(tables.score(p, run=run) for p in ("FKKK", "KKKF"))) for run in runs}
    shown = ", ".join(f"{run} {gap:+.3f} ({told[run]})" for run, gap in gaps.items())
    is_short, is_long = told[runs[0]] == A_BETTER, told[runs[-1]] == A_BETTER
    verdict = REPRODUCED if is_short and not is_long else NOT_RESOLVED
    if is_short and is_long:
        verdict = NOT_REPRODUCED
    meaning = {
        REPRODUCED: "first wins only while training is short: no evidence for placement",
        NOT_REPRODUCED: "first wins at the longest budget too",
        NOT_RESOLVED: "first does not win at the short budget",
    }[verdict]
    figures = f"score of attention first less attention last: {shown}; {meaning}"
    return Finding("attention_first", "the known artefact", verdict, figures, dict(gaps))


def zoology(tables: Tables, validation: Validation) -> Finding:
    """ZOO-03: attention is at 1.0 everywhere, mixers of a small state fall as pairs grow."""
    settings = ZOOLOGY[::-1]  # the easiest first
    means = _zoology_means(tables)
    attention = [means[length, pairs, "F"] for length, pairs in settings]
    falls = {k: means[*settings[0], k] - means[*settings[-1], k] for k in STATE_ORDER}
    shown = "; ".join(
        f"{KINDS[k]} " + " ".join(f"{means[length, pairs, k]:.2f}" for length, pairs in settings)
        for k in ("F", *STATE_ORDER)
    )
    good = min(attention) >= 0.99 and all(fall > TIE for fall in falls.values())
    names = ", ".join(f"({length}, {pairs})" for length, pairs in settings)
    verdict = REPRODUCED if good else NOT_REPRODUCED
    figures = f"(T, pairs) {names}: {shown}"
    values = {"attention": attention, "falls": falls}
    return Finding("ZOO-03", "attention at 1.0, others fall with pairs", verdict, figures, values)


def equal_state(tables: Tables, validation: Validation) -> Finding:
    """Zoology's recall against state: the order of five mixers of equal state, at most pairs.

    The published scores are means over settings of 4 to 256 pairs; those that a state holds easily
    tell nothing apart, so that the order is that of the hard ones.
    """
    kinds, means = list(STATE_ORDER), _zoology_means(tables)
    found = [means[*ZOOLOGY[0], kind] for kind in kinds]
    rho = spearman(found, list(STATE_ORDER.values()))
    shown = ", ".join(
        f"{KINDS[k]} {x:.2f} ({STATE_ORDER[k]:.2f})" for k, x in zip(kinds, found, strict=True)
    )
    verdict = REPRODUCED if rho >= 0.8 else NOT_REPRODUCED
    length, pairs = ZOOLOGY[0]
    figures = (
        f"Spearman {rho:.2f} (target 0.8) at {pairs} pairs in {length} tokens; score (published):"
        f" {shown}"
    )
    return Finding("equal_state", "order of mixers at equal state", verdict, figures, {"rho": rho})


def _zoology_means(tables: Tables) -> dict[tuple[int, int, str], float]:
    return {key: 0.0 if s is None else s.mean for key, s in tables.zoology.items()}


def ratio_flat(tables: Tables, validation: Validation) -> Finding:
    """SYS-01: across ratios the language model's score is flat, recall rises with full layers.

    The published figure is a mean of benchmark scores; the loss, which has no ceiling, stands
    beside it.
    """
    ladder = ("KKKK", "KKKF", "KFKF", "FFFF")
    scores, recall = ([tables.mean(p, t) for p in ladder] for t in (LANGUAGE, RECALL))
    spread, of_loss = _spread(scores), _spread([tables.loss(p) for p in ladder])
    rises = difference(tables.score("FFFF"), tables.score("KKKK")) == A_BETTER
    verdict = REPRODUCED if spread <= 0.01 and rises else NOT_REPRODUCED
    shown = ", ".join(
        f"{p} {x:.3f}/{y:.2f}" for p, x, y in zip(ladder, scores, recall, strict=True)
    )
    figures = (
        f"language/recall: {shown}; language spread {spread:.1%} (target 1 %), of its loss"
        f" {of_loss:.1%}"
    )
    values = {"spread": spread, "loss_spread": of_loss}
    return Finding("SYS-01", "language flat, recall not", verdict, figures, values)


def _spread(values: Sequence[float]) -> float:
    """Return how far the largest is above the smallest, over the smallest; NaN where that is 0."""
    return (max(values) - min(values)) / min(values) if min(values) else math.nan


def _runs(validation: Validation) -> list[str]:
    """Return the budgets that were trained, the shortest first."""
    return ["1x", *(f"{factor:g}x" for factor in validation.longer)]


def ratio_order(tables: Tables, validation: Validation) -> Finding:
    """KL-05: 3:1 has a lower loss than full attention, beyond the seeds' spread."""
    ladder = {"3:1": "KKKF", "1:1": "KFKF", "0:1": "FFFF"}
    losses = {name: tables.loss(p) for name, p in ladder.items()}
    best = min(losses, key=lambda name: losses[name])
    told = larger(tables.losses(ladder["0:1"]), tables.losses(ladder["3:1"]))
    shown = ", ".join(f"{name} {loss:.3f}" for name, loss in losses.items())
    verdict = {A_BETTER: REPRODUCED, B_BETTER: NOT_REPRODUCED, UNRESOLVED: NOT_RESOLVED}[told]
    figures = f"loss: {shown} nats, best {best}; 7:1 and 15:1 need more than four layers"
    return Finding("KL-05", "3:1 beats full attention in loss", verdict, figures, losses)


def _compare(name: str, question: str, pairs: Sequence[tuple[str, str, str]]) -> Check:
    """Return a check that every (task, better, worse) holds beyond the seeds' spread."""

    def check(tables: Tables, validation: Validation) -> Finding:
        told = [difference(tables.score(a, t), tables.score(b, t)) for t, a, b in pairs]
        shown = ", ".join(
            f"{t}: {a} {tables.mean(a, t):.2f} {b} {tables.mean(b, t):.2f}" for t, a, b in pairs
        )
        verdict = NOT_REPRODUCED if B_BETTER in told else NOT_RESOLVED
        if all(x == A_BETTER for x in told):
            verdict = REPRODUCED
        return Finding(name, question, verdict, shown, {"told": told})

    return check


CHECKS: dict[str, Check] = {
    "retest": retest,
    "budget": budget,
    "attention_first": attention_first,
    "equal_state": equal_state,
    "KL-05": ratio_order,
    "KL-09": _compare("KL-09", "KDA above Mamba-2 on palindrome, recall, stacks",
                      [(t, "KKKK", "MMMM") for t in ("palindrome", RECALL, "stacks")]),
    "GDN-02": _compare("GDN-02", "recall: pure linear below full and hybrid",
                       [(RECALL, "FFFF", "GGGG"), (RECALL, "GGGF", "GGGG")]),
    "GDN-03": _compare("GDN-03", "needle: gated delta rule above Mamba-2",
                       [("needle", "GGGG", "MMMM")]),
    "M01-03": _compare("M01-03", "needle: a lightning hybrid keeps what pure lightning loses",
                       [("needle", "NNNF", "NNNN")]),
    "M01-04": _compare("M01-04", "recall: a window hybrid loses to a lightning hybrid",
                       [(RECALL, "NNNF", "WWWF")]),
    "M2-02": _compare("M2-02", "recall: a window hybrid loses to full attention",
                      [(RECALL, "FFFF", "WWWF")]),
    "SYS-01": ratio_flat,
    "ZOO-03": zoology,
}  # fmt: skip
